import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from imtrans import LabFacades, LabImages, ProceduralFacades
from imtrans.colours import join_lab, split_lab
from imtrans.data.crop_dataset import Jitter
from imtrans.data.images import read_image, resized, to_tensor
from imtrans.data.loader import EpochDataset
from imtrans.errors import ArgumentError, DataError


@pytest.fixture
def folder(tmp_path):
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 256, (20, 30 + n, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    return tmp_path


def test_a_sample_is_lightness_and_colour(folder):
    data = LabImages(folder, size=16, augment=False)
    assert len(data) == len(list(data)) == 4
    sample = data[1]
    assert {name: tensor.shape for name, tensor in sample.items()} == {"source": (1, 16, 16), "target": (2, 16, 16)}
    picture = to_tensor(read_image(folder / "1.png").resize((16, 16), Image.Resampling.BICUBIC))
    lightness, ab = split_lab(picture)
    assert torch.equal(sample["source"], lightness)
    assert torch.equal(sample["target"], ab)
    torch.testing.assert_close(join_lab(sample["source"], sample["target"]), picture, atol=1e-3, rtol=0)


def test_a_window_is_cut_before_it_becomes_lab(folder):
    data = LabImages(folder, size=16, load_size=20, seed=3)
    for epoch in range(3):
        params = torch.tensor([data.jitter.random_crop(np.random.default_rng((3, epoch, 2)))])
        picture = data.jitter.crop(resized(read_image(folder / "2.png"), 20)[None], params)[0]
        lightness, ab = split_lab(picture)
        sample = data.draw(2, epoch)
        assert torch.equal(sample["source"], lightness)
        assert torch.equal(sample["target"], ab)
    assert not torch.equal(data.draw(2, 0)["source"], data.draw(2, 1)["source"])


def test_flips_and_sizes_are_those_of_the_jitter(folder):
    assert LabImages(folder, size=16, load_size=18, flip=False).jitter == Jitter(16, 18, False)
    assert LabImages(folder, size=8).draw(0, 0)["source"].shape == (1, 8, 8)
    windows = [
        LabImages(folder, size=16, flip=flip).crop_params(0, epoch)[0][3] for flip in (0, 1) for epoch in range(9)
    ]
    assert not any(windows[:9])
    assert any(windows[9:])


def test_workers_load_the_same(folder):
    data = EpochDataset(LabImages(folder, size=16, seed=1), 2)
    loaded = list(DataLoader(data, batch_size=2, num_workers=2))
    assert torch.equal(torch.cat([b["target"] for b in loaded]), torch.stack([data[i]["target"] for i in range(4)]))


def test_grey_pictures_have_no_colour(tmp_path):
    Image.new("L", (9, 9), 77).save(tmp_path / "grey.png")
    assert LabImages(tmp_path, size=8)[0]["target"].abs().max() < 1e-5


def test_bad_pictures_are_an_error_or_left_out(folder):
    (folder / "4.png").write_bytes((folder / "3.png").read_bytes()[:-50])
    data = LabImages(folder, size=16)  # its header is sound
    with pytest.raises(DataError, match=r"4\.png cannot be read as a picture"):
        data[4]
    with pytest.warns(UserWarning, match="LabImages: 1 of 5 samples is bad and left out"):
        data = LabImages(folder, size=16, on_bad_image="skip")
    assert len(list(data)) == 4
    assert [report.split(" ")[0] for report in data.bad_images] == [str(folder / "4.png")]
    assert f"4 pictures in {folder} (1 bad one left out), " in repr(data)


def test_it_says_what_it_is(folder):
    assert repr(LabImages(folder, size=16)) == (
        f"4 pictures in {folder}, 30x20, 31x20, 32x20 and 1 more pixels, grey to colour, "
        "as Jitter(size=16, load_size=None, flip=True)"
    )
    assert repr(LabImages(folder, size=16, augment=False)).endswith(", grey to colour, resized to 16x16")
    assert repr(LabFacades(3, size=16, seed=5)) == (
        "3 procedural facades of seed 5, grey to colour, as Jitter(size=16, load_size=None, flip=True)"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"on_bad_image": "skp"},
            "LabImages: on_bad_image='skp' is not one of ['error', 'skip']. Did you mean 'skip'?",
        ),
        ({"size": 0}, "Jitter: size must be a whole number >= 1, got 0."),
        ({"load_size": 255}, "Jitter: load_size must be a whole number >= 256, got 255."),
        ({"seed": -1}, "LabImages: seed must be a whole number >= 0, got -1."),
    ],
)
def test_values_that_are_not_allowed(folder, settings, text):
    with pytest.raises(ArgumentError) as caught:
        LabImages(folder, **settings)
    assert str(caught.value) == text


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(DataError, match="holds no pictures"):
        LabImages(tmp_path)


@pytest.mark.parametrize("augment", [True, False])
def test_facades_are_the_pictures_of_the_procedural_ones(augment):
    data, pairs = (kind(3, size=16, seed=4, augment=augment) for kind in (LabFacades, ProceduralFacades))
    for epoch in range(3):
        sample = data.draw(1, epoch)
        lightness, ab = split_lab(pairs.draw(1, epoch)["target"])
        assert torch.equal(sample["source"], lightness)
        assert torch.equal(sample["target"], ab)
    assert (data[1]["target"] != 0).any()
