import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from imtrans import PairedImages
from imtrans.data.image_folder import SKIP_HINT
from imtrans.data.images import to_tensor
from imtrans.data.loader import EpochDataset
from imtrans.errors import ArgumentError, DataError

BLACK, GREY, WHITE = 0, 128, 255


def save(path, *values, size=(20, 20), noise=False):
    """A picture of `values` side by side, each `size` (width, height) large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    picture = np.concatenate([np.full((height, width, 3), v, dtype=np.uint8) for v in values], axis=1)
    if noise:
        rng = np.random.default_rng(len(str(path)) + sum(path.name.encode()))
        picture = rng.integers(0, 256, picture.shape, dtype=np.uint8)
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def side_by_side(tmp_path):
    for name in ("c", "a", "b"):
        save(tmp_path / f"{name}.png", BLACK, WHITE, noise=True)
    return tmp_path


def error_of(folder, **settings):
    with pytest.raises(DataError) as caught:
        PairedImages(folder, **settings)
    return str(caught.value)


def value(tensor):
    (only,) = tensor.unique().tolist()
    return round((only + 1) * 127.5)


@pytest.mark.parametrize("layout", ["side by side", "two folders"])
@pytest.mark.parametrize(("direction", "source", "target"), [("AtoB", BLACK, WHITE), ("BtoA", WHITE, BLACK)])
@pytest.mark.parametrize("augment", [True, False])
def test_both_layouts_in_both_directions(tmp_path, layout, direction, source, target, augment):
    if layout == "side by side":
        save(tmp_path / "1.png", BLACK, WHITE)
    else:
        save(tmp_path / "A" / "1.png", BLACK)
        save(tmp_path / "B" / "1.png", WHITE)
    data = PairedImages(tmp_path, direction=direction, size=8, augment=augment)
    sample = data[0]
    assert sorted(sample) == ["source", "target"]
    assert sample["source"].shape == sample["target"].shape == (3, 8, 8)
    assert (value(sample["source"]), value(sample["target"])) == (source, target)


def test_files_are_in_the_order_of_their_names(side_by_side):
    data = PairedImages(side_by_side)
    assert [pair.a.name for pair in data.pairs] == ["a.png", "b.png", "c.png"]
    assert len(data) == 3


def test_without_augmentation_a_sample_is_the_picture_in_any_epoch(side_by_side):
    data = PairedImages(side_by_side, size=20, augment=False)
    with Image.open(side_by_side / "b.png") as image:
        whole = to_tensor(image)
    for epoch in (0, 5):
        sample = data.draw(1, epoch)
        assert torch.equal(torch.cat([sample["source"], sample["target"]], dim=2), whole)


def test_partners_may_differ_in_suffix_and_be_of_any_size(tmp_path):
    save(tmp_path / "A" / "1.jpg", GREY, size=(30, 10))
    save(tmp_path / "B" / "1.PNG", WHITE, size=(30, 10))
    save(tmp_path / "A" / "2.bmp", GREY, size=(7, 9))
    save(tmp_path / "B" / "2.webp", GREY, size=(7, 9))
    data = PairedImages(tmp_path, size=16)
    assert len(data) == 2
    assert data[0]["target"].shape == (3, 16, 16)


def test_hidden_files_and_other_kinds_are_ignored(side_by_side):
    (side_by_side / "._a.png").write_bytes(b"\0\5\26\7")
    (side_by_side / ".DS_Store").touch()
    (side_by_side / "notes.txt").touch()
    assert len(PairedImages(side_by_side)) == 3


def test_repr_tells_what_was_found(side_by_side):
    save(side_by_side / "d.png", BLACK, WHITE, size=(30, 16))
    assert repr(PairedImages(side_by_side, direction="BtoA", size=8)) == (
        f"4 pairs side by side in {side_by_side}, 20x20, 30x16 pixels, BtoA, "
        "as Jitter(size=8, load_size=None, flip=True)"
    )
    assert repr(PairedImages(side_by_side, size=8, augment=False)).endswith(" pixels, AtoB, resized to 8x8")


def test_repr_of_two_folders_lists_few_sizes(tmp_path):
    for width in range(10, 15):
        for side in "AB":
            save(tmp_path / side / f"{width}.png", GREY, size=(width, 10))
    assert repr(PairedImages(tmp_path, size=8)).startswith(
        f"5 pairs in folders A and B in {tmp_path}, 10x10, 11x10, 12x10 and 2 more pixels, AtoB"
    )


def test_an_empty_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert error_of(tmp_path) == (
        f"{tmp_path} holds no pictures. Put side-by-side pairs (.png, .jpg, .tif, .webp) in it, or two "
        "folders, A and B, of files with the same names."
    )


def test_empty_folders_a_and_b(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    assert error_of(tmp_path) == (
        f"{tmp_path / 'A'} and {tmp_path / 'B'} hold no pictures. Put the two pictures of a pair into both, under one "
        "name."
    )


@pytest.mark.parametrize("present", ["A", "B"])
def test_one_of_the_two_folders_is_missing(tmp_path, present):
    save(tmp_path / present / "1.png", GREY)
    missing = tmp_path / {"A": "B", "B": "A"}[present]
    assert (
        error_of(tmp_path)
        == f"{missing} cannot be read as a folder of pictures: No such file or directory. Check the path."
    )


def test_a_missing_folder(tmp_path):
    assert error_of(tmp_path / "no") == (
        f"{tmp_path / 'no'} cannot be read as a folder of pictures: No such file or directory. Check the path."
    )


def test_a_file_instead_of_a_folder(tmp_path):
    path = save(tmp_path / "1.png", GREY)
    assert error_of(path) == f"{path} cannot be read as a folder of pictures: Not a directory. Check the path."


def test_files_without_partner(tmp_path):
    for n in range(4):
        save(tmp_path / "A" / f"{n}.png", GREY)
        save(tmp_path / "B" / f"{n + 3}.png", GREY)
    a, b = tmp_path / "A", tmp_path / "B"
    assert error_of(tmp_path) == (
        f"6 of the files in {a} and {b} have no partner of the same name: {a}/0.png, {a}/1.png, {a}/2.png, "
        f"{b}/4.png, {b}/5.png and 1 more. Add the missing ones, or take these out. " + SKIP_HINT
    )


def test_a_pair_that_cannot_be_halved(tmp_path):
    path = save(tmp_path / "1.png", GREY, size=(21, 10))
    assert error_of(tmp_path) == (
        f"{path} is 21 pixels wide and cannot be halved. A side-by-side pair has A in its left half and B in its "
        "right half; or put them in two folders, A and B. " + SKIP_HINT
    )


def test_partners_of_different_sizes(tmp_path):
    a = save(tmp_path / "A" / "1.png", GREY, size=(20, 10))
    b = save(tmp_path / "B" / "1.png", GREY, size=(10, 20))
    assert error_of(tmp_path) == (
        f"{a} is 20x10, its partner {b} is 10x20. The two pictures of a pair must be of one size. " + SKIP_HINT
    )


def test_the_same_name_twice(tmp_path):
    one = save(tmp_path / "A" / "1.jpg", GREY)
    other = save(tmp_path / "A" / "1.png", GREY)
    save(tmp_path / "B" / "1.png", GREY)
    assert error_of(tmp_path) == f"{one} and {other} have the same name. Keep one of them."


def test_a_web_page_named_like_a_picture_is_found_before_training(side_by_side):
    path = side_by_side / "d.jpg"
    path.write_text("<!doctype html><title>404 Not Found</title>")
    assert error_of(side_by_side).startswith(f"{path} cannot be read as a picture (none of PNG, JPEG, ")


def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path):
    path = save(tmp_path / "1.jpg", BLACK, WHITE, size=(64, 64), noise=True)
    path.write_bytes(path.read_bytes()[:-2000])
    data = PairedImages(tmp_path, size=16)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value).startswith(f"{path} cannot be read as a picture (image file is truncated")
    assert str(caught.value).endswith(f"Repair the file, or take it out of the folder. {SKIP_HINT}")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"on_bad_image": "skp"},
            "PairedImages: on_bad_image='skp' is not one of ['error', 'skip']. Did you mean 'skip'?",
        ),
        (
            {"direction": "AtB"},
            "PairedImages: direction='AtB' is not one of ['AtoB', 'BtoA']. Did you mean 'AtoB'?",
        ),
        ({"size": 0}, "Jitter: size must be a whole number >= 1, got 0."),
        ({"load_size": 255}, "Jitter: load_size must be a whole number >= 256, got 255."),
        ({"seed": -1}, "PairedImages: seed must be a whole number >= 0, got -1."),
    ],
)
def test_arguments_are_checked(side_by_side, settings, text):
    with pytest.raises(ArgumentError) as caught:
        PairedImages(side_by_side, **settings)
    assert str(caught.value) == text


def test_iteration_ends_and_a_negative_index_counts_from_the_end(side_by_side):
    data = PairedImages(side_by_side, size=8)
    samples = list(data)
    assert len(samples) == 3
    assert torch.equal(data[-1]["source"], samples[2]["source"])
    with pytest.raises(IndexError):
        data[3]


def test_a_sample_is_a_function_of_seed_epoch_and_index(side_by_side):
    def draw(index, epoch, seed):
        return PairedImages(side_by_side, size=16, load_size=20, seed=seed).draw(index, epoch)["source"]

    drawn = {(i, e, s): draw(i, e, s) for i in (0, 1) for e in (0, 1, 2) for s in (0, 1)}
    for key, sample in drawn.items():
        assert torch.equal(sample, draw(*key))
    for index in (0, 1):
        different = {drawn[index, e, s].numpy().tobytes() for e in (0, 1, 2) for s in (0, 1)}
        assert len(different) > 3


@pytest.mark.parametrize("epoch", [0, 3])
def test_any_number_of_workers_and_any_order_give_the_same_samples(side_by_side, epoch):
    data = PairedImages(side_by_side, size=16, load_size=24, seed=4)
    expected = [data.draw(i, epoch) for i in range(3)]
    at_epoch = EpochDataset(data, epoch)
    for workers, order in ((0, [2, 0, 1]), (2, [1, 2, 0])):
        torch.manual_seed(workers)
        loaded = DataLoader(at_epoch, batch_size=None, sampler=order, num_workers=workers)
        for index, sample in zip(order, loaded, strict=True):
            assert torch.equal(sample["source"], expected[index]["source"])
            assert torch.equal(sample["target"], expected[index]["target"])


def deep(path, low, high, dtype=np.uint16, shape=(20, 40)):
    """A file of one channel with values from `low` to `high`, more than 8 bits each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.linspace(low, high, shape[0] * shape[1]).reshape(shape).astype(dtype)).save(path)


