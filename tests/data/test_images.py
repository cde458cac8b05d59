from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from imtrans.data.images import image_files, image_size, read_image, to_image, to_tensor
from imtrans.errors import ArgumentError, DataError

PICTURES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3)))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(image):
    return np.asarray(image).tolist()


@given(picture=PICTURES)
def test_a_picture_survives_the_way_to_a_tensor_and_back(picture):
    tensor = to_tensor(Image.fromarray(picture))
    assert tensor.shape == (3, *picture.shape[:2])
    assert tensor.dtype == torch.float32
    assert pixels(to_image(tensor)) == picture.tolist()


def test_each_of_the_256_values_survives_and_spans_the_range():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tensor = to_tensor(Image.fromarray(values))
    assert pixels(to_image(tensor)) == values.tolist()
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert (tensor[0].flatten().diff() > 0).all()


def test_to_image_clips_what_is_outside_and_takes_any_float_type_and_graph():
    tensor = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0], dtype=torch.float64, requires_grad=True).expand(3, 1, 5)
    assert [p[0] for p in pixels(to_image(tensor))[0]] == [0, 0, 128, 255, 255]
    assert pixels(to_image(tensor.bfloat16())) == pixels(to_image(tensor))


def test_to_image_shows_one_channel_as_grey():
    assert pixels(to_image(torch.tensor([[[-1.0, 1.0]]]))) == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6), (4, 4, 6), (1, 3, 4, 6)])
def test_to_image_refuses_other_shapes(shape):
    with pytest.raises(ArgumentError) as caught:
        to_image(torch.zeros(shape))
    assert str(caught.value) == (
        f"to_image: expects (c, h, w) with 1 or 3 channels, got {shape}. "
        "Give one image of a batch, and choose the channels to show."
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp", "webp", "jpg", "jpeg", "PNG", "JPG"])
def test_each_kind_of_file_is_read(tmp_path, suffix):
    picture = noise(8, 12)
    path = tmp_path / f"a.{suffix}"
    lossy = suffix.lower() in ("jpg", "jpeg")
    if lossy:
        picture = np.full((8, 12, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(picture).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path)
    assert image.mode == "RGB"
    assert image_size(path) == image.size == (12, 8)
    assert np.abs(np.asarray(image, dtype=int) - picture).max() <= (3 if lossy else 0)
    assert image_files(tmp_path) == [path]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_pictures_are_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)).save(path)
    assert [p[0] for p in pixels(read_image(path))[0]] == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA", "1", "CMYK"])
def test_each_mode_becomes_rgb(tmp_path, mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    grey.convert(mode).save(path)
    assert read_image(path).mode == "RGB"
    assert pixels(read_image(path)) == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


def test_a_palette_with_transparent_colours_is_read_by_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 200, 210, 220] + [0] * 762)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert {tuple(p) for row in pixels(read_image(tmp_path / "a.png")) for p in row} == {
        (10, 20, 30),
        (200, 210, 220),
    }


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404</title>", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_file_is_named(tmp_path, read, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} cannot be read as a picture (")
    assert str(caught.value).endswith("). Repair the file, or take it out of the folder.")


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_missing_file_is_not_to_be_repaired(tmp_path, read):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "photo1.png")
    text = f"{tmp_path / 'photo1.png'} cannot be read as a picture (No such file or directory). Check the path."
    assert str(caught.value) == text
    (tmp_path / "photo_1.png").touch()
    with pytest.raises(DataError) as caught:
        read(tmp_path / "photo1.png")
    assert str(caught.value) == f"{text} Did you mean {tmp_path / 'photo_1.png'}?"


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError) as caught:
        read_image(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} cannot be read as a picture (no regular file). Give the path of one picture in it."
    )


def test_a_misspelt_folder_gets_a_hint_at_its_first_missing_part(tmp_path, monkeypatch):
    (tmp_path / "facades" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for folder, meant in ((tmp_path / "facaeds" / "train", tmp_path / "facades"), ("facades/trian", "facades/train")):
        with pytest.raises(DataError) as caught:
            image_files(Path(folder))
        assert str(caught.value) == (
            f"{folder} cannot be read as a folder of pictures: No such file or directory. Check the path. "
            f"Did you mean {meant}?"
        )


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of odd tags and sizes
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@given(data=st.data())
def test_a_damaged_file_is_a_picture_or_an_error_of_ours(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("damaged") / f"a.{suffix}"
    Image.fromarray(noise(8, 8)).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 2**20)  # no test needs the memory that a wrong size asks for
        for read in (image_size, read_image):
            with suppress(DataError):
                read(path)


def test_image_files_are_in_order_without_hidden_ones_folders_and_other_kinds(tmp_path):
    for name in ("b.png", "a.jpg", ".c.png", "._a.jpg", "notes.txt", "Thumbs.db", "z.WEBP"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.png", "z.WEBP"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        image_files(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} cannot be read as a folder of pictures: No such file or directory. Check the path."
    )
