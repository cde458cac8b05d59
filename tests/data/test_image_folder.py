import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imtrans import PairedImages
from imtrans.data.image_folder import SKIP_HINT, ImageFolder, check_files
from imtrans.errors import ArgumentError, DataError, counted


def pictures(folder, **settings):
    return ImageFolder("Mine", folder, **{"name": "x", "size": 9, "on_bad_image": "error"} | settings)


def test_pictures_come_by_name_resized(tmp_path):
    Image.new("RGB", (20, 10), (1, 2, 3)).save(tmp_path / "b.png")
    Image.new("L", (5, 6), 7).save(tmp_path / "a.jpg")
    found = pictures(str(tmp_path))
    assert len(found) == 2
    assert repr(found) == f"2 pictures in {tmp_path}, 5x6, 20x10 pixels"
    (one,), (other,) = found.load(0).items(), found.load(1).items()
    assert one[0] == other[0] == "x"
    assert torch.equal(one[1], torch.full((3, 9, 9), 7, dtype=torch.uint8))
    assert torch.equal(other[1], torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(3, 9, 9))


def test_bad_ones_are_an_error_or_left_out(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"b\.png cannot be read as a picture"):
        pictures(tmp_path)
    with pytest.warns(UserWarning, match="Mine: 1 of 2 samples is bad and left out"):
        found = pictures(tmp_path, on_bad_image="skip")
    assert repr(found) == f"1 picture in {tmp_path} (1 bad one left out), 4x4 pixels"
    assert len(found.bad_images) == 1