def test_12_bit_values_in_16_bit_files_are_told_and_scaled(tmp_path):
    for n in range(3):
        deep(tmp_path / f"{n}.png", 16, 4000)
    with pytest.warns(UserWarning, match="16 bit") as warned:
        dark = PairedImages(tmp_path, size=20, augment=False)
    assert str(warned[0].message) == (
        "PairedImages: 3 of 3 files in 16 bit were read, with values from 16 to 4000 of 65535: these are dark "
        "pictures. Give their range, value_range=(0, 4095) (--value-range 0 4095)."
    )
    assert dark[0]["target"].max() < -0.85
    data = PairedImages(tmp_path, size=20, augment=False, value_range=[0, 4095])
    assert data[0]["source"].min() < -0.97
    assert data[0]["target"].max() > 0.94
    assert "values 0 to 4095" in repr(data)


def test_values_outside_the_range_are_clipped_and_8_bit_files_stay(tmp_path):
    deep(tmp_path / "A" / "1.tif", -1000, 3000, np.float32)
    Image.fromarray(np.full((20, 40), 7, dtype=np.uint8)).save((tmp_path / "B").mkdir() or tmp_path / "B" / "1.png")
    sample = PairedImages(tmp_path, size=20, augment=False, value_range=(0, 1000))[0]
    assert sample["source"].min() == -1
    assert sample["source"].max() == 1
    assert value(sample["target"]) == 7


@pytest.mark.parametrize("wrong", [(1, 1), (0, float("nan")), 4095, "01", (0, 1, 2)])
def test_a_value_range_is_two_increasing_numbers(side_by_side, wrong):
    with pytest.raises(ArgumentError, match=r"value_range must be two increasing numbers, \(low, high\), got "):
        PairedImages(side_by_side, value_range=wrong)


def test_16_bit_files_that_use_their_range_are_read_without_a_word(tmp_path):
    deep(tmp_path / "1.png", 0, 60000)
    PairedImages(tmp_path, size=8)
