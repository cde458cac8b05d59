import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from imtrans import ProceduralFacades, UnpairedFacades, UnpairedImages
from imtrans.data.crop_dataset import Jitter
from imtrans.data.images import to_tensor
from imtrans.data.loader import EpochDataset
from imtrans.errors import ArgumentError, DataError


def fill(folder, count, *, first=0, size=(20, 20)):
    """SingleSourceDataset of one grey each, so that a sample tells which it shows: ``first + 10 * i``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (first + 10 * i,) * 3).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("unpaired")
    return fill(root / "one", 3), fill(root / "other", 7, first=100, size=(31, 12))


def printable(sample):
    """The grey of each of the two pictures."""
    return tuple(round((sample[name].unique().item() + 1) * 127.5) for name in ("source", "target"))


def error_of(*folders, **settings):
    with pytest.raises(DataError) as caught:
        UnpairedImages(*folders, **settings)
    return str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
def test_there_are_as_many_samples_as_pictures_in_the_larger_folder(folders, order):
    data = UnpairedImages(*folders[::order], size=8)
    assert len(data) == len(list(data)) == 7
    assert all(sample[name].shape == (3, 8, 8) for sample in data for name in ("source", "target"))
    with pytest.raises(IndexError):
        data[7]
    assert printable(data[-1]) == printable(data[6])


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_goes_round_and_b_is_any(folders, direction, order):
    data = UnpairedImages(*folders[::order], size=8, direction=direction)
    first, count = ((0, 3), (100, 7))[::order][0]
    sides = {"AtoB": ("source", "target"), "BtoA": ("target", "source")}[direction]
    found = {side: set() for side in ("A", "B")}
    for epoch in range(12):
        for i in range(7):
            sample = data.draw(i, epoch)
            assert list(sample) == ["source", "target"]
            greys = dict(zip(("source", "target"), printable(sample), strict=True))
            assert greys[sides[0]] == first + 10 * (i % count)
            found["B"].add(greys[sides[1]])
    other, others = ((0, 3), (100, 7))[::order][1]
    assert found["B"] == {other + 10 * i for i in range(others)}


def test_without_augmentation_nothing_is_random(folders):
    data = UnpairedImages(*folders, size=8, augment=False)
    for epoch in (0, 3):
        assert [printable(data.draw(i, epoch)) for i in range(7)] == [(10 * (i % 3), 100 + 10 * i) for i in range(7)]


@given(index=st.integers(0, 6), epoch=st.integers(0, 400), seed=st.integers(0, 2**20))
def test_a_sample_is_a_function_of_seed_epoch_and_index(folders, index, epoch, seed):
    data, again = (UnpairedImages(*folders, size=8, seed=seed) for _ in range(2))
    data.draw(3, 0)
    sample, same = data.draw(index, epoch), again.draw(index, epoch)
    assert all(torch.equal(sample[name], same[name]) for name in sample)
    for picture, left, top, mirrored in data.crop_params(index, epoch):
        assert 0 <= picture < 7
        assert 0 <= left <= 1
        assert 0 <= top <= 1
        assert mirrored in (True, False)


def test_both_pictures_are_cut_and_flipped_by_themselves(folders):
    data = UnpairedImages(*folders, size=8, load_size=12)
    crop_params = [data.crop_params(i, epoch) for i in range(7) for epoch in range(30)]
    for axis in (1, 2, 3):
        together = {(source[axis], target[axis]) for source, target in crop_params}
        side = 5 if axis < 3 else 2
        assert len(together) == side * side
    assert {cut[3] for pair in [data.crop_params(i, 0) for i in range(7)] for cut in pair} == {False, True}
    still = UnpairedImages(*folders, size=8, flip=False)
    assert not any(cut[3] for epoch in range(9) for cut in still.crop_params(0, epoch))


def test_pairs_differ_by_seed_and_epoch(folders):
    def pairs(seed, epoch):
        data = UnpairedImages(*folders, size=8, seed=seed)
        return tuple(printable(data.draw(i, epoch)) for i in range(7))

    assert len({pairs(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_a_picture_of_any_shape_is_resized_to_a_square(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 31, 3), dtype=np.uint8)
    for side in "ab":
        (tmp_path / side).mkdir()
        Image.fromarray(noise).save(tmp_path / side / "1.png")
    sample = UnpairedImages(tmp_path / "a", tmp_path / "b", size=16, augment=False)[0]
    square = to_tensor(Image.fromarray(noise).resize((16, 16), Image.Resampling.BICUBIC))
    assert torch.equal(sample["source"], square)
    assert torch.equal(sample["target"], square)


@pytest.mark.parametrize("epoch", [0, 3])
def test_any_number_of_workers_and_any_order_give_the_same_samples(folders, epoch):
    data = UnpairedImages(*folders, size=16, seed=4)
    for workers, order in ((0, [2, 0, 6]), (2, [1, 5, 0])):
        torch.manual_seed(workers)
        loaded = DataLoader(EpochDataset(data, epoch), batch_size=None, sampler=order, num_workers=workers)
        for index, sample in zip(order, loaded, strict=True):
            expected = data.draw(index, epoch)
            assert all(torch.equal(sample[name], expected[name]) for name in expected)


def test_repr_tells_what_was_found(folders):
    one, other = folders
    assert repr(UnpairedImages(one, other, size=8, direction="BtoA")) == (
        f"3 pictures in {one}, 20x20 pixels, and, without pairs, 7 pictures in {other}, 31x12 pixels, BtoA, "
        "as Jitter(size=8, load_size=None, flip=True)"
    )
    assert repr(UnpairedImages(one, other, size=8, augment=False)).endswith(" pixels, AtoB, resized to 8x8")


def test_an_empty_folder(folders, tmp_path):
    (tmp_path / "notes.txt").touch()
    for pair in ((tmp_path, folders[0]), (folders[0], tmp_path)):
        assert error_of(*pair) == f"{tmp_path} holds no pictures. Put some (.png, .jpg, .tif, .webp) in it."


def test_a_missing_folder(folders, tmp_path):
    for pair in ((tmp_path / "no", folders[0]), (folders[0], tmp_path / "no")):
        assert error_of(*pair) == (
            f"{tmp_path / 'no'} cannot be read as a folder of pictures: No such file or directory. Check the path."
        )


def test_an_unreadable_picture_is_found_before_training(folders, tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "d.jpg").write_text("<!doctype html><title>404 Not Found</title>")
    assert error_of(folders[0], tmp_path).startswith(f"{tmp_path / 'd.jpg'} cannot be read as a picture (")


def test_bad_pictures_can_be_left_out(folders, tmp_path):
    one, other = fill(tmp_path / "one", 3), fill(tmp_path / "other", 2, first=100)
    for path in (one / "a.png", other / "b.png"):
        path.write_bytes((one / "00.png").read_bytes()[:-30])
    with pytest.warns(UserWarning, match="UnpairedImages: 1 of . samples is bad and left out") as warned:
        data = UnpairedImages(one, other, size=8, augment=False, on_bad_image="skip")
    assert len(warned) == 2
    assert (len(data), len(data.b)) == (3, 2)
    assert [report.split(" ")[0] for report in data.bad_images] == [str(one / "a.png"), str(other / "b.png")]
    assert f"3 pictures in {one} (1 bad one left out), 20x20 pixels" in repr(data)
    assert UnpairedImages(*folders, size=8, on_bad_image="skip").bad_images == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"on_bad_image": "skp"},
            "UnpairedImages: on_bad_image='skp' is not one of ['error', 'skip']. Did you mean 'skip'?",
        ),
        (
            {"direction": "AtB"},
            "UnpairedImages: direction='AtB' is not one of ['AtoB', 'BtoA']. Did you mean 'AtoB'?",
        ),
        ({"size": 0}, "Jitter: size must be a whole number >= 1, got 0."),
        ({"load_size": 255}, "Jitter: load_size must be a whole number >= 256, got 255."),
        ({"seed": -1}, "UnpairedImages: seed must be a whole number >= 0, got -1."),
    ],
)
def test_arguments_are_checked(folders, settings, text):
    with pytest.raises(ArgumentError) as caught:
        UnpairedImages(*folders, **settings)
    assert str(caught.value) == text


# Facades


def test_the_two_sides_are_of_different_buildings():
    data = UnpairedFacades(3, size=16, seed=5, augment=False)
    buildings = [ProceduralFacades(6, size=16, seed=5, augment=False)[i] for i in range(6)]
    assert len(data) == 3
    for i, sample in enumerate(data):
        assert torch.equal(sample["source"], buildings[2 * i]["source"])
        assert torch.equal(sample["target"], buildings[2 * i + 1]["target"])


def test_facades_in_the_other_direction():
    there = UnpairedFacades(3, size=16, seed=5)
    back = UnpairedFacades(3, size=16, seed=5, direction="BtoA")
    for index, epoch in ((0, 0), (1, 4), (2, 1)):
        sample, mirrored = there.draw(index, epoch), back.draw(index, epoch)
        assert torch.equal(mirrored["source"], sample["target"])
        assert torch.equal(mirrored["target"], sample["source"])


def test_facades_are_augmented_side_by_side():
    data, large = UnpairedFacades(3, size=32), Jitter(32).loaded_size
    assert data.draw(1, 4)["source"].shape == (3, 32, 32)
    assert data.a.load(0)["source"].shape == (3, large, large)
    assert len({data.draw(1, epoch)["target"].numpy().tobytes() for epoch in range(8)}) > 4


def test_repr_of_facades():
    assert repr(UnpairedFacades(7, size=16, seed=2)) == (
        "labels of 7, pictures of 7 other procedural facades of seed 2, AtoB, "
        "as Jitter(size=16, load_size=None, flip=True)"
    )
    assert repr(UnpairedFacades(7, size=16, augment=False)).endswith(", AtoB, resized to 16x16")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"length": 0}, "UnpairedFacades: length must be a whole number >= 1, got 0."),
        ({"length": 1, "size": 15}, "ProceduralFacades: size must be a whole number >= 16, got 15."),
        (
            {"length": 1, "direction": "BtoB"},
            "UnpairedFacades: direction='BtoB' is not one of ['AtoB', 'BtoA']. Did you mean 'BtoA'?",
        ),
        ({"length": 1, "seed": -1}, "ProceduralFacades: seed must be a whole number >= 0, got -1."),
    ],
)
def test_arguments_of_facades_are_checked(settings, text):
    with pytest.raises(ArgumentError) as caught:
        UnpairedFacades(**settings)
    assert str(caught.value) == text