@pytest.mark.parametrize("name", ["", "none"])
def test_a_folder_without_pictures(tmp_path, name):
    with pytest.raises(DataError) as caught:
        pictures(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    missing = "cannot be read as a folder of pictures: No such file or directory. Check the path."
    assert (
        str(caught.value)
        == {
            "": f"{tmp_path} holds no pictures. Put some (.png, .jpg, .tif, .webp) in it.",
            "none": f"{tmp_path / name} {missing}",
        }[name]
    )


def look(sample):
    if sample < 0:
        raise DataError(f"{sample} is bad.")
    return sample * 2


def unused(sample):
    raise AssertionError("the other way of looking was asked for")


@given(samples=st.lists(st.integers(0, 9)))
def test_sound_samples_are_looked_at_once_in_order(samples):
    expected = [(sample, 2 * sample) for sample in samples]
    assert check_files("Set", samples, check_header=look, decode=unused, on_bad_image="error") == (expected, [])
    if samples:
        assert check_files("Set", samples, check_header=unused, decode=look, on_bad_image="skip") == (expected, [])


def test_the_first_bad_one_is_an_error():
    with pytest.raises(DataError, match=f"^-1 is bad\\. {re.escape(SKIP_HINT)}$"):
        check_files("Set", [1, -1, -2], check_header=look, decode=unused, on_bad_image="error")
    with pytest.raises(DataError, match=f"^-7 is lonely\\. {re.escape(SKIP_HINT)}$"):
        check_files("Set", [1], check_header=look, decode=unused, on_bad_image="error", known=["-7 is lonely."])


def test_bad_ones_are_left_out_counted_and_reported():
    with pytest.warns(UserWarning, match="bad and left out") as warned:
        sound, reports = check_files(
            "Set", [1, -1, 2, -2, -3], check_header=unused, decode=look, on_bad_image="skip", known=["-7 is lonely."]
        )
    assert sound == [(1, 2), (2, 4)]
    assert reports == ["-7 is lonely.", "-1 is bad.", "-2 is bad.", "-3 is bad."]
    (only,) = warned
    assert str(only.message) == (
        "Set: 4 of 6 samples are bad and left out. -7 is lonely. -1 is bad. -2 is bad. And 1 more."
    )


@pytest.mark.parametrize(("samples", "known"), [([-1], []), ([], ["-7 is lonely."]), ([-1, -2], ["-7 is lonely."])])
def test_nothing_but_bad_ones_is_an_error(samples, known):
    with pytest.raises(DataError) as caught:
        check_files("Set", samples, check_header=unused, decode=look, on_bad_image="skip", known=known)
    reports = [*known, *(f"{sample} is bad." for sample in samples)]
    assert str(caught.value) == f"Set: not one of {counted(len(reports), 'sample')} can be used. {' '.join(reports)}"


def test_other_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        check_files("Set", [0], check_header=unused, decode=lambda sample: 1 / sample, on_bad_image="skip")


def test_another_word_is_refused():
    with pytest.raises(ArgumentError) as caught:
        check_files("Set", [1], check_header=look, decode=look, on_bad_image="skp")
    assert str(caught.value) == (
        "Set: on_bad_image='skp' is not one of ['error', 'skip']. Did you mean 'skip'?"
    )  # fmt: skip


# In PairedImages


def save(path, size=(16, 16), cut=0):
    path.parent.mkdir(exist_ok=True)
    picture = np.random.default_rng(sum(path.name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(picture).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])


@pytest.fixture
def folder(tmp_path):
    """Two sound pairs; and one cut, one of two sizes, one without partner."""
    for side in "AB":
        for name in ("1", "2"):
            save(tmp_path / side / f"{name}.png")
        save(tmp_path / side / "cut.png", cut=400 if side == "B" else 0)
        save(tmp_path / side / "sizes.png", size=(16, 16 if side == "A" else 8))
    save(tmp_path / "A" / "alone.png")
    return tmp_path


def test_paired_images_leave_bad_pairs_out(folder):
    with pytest.warns(UserWarning, match="bad and left out") as warned:
        data = PairedImages(folder, size=8, on_bad_image="skip")
    assert warned[0].filename == __file__
    assert str(warned[0].message).startswith("PairedImages: 3 of 5 samples are bad and left out. ")
    assert [pair.a.name for pair in data.pairs] == ["1.png", "2.png"]
    assert data.sizes == [(16, 16)]
    alone, cut, sizes = data.bad_images
    assert alone == f"{folder / 'A' / 'alone.png'} has no partner of the same name."
    assert cut.startswith(f"{folder / 'B' / 'cut.png'} cannot be read as a picture (image file is truncated")
    assert sizes.startswith(f"{folder / 'A' / 'sizes.png'} is 16x16, its partner")
    assert repr(data).startswith(f"2 pairs in folders A and B in {folder} (3 bad ones left out), 16x16 pixels, AtoB")

    for name in ("cut", "sizes", "alone"):
        for side in "AB":
            (folder / side / f"{name}.png").unlink(missing_ok=True)
    clean = PairedImages(folder, size=8)
    assert clean.bad_images == []
    for epoch in (0, 1):
        for index in (0, 1):
            assert torch.equal(clean.draw(index, epoch)["source"], data.draw(index, epoch)["source"])


def test_paired_images_without_a_sound_pair(tmp_path):
    save(tmp_path / "odd.png", size=(15, 8))
    with pytest.raises(DataError) as caught:
        PairedImages(tmp_path, on_bad_image="skip")
    assert str(caught.value).startswith(
        f"PairedImages: not one of 1 sample can be used. {tmp_path / 'odd.png'} is 15 pixels wide and cannot be"
    )


def test_sound_pairs_make_no_warning_and_no_note(tmp_path):
    save(tmp_path / "1.png")
    data = PairedImages(tmp_path, size=8, on_bad_image="skip")
    assert data.bad_images == []
    assert repr(data) == repr(PairedImages(tmp_path, size=8))


def test_two_files_of_one_name_are_an_error_all_the_same(folder):
    save(folder / "A" / "1.bmp")
    with pytest.raises(DataError, match="have the same name"):
        PairedImages(folder, on_bad_image="skip")
