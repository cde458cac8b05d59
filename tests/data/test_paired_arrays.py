"""Pairs of any number of channels and of 16 bits, and transforms of one's own."""

import io
import os
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imtrans import PairedImages, Pix2Pix, Trainer, UNetGenerator, load_pretrained, translate
from imtrans.data.arrays import array_header, load_array, read_array
from imtrans.data.cache import make_cache
from imtrans.data.loader import BatchLoader, batches
from imtrans.errors import ArgumentError, DataError

CPU = torch.device("cpu")


def write(path, values):
    """Save an array as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def noise(*shape, top=65535, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape, endpoint=True).astype(dtype)


def pairs(folder, a=".npy", b=".png", a_shape=(20, 20, 5), b_shape=(20, 20), count=3):
    """Satellite-like pairs: five channels of 16 bits, and one channel of 16 bits."""
    for i in range(count):
        write(folder / "A" / f"{i}{a}", noise(*a_shape, seed=i))
        write(folder / "B" / f"{i}{b}", noise(*b_shape, seed=i + 50))
    return folder


@pytest.mark.parametrize("a", [".npy", ".npz"])
@pytest.mark.parametrize("b", [".png", ".tif", ".npy"])
def test_16_bits_and_all_channels_arrive(tmp_path, a, b):
    data = PairedImages(pairs(tmp_path, a, b), size=20, augment=False, channels="as they are")
    assert data.channels == {"source": 5, "target": 1}
    assert "5 to 1 channels" in repr(data)
    sample = data[1]
    expected = noise(20, 20, 5, seed=1).transpose(2, 0, 1) / 32767.5 - 1
    assert sample["source"].dtype == torch.float32
    assert np.abs(sample["source"].numpy() - expected).max() < 1e-6
    assert np.abs(sample["target"][0].numpy() - (noise(20, 20, seed=51) / 32767.5 - 1)).max() < 1e-6


def test_a_run_on_16_bits_and_translate_gives_the_same_kind_back(tmp_path):
    data = PairedImages(pairs(tmp_path / "data"), size=16, channels="as they are")
    method = Pix2Pix(UNetGenerator(5, 1, base_channels=4, depth=3), None)
    run = Trainer(method, data, out=tmp_path / "run", epochs=1, device="cpu", precision="fp32", progress=False)
    run.fit()
    generator = load_pretrained(tmp_path / "run" / "generator")
    made = translate(generator, tmp_path / "data" / "A" / "0.npy")
    assert (made.dtype, made.shape) == (np.uint16, (20, 20, 1))
    assert np.array_equal(made, translate(generator, noise(20, 20, 5)))


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("channels", ["as they are", 3, "grey"])
def test_cached_batches_are_those_that_are_loaded(tmp_path, channels, augment):
    for side, value in (("A", 0), ("B", 9)):
        for i in range(3):  # 8 and 16 bits in one folder
            values = noise(20, 20, seed=i + value) if i else noise(20, 20, top=255, dtype=np.uint8)
            write(tmp_path / side / f"{i}.png", values)
    data = PairedImages(tmp_path, size=16, load_size=18, augment=augment, channels=channels)
    for cached, loaded in zip(make_cache(data, CPU).batches(2, epoch=1), batches(data, 2, epoch=1), strict=True):
        assert all(torch.equal(cached[name], loaded[name]) for name in ("source", "target"))


@pytest.mark.parametrize("augment", [True, False])
def test_8_bit_rgb_is_the_same_in_either_way(tmp_path, augment):
    for side in "AB":
        write(tmp_path / side / "1.png", noise(23, 31, 3, top=255, dtype=np.uint8))
    plain, arrays = (
        PairedImages(tmp_path, size=16, augment=augment, channels=channels) for channels in ("rgb", "as they are")
    )
    for name in ("source", "target"):
        assert torch.equal(plain[0][name], arrays[0][name])
        assert arrays.load(0)[name].dtype == torch.uint8


@pytest.mark.parametrize(
    ("channels", "mode", "found"),
    [("grey", "RGB", 1), ("as they are", "L", 1), ("as they are", "RGBA", 4), ("as they are", "P", 3), (4, "RGB", 4)],
)
def test_channels_of_pictures(tmp_path, channels, mode, found):
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(noise(9, 9, 3, top=255, dtype=np.uint8)).convert(mode).save(tmp_path / side / "1.png")
    data = PairedImages(tmp_path, size=8, channels=channels)
    assert data.channels == {"source": found, "target": found}
    assert data[0]["source"].shape == (found, 8, 8)


def test_halves_of_arrays(tmp_path):
    values = noise(8, 16, 2)
    write(tmp_path / "1.npy", values)
    data = PairedImages(tmp_path, size=8, augment=False, channels=2, direction="BtoA")
    assert np.allclose(data[0]["source"].numpy(), values[:, 8:].transpose(2, 0, 1) / 32767.5 - 1, atol=1e-6)


def test_a_value_range_is_for_arrays_too(tmp_path):
    for side in "AB":
        write(tmp_path / side / "1.npy", np.array([[-2000, -1000], [0, 3000]], dtype=">i2"))
    with pytest.raises(DataError, match=r"values of int16 from -2000 to 3000\. Without a range"):
        PairedImages(tmp_path, size=2, augment=False, channels="grey")[0]
    data = PairedImages(tmp_path, size=2, augment=False, channels="grey", value_range=(-1000, 1000))
    assert data[0]["source"].flatten().tolist() == [-1, -1, 0, 1]


def test_files_of_other_channels_are_named(tmp_path):
    pairs(tmp_path)
    other = write(tmp_path / "A" / "2.npy", noise(20, 20, 4))
    with pytest.raises(DataError) as caught:
        PairedImages(tmp_path, channels="as they are")
    assert str(caught.value) == (
        f"{tmp_path / 'A' / '0.npy'} has 5 channels, {other} has 4. Give channels=5 to convert pictures, or take one "
        "out."
    )
    with pytest.raises(DataError, match=r"B/0\.png is an image of mode 'I;16', which has no form of 5 channels"):
        PairedImages(tmp_path, channels=5)[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"channels": "gray"}, "channels='gray' is not one of ['as they are', 'grey', 'rgb']. Did you mean 'grey'?"),
        ({"channels": 0}, "channels must be a whole number >= 1, got 0."),
        ({"instances": True}, "instances=True adds edges to a label map. Give labels=... too."),
        ({"instances": "ids", "labels": 3}, "instances must be True or False, got 'ids'."),
        ({"transform": "flip"}, "transform must be callable, got 'flip'."),
    ],
)
def test_arguments_are_checked(tmp_path, settings, text):
    with pytest.raises(ArgumentError) as caught:
        PairedImages(pairs(tmp_path), **settings)
    assert str(caught.value) == f"PairedImages: {text}"


# Files that are no arrays


def npy(header):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


BAD = {
    "empty": b"",
    "an absurd size": npy({"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}),
    "a negative size": npy({"descr": "<f4", "fortran_order": False, "shape": (-4, -4)}),
    "truncated": npy({"descr": "<f4", "fortran_order": False, "shape": (30, 30)}),
    "objects": npy({"descr": "|O", "fortran_order": False, "shape": (1, 1)}),
    "one axis": npy({"descr": "|u1", "fortran_order": False, "shape": (3,)}) + b"abc",
    "no pixels": npy({"descr": "|u1", "fortran_order": False, "shape": (3, 0)}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_array_is_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"1{suffix}"
    path.write_bytes(content)
    if suffix == ".npz" and content:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", content)
    for read in (array_header, load_array, lambda path: read_array(path, 1)):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path} cannot be read as an array (")
        assert "\n" not in str(caught.value)


def test_a_fifo_and_an_archive_of_several_arrays(tmp_path):
    os.mkfifo(tmp_path / "1.npy")
    with pytest.raises(DataError, match=r"1\.npy cannot be read as an array \(no regular file\)"):
        array_header(tmp_path / "1.npy")
    np.savez(tmp_path / "2.npz", a=noise(4, 4), b=noise(4, 4))
    with pytest.raises(DataError, match="it holds 2 arrays, not one"):
        load_array(tmp_path / "2.npz")


@settings(max_examples=60)
@given(
    end=st.integers(0, 200), at=st.integers(0, 199), value=st.integers(0, 255), suffix=st.sampled_from(["npy", "npz"])
)
def test_a_damaged_array_is_read_or_refused(tmp_path_factory, end, at, value, suffix):
    path = tmp_path_factory.mktemp("damaged") / f"1.{suffix}"
    write(path, noise(4, 4, 3))
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content[: len(content) - end])
    with suppress(DataError):
        load_array(path)


# Transforms


def noisy(source, target, generator):
    return source + 0.01 * torch.rand(source.shape, generator=generator), target.flip(-1)


def test_a_transform_is_paired_and_seeded_by_epoch_and_index(tmp_path):
    settings = {"size": 16, "load_size": 18, "channels": "as they are", "seed": 3}
    plain, data = (
        PairedImages(pairs(tmp_path / n), **settings, **t) for n, t in (("a", {}), ("b", {"transform": noisy}))
    )
    first, again, later, other = data.draw(1, 2), data.draw(-2, 2), data.draw(1, 3), data.draw(2, 2)
    assert torch.equal(first["source"], again["source"])
    assert torch.equal(first["target"], plain.draw(1, 2)["target"].flip(-1))
    drawn = [
        each["source"] - plain.draw(*at)["source"] for each, at in ((first, (1, 2)), (later, (1, 3)), (other, (2, 2)))
    ]
    assert all(0 < d.max() < 0.011 for d in drawn)
    assert len({d.sum().item() for d in drawn}) == 3
    assert "transform noisy" in repr(data)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_transform_gives_the_same_from_the_cache_and_from_workers(tmp_path, batch_size):
    data = PairedImages(pairs(tmp_path), size=16, channels="as they are", transform=noisy)
    loaders = [BatchLoader(CPU, cache=True, num_workers=0), BatchLoader(CPU, cache=False, num_workers=2)]
    one, other = (list(each.batches(data, batch_size, epoch=1, shuffle_seed=1)) for each in loaders)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("source", "target"))


def test_a_transform_gets_samples_on_the_cpu(tmp_path):
    data = PairedImages(pairs(tmp_path), size=16, channels="as they are", transform=noisy)
    assert make_cache(data, torch.device("meta")).device == CPU


def test_a_transform_returns_two_tensors(tmp_path):
    data = PairedImages(pairs(tmp_path), size=16, channels="as they are", transform=lambda s, t, g: s)
    with pytest.raises(ArgumentError, match="PairedImages: transform must return source and target, two tensors, got"):
        data[0]


def test_the_value_range_is_saved_and_translate_reads_and_writes_it(tmp_path):
    """What `translate` makes of a file is what the network makes of the sample, with and without a range."""
    for i in range(2):
        for side in "AB":
            write(tmp_path / "data" / side / f"{i}.png", noise(16, 16, top=4095, seed=i))
    data = PairedImages(tmp_path / "data", size=16, augment=False, channels="grey", value_range=(0, 4095))
    method = Pix2Pix(UNetGenerator(1, 1, base_channels=4, depth=3), None)
    method.generator.value_range = (0, 1)  # of an earlier training
    Trainer(method, data, out=tmp_path / "run", epochs=1, device="cpu", precision="fp32", progress=False).fit()
    generator = load_pretrained(tmp_path / "run" / "generator")
    assert generator.value_range == (0, 4095)
    assert "values from 0 to 4095" in (tmp_path / "run" / "generator" / "README.md").read_text()
    path = tmp_path / "data" / "A" / "1.png"
    made = np.asarray(translate(generator, path))
    assert made.dtype == np.uint16
    expected = translate(generator, data[1]["source"])
    assert np.array_equal(made, ((expected[0].numpy() + 1) / 2 * 4095).round().astype(np.uint16))
    assert np.array_equal(translate(generator, noise(16, 16, top=4095, seed=1).astype(np.int16)), made)
    # A generator without a range, as saved by older versions, takes the values as 16-bit ones.
    generator.value_range = None
    whole = torch.from_numpy(noise(16, 16, top=4095, seed=1) / 32767.5 - 1).float()[None]
    expected = (translate(generator, whole)[0].numpy() + 1) / 2 * 65535
    assert np.array_equal(np.asarray(translate(generator, path)), expected.round().astype(np.uint16))


def test_training_on_data_without_a_range_forgets_the_old_one(tmp_path):
    generator = UNetGenerator(5, 1, base_channels=4, depth=3)
    generator.value_range = (0, 4095)
    data = PairedImages(pairs(tmp_path), size=16, channels="as they are")
    Trainer(Pix2Pix(generator, None), data, out=None, device="cpu")
    assert generator.value_range is None


@pytest.mark.parametrize("folders", [True, False])
def test_a_folder_of_arrays_alone_names_the_option(tmp_path, folders):
    for index in range(2):
        write(tmp_path / ("A" if folders else "") / f"{index}.npy", noise(8, 8, 3))
    (tmp_path / "B").mkdir() if folders else None
    with pytest.raises(DataError, match=r"hold.* no pictures") as caught:
        PairedImages(tmp_path)
    assert str(caught.value).endswith(
        ' Its .npy and .npz files are read with channels="as they are" (--channels "as they are").'
    )
