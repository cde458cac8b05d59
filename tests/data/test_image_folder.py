import pytest
import torch
from PIL import Image

from imtrans.data.image_folder import ImageFolder
from imtrans.errors import ArgumentError, DataError


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
    with pytest.warns(UserWarning, match="Mine: 1 of 2 samples are bad and left out"):
        found = pictures(tmp_path, on_bad_image="skip")
    assert repr(found) == f"1 pictures in {tmp_path} (1 bad ones left out), 4x4 pixels"
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


def test_what_becomes_of_bad_ones_is_checked(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ArgumentError, match="Mine: on_bad_image='skp' is not one of"):
        pictures(tmp_path, on_bad_image="skp")
