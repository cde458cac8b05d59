"""Pictures as they come from the street: each is read as the documentation says, or refused by name."""

import io
import os
import resource
import socket
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from imtrans import PairedImages
from imtrans.data.codec import decode
from imtrans.data.images import image_files, image_size, open_image, read_image
from imtrans.errors import DataError, ImtransError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def encoded(image, form, **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def noise(mode="RGB"):
    return Image.fromarray(NOISE).convert(mode)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks, depth=8, colour=2):
    """A PNG with the header that is asked for, whatever follows."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def pixels_of(width, height, samples=3, size=1):
    return chunk(b"IDAT", zlib.compress(bytes(height * (1 + width * samples * size))))


def tiff_with(tag, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    return encoded(noise(), "TIFF", tiffinfo=tags)


def written(tmp_path, content, name="a.png"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refusal(path, read=read_image):
    with pytest.raises(DataError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


# What is no picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
NO_PICTURES = {
    "empty": b"",
    "one byte": b"\x89",
    "a web page": b"<!doctype html><title>404 Not Found</title>",
    "a download's error": b'{"error": "rate limit"}',
    "PostScript, which Pillow would run": EPS,
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.7\n",
    "zip": b"PK\3\4" + bytes(60),
    "zeros": bytes(5000),
    "PNG without pixels": png(8, 8),
    "PNG of no width": png(0, 8, pixels_of(0, 8)),
    "PNG of no height": png(8, 0, pixels_of(8, 0)),
    "PNG of an unknown colour type": png(8, 8, pixels_of(8, 8), colour=5),
    "PNG whose pixels are garbage": png(8, 8, chunk(b"IDAT", b"garbage" * 9)),
    "PNG whose profile bursts": png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**26))), pixels_of(8, 8)),
    "PNG whose text bursts": png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26))), pixels_of(8, 8)),
    "60000 pixels square": png(60000, 60000, pixels_of(8, 8)),
    "as large as numbers get": png(2**31 - 1, 2**31 - 1, pixels_of(8, 8)),
    "a BMP of 60000 pixels square": encoded(noise(), "BMP")[:18]
    + struct.pack("<ii", 60000, 60000)
    + encoded(noise(), "BMP")[26:],
    "just below the limit, and cut": png(13000, 13000, chunk(b"IDAT", zlib.compress(bytes(2**20)))),
    "float TIFF with NaN": encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
    "float TIFF beyond 1": encoded(Image.fromarray(np.full((4, 4), 200, np.float32)), "TIFF"),
    "32-bit TIFF": encoded(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"),
    "negative TIFF": encoded(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF"),
}


@pytest.mark.parametrize("content", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_refused_by_name(tmp_path, content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(written(tmp_path, content))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert grown < 900, f"{grown} MiB for {len(content)} bytes"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
@pytest.mark.filterwarnings("error")
@given(data=st.data())
def test_a_cut_file_is_a_picture_or_an_error_of_ours_and_never_a_warning(tmp_path_factory, form, data):
    content = encoded(noise(), form, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
    path = written(tmp_path_factory.mktemp("cut"), content[: data.draw(st.integers(0, len(content)))])
    for read in (image_size, read_image):
        with suppress(DataError):
            read(path)
    with suppress(ImtransError):
        decode("translate", path, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_half_a_file_is_refused(tmp_path, form):
    content = encoded(Image.fromarray(NOISE.repeat(20, axis=0).repeat(20, axis=1)), form)
    refusal(written(tmp_path, content[: len(content) // 2]))


def test_a_bomb_is_refused_and_told_apart_from_damage(tmp_path):
    path = written(tmp_path, png(60000, 60000, pixels_of(8, 8)))
    for read in (image_size, read_image):
        assert refusal(path, read) == (
            " cannot be read as a picture (Image size (3600000000 pixels) exceeds limit of "
            f"{2 * Image.MAX_IMAGE_PIXELS} pixels, could be decompression bomb DOS attack). "
            "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def test_a_picture_between_pillows_two_limits_is_read_without_its_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    assert read_image(written(tmp_path, encoded(noise(), "PNG"))).size == (8, 12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    refusal(tmp_path / "a.png")


# Pictures of every kind

GREY16 = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
TRANSPARENT = Image.fromarray(np.dstack([NOISE, np.zeros((12, 8), np.uint8)]))
PICTURES = {
    "RGB": encoded(noise(), "PNG"),
    "interlaced": encoded(noise(), "PNG", interlace=1),
    "RGBA, all of it transparent": encoded(TRANSPARENT, "PNG"),
    "WebP, all of it transparent": encoded(TRANSPARENT, "WEBP", lossless=True, exact=True),
    "TIFF, compressed": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "TIFF with a tag of a MiB": tiff_with(305, "x" * 2**20),
    "PNG with a text of half a MiB": png(8, 12, chunk(b"tEXt", b"k\0" + b"x" * 2**19), encoded(noise(), "PNG")[33:-12]),
    "BMP": encoded(noise(), "BMP"),
    "PPM": encoded(noise(), "PPM"),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
def test_colours_come_through(tmp_path, content):
    image = read_image(written(tmp_path, content))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), NOISE)


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "LAB"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_each_mode_of_each_format_is_eight_bit_rgb(tmp_path, mode, form):
    ways = {"La": "LA", "PA": "LA", "RGBa": "RGBA", "LAB": "RGB"}
    image = noise(ways[mode]) if mode in ways else noise(mode)
    if mode == "LAB":
        image = Image.frombytes("LAB", (8, 12), NOISE.tobytes())
    elif mode in ways:
        image = image.convert(mode)
    try:
        content = encoded(image, form)
    except (OSError, KeyError, ValueError):
        return  # that format has no such mode
    read = read_image(written(tmp_path, content))
    assert (read.mode, read.size) == ("RGB", (8, 12))
    assert np.asarray(read).std() > 5


def test_cmyk_and_its_inverse_are_the_same_colours(tmp_path):
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    for form in ("JPEG", "TIFF"):
        shown = np.asarray(read_image(written(tmp_path, encoded(red.convert("CMYK"), form)))).reshape(-1, 3)
        assert np.abs(shown.astype(int) - (250, 10, 10)).max() < 12


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "LA"])
def test_16_bit_colour_is_read_by_its_upper_eight(tmp_path, colour, samples):
    row = b"\0" + b"\x80\xff" * (8 * samples)
    content = png(8, 12, chunk(b"IDAT", zlib.compress(row * 12)), depth=16, colour=colour)
    assert set(np.asarray(read_image(written(tmp_path, content))).flatten()) == {0x80}


@pytest.mark.parametrize("kind", ["II", "MM"])
def test_16_bit_grey_is_scaled(tmp_path, kind):
    order = {"II": "<u2", "MM": ">u2"}[kind]
    image = Image.frombytes("I;16" if kind == "II" else "I;16B", (4, 1), GREY16.astype(order).tobytes())
    shown = np.asarray(read_image(written(tmp_path, encoded(image, "TIFF"), "a.tif")))
    assert shown[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_are_of_0_to_1_in_training_as_in_translate(tmp_path):
    values = np.array([[0, 0.5, 1, 1.004]], np.float32)
    path = written(tmp_path, encoded(Image.fromarray(values), "TIFF"), "a.tif")
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 128, 255, 255]
    nan = written(tmp_path, NO_PICTURES["float TIFF with NaN"], "b.tif")
    assert refusal(nan) == " has values from nan to nan; a picture of mode 'F' holds 0 to 1. Scale them."


def test_pairs_of_floats_out_of_range_name_the_option(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
        written(tmp_path, encoded(Image.fromarray(np.full((8, 8), 7, np.float32)), "TIFF"), f"{side}/a.tif")
    with pytest.raises(
        DataError, match=r"holds 0 to 1\. Give the range: value_range=\(low, high\) \(--value-range\)\."
    ):
        PairedImages(tmp_path, size=8)[0]
    assert PairedImages(tmp_path, size=8, value_range=(0, 7))[0]["source"].min() == 1


def test_values_beyond_16_bit_are_named(tmp_path):
    path = written(tmp_path, NO_PICTURES["32-bit TIFF"], "a.tif")
    assert refusal(path) == " has values from 70000 to 70000; a picture of mode 'I' holds 0 to 65535. Scale them."


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (2, 65535)])
def test_any_shape_is_resized(tmp_path, size):
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / side / "a.png")
    sample = PairedImages(tmp_path, size=16)[0]
    assert sample["source"].shape == (3, 16, 16)
    assert sample["source"].unique().numel() == 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_many_frames_the_first_is_read(tmp_path, form):
    first, *more = (Image.new("RGB", (8, 8), (value, value, value)) for value in (10, 120, 250))
    lossless = {"lossless": True} if form == "WEBP" else {}
    path = written(tmp_path, encoded(first, form, save_all=True, append_images=more, **lossless))
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert set(np.asarray(read_image(path)).flatten()) == {10}


# Turned as their EXIF says


def turned(orientation, form="JPEG", size=(16, 8)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", size, (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return encoded(image, form, exif=exif)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_header_and_the_picture_agree_on_the_size(tmp_path, form, orientation):
    path = written(tmp_path, turned(orientation, form))
    assert image_size(path) == read_image(path).size == ((8, 16) if orientation in (5, 6, 7, 8) else (16, 8))


def test_a_photo_is_turned_before_it_is_compared_with_its_partner(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
    written(tmp_path / "A", turned(6), "1.jpg")
    Image.new("RGB", (8, 16)).save(tmp_path / "B" / "1.png")
    sample = PairedImages(tmp_path, size=8, augment=False)[0]
    assert sample["source"][:, 0].mean() < -0.9
    assert sample["source"][:, -1].mean() > 0.9

    Image.new("RGB", (16, 8)).save(tmp_path / "B" / "1.png")
    with pytest.raises(DataError, match="is 8x16, its partner"):
        PairedImages(tmp_path)


def test_exif_behind_the_pixels_is_noticed_when_the_picture_is_read(tmp_path):
    content = turned(6, "PNG")
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    moved = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    for side in "AB":
        (tmp_path / side).mkdir()
        written(tmp_path / side, moved if side == "A" else encoded(Image.new("RGB", (16, 8)), "PNG"), "1.png")
    data = PairedImages(tmp_path, size=8)
    with pytest.raises(DataError, match=r"is 8x16, its partner .* is 16x8"):
        data[0]
    with pytest.raises(DataError, match="not one of 1 sample can be used"):
        PairedImages(tmp_path, on_bad_image="skip")


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0" + b"x" * 60000, b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_huge_and_damaged_exif_is_passed_over(tmp_path, exif, form):
    path = written(tmp_path, encoded(noise(), form, exif=exif))
    assert image_size(path) == read_image(path).size == (8, 12)


# Files that are none, and names


def test_links_that_lead_nowhere_are_refused_and_others_followed(tmp_path):
    written(tmp_path, encoded(noise(), "PNG"))
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").symlink_to("gone.png")
    (tmp_path / "d.png").symlink_to("d.png")
    (tmp_path / "e.png").mkdir()
    (tmp_path / "f.png").symlink_to("e.png")
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.png", "c.png", "d.png"]
    assert np.array_equal(np.asarray(read_image(tmp_path / "b.png")), NOISE)
    assert "(No such file or directory). Repair" in refusal(tmp_path / "c.png")
    assert "(Too many levels of symbolic links). Repair" in refusal(tmp_path / "d.png")
    assert "(Is a directory)" in refusal(tmp_path / "e.png") or "(no regular file)" in refusal(tmp_path / "e.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_and_a_socket_are_refused_and_do_not_hang(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("a.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("b.png")
        assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.png"]
        for read in (image_size, read_image, open_image):
            assert refusal(tmp_path / "a.png", read).startswith(" cannot be read as a picture (no regular file)")
            assert refusal(tmp_path / "b.png", read).startswith(" cannot be read as a picture (No such device")
        with pytest.raises(DataError, match=r"a\.png"):
            PairedImages(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, encoded(noise(), "PNG"))

    def refuse(name, *_args):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, whom no mode stops
    assert refusal(path) == (
        " cannot be read as a picture (Permission denied). Change its permissions, or take it out of the folder."
    )


def test_no_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = written(tmp_path, encoded(noise(), "PNG"))

    def starve(*_args, **_settings):
        raise MemoryError

    monkeypatch.setattr(Image, "open", starve)
    with pytest.raises(MemoryError):
        read_image(path)


NAMES = ["straße", "ファイル", "تصویر‌ها", "фасад", "𝔣𝔞𝔠𝔞𝔡𝔢", "a b", "-rf", "%s{}", "x" * 240, "é", "tab\there", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_any_script(tmp_path, name):
    path = written(tmp_path, encoded(noise(), "PNG"), f"{name}.png")
    assert image_files(tmp_path) == [path]
    assert PairedImages(tmp_path, size=8)[0]["source"].shape == (3, 8, 8)
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        PairedImages(tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert name.replace("\n", "\\n").replace("\t", "\\t") in text


def test_a_name_that_is_no_text_is_named_in_text(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(raw, "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes text only")
    with pytest.raises(DataError) as caught:
        PairedImages(tmp_path)
    assert f"{tmp_path}/caf\\udce9.png cannot be read" in str(caught.value)
    str(caught.value).encode()


def test_partners_may_differ_in_how_a_system_writes_an_accent(tmp_path):
    for side, name in (("A", "caf\u00e9"), ("B", "cafe\u0301")):
        (tmp_path / side).mkdir()
        written(tmp_path / side, encoded(noise(), "PNG"), f"{name}.png")
    assert len(PairedImages(tmp_path)) == 1


def test_ten_thousand_files_are_looked_at_once_each(tmp_path, monkeypatch):
    first = written(tmp_path, encoded(noise(), "PNG"), "0.png")
    for n in range(1, 10_000):
        os.link(first, tmp_path / f"{n}.png")
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **settings: opened.append(1) or original(*args, **settings))
    assert len(PairedImages(tmp_path)) == len(opened) == 10_000


# Files that change while training runs


def pair(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
        written(tmp_path / side, encoded(noise(), "PNG"), "1.png")
    return tmp_path / "B" / "1.png"


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-60]),
        lambda path: path.write_bytes(encoded(Image.new("RGB", (9, 9)), "PNG")),
        lambda path: path.unlink() or os.mkfifo(path),
    ],
    ids=["gone", "cut", "another size", "a FIFO"],
)
def test_what_changes_after_the_look_is_an_error_with_the_name(tmp_path, on_bad_image, change):
    path = pair(tmp_path)
    data = PairedImages(tmp_path, size=8, on_bad_image=on_bad_image)
    change(path)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(path) in str(caught.value)


def test_a_side_by_side_picture_that_becomes_odd_is_an_error(tmp_path):
    path = written(tmp_path, encoded(noise(), "PNG"))
    data = PairedImages(tmp_path, size=8)
    written(tmp_path, encoded(Image.new("RGB", (9, 9)), "PNG"))
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value).startswith(f"{path} is 9 pixels wide and cannot be halved.")
