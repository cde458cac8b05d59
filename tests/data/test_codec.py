import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms

from imtrans.data.codec import decode
from imtrans.data.images import to_tensor
from imtrans.errors import ArgumentError, DataError, ShapeError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]


def in_mode(mode):
    """The same picture in a mode of Pillow's."""
    image = Image.fromarray(COLOURS)
    if mode == "LAB":
        rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, rgb, lab, outputMode="LAB")
    if mode in ("LA", "La", "PA"):
        return image.convert("L" if mode == "PA" else "LA").convert(mode)
    if mode == "RGBa":
        return image.convert("RGBA").convert(mode)
    return image.convert(mode)


def message(kind, image, channels):
    with pytest.raises(kind) as caught:
        decode("translate", image, channels)
    return str(caught.value)


def there_and_back(image, channels):
    decoded = decode("translate", image, channels)
    assert decoded.tensor.ndim == 4
    assert decoded.tensor.shape[1] == channels
    return decoded.encode(decoded.tensor)


# PIL images


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("channels", "made"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_every_mode_becomes_grey_colour_or_colour_with_alpha(mode, channels, made):
    image = in_mode(mode)
    before = np.asarray(image).copy()
    decoded = decode("translate", image, channels)
    assert decoded.tensor.shape == (1, channels, 6, 5)
    back = decoded.encode(decoded.tensor)
    assert (back.mode, back.size) == (made, (5, 6))
    assert np.array_equal(np.asarray(image), before)
    shown = np.asarray(back).reshape(6, 5, channels).astype(int)
    if channels == 3 and mode not in ("1", "L", "LA", "La", "P", "PA"):
        assert np.abs(shown - COLOURS).mean() <= 2  # HSV, YCbCr and Lab round
    if channels == 4:
        assert (shown[..., 3] == 255).all()
    if mode == "1":
        assert set(shown.flatten()) <= {0, 255}
    assert shown.std() > 20


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_each_of_the_256_values_survives(mode):
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, axis=2).squeeze()
    assert np.array_equal(np.asarray(there_and_back(Image.fromarray(values), channels)), values)


def test_a_picture_is_what_training_saw():
    image = Image.fromarray(COLOURS)
    assert torch.equal(decode("translate", image, 3).tensor[0], to_tensor(image))


def test_transparency_is_kept_by_four_channels_and_dropped_by_three():
    pixels = np.dstack([COLOURS, np.arange(30, dtype=np.uint8).reshape(6, 5)])
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(there_and_back(image, 4)), pixels)
    assert np.array_equal(np.asarray(there_and_back(image, 3)), COLOURS)


def test_a_palette_with_transparent_colours_is_read_without_a_warning():
    image = Image.fromarray(COLOURS).quantize(16)
    image.info["transparency"] = bytes([0, 128])
    assert np.array_equal(np.asarray(there_and_back(image, 3)), np.asarray(image.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_upright(tmp_path, suffix):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    shown = np.asarray(there_and_back(path, 3))
    assert shown.shape == (8, 4, 3)
    assert shown[:3].mean() > 200
    assert shown[5:].mean() < 55


@given(data=st.data())
def test_damaged_exif_is_passed_over(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(exif.tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = Image.fromarray(COLOURS)
    image.info["exif"] = bytes(content[: data.draw(st.integers(0, len(content)))])
    assert there_and_back(image, 3).size in ((5, 6), (6, 5))


def deep(mode):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    if mode == "I":
        return Image.fromarray(values.astype(np.int32)), values
    if mode == "I;16B":
        return Image.frombytes(mode, (256, 256), values.astype(">u2").tobytes()), values
    return Image.fromarray(values), values


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_each_of_the_65536_values_survives(mode):
    image, values = deep(mode)
    assert image.mode == mode
    back = there_and_back(image, 1)
    assert back.mode == "I;16"
    assert np.array_equal(np.asarray(back), values)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_of_16_bit_keeps_its_depth(tmp_path, suffix):
    image, values = deep("I;16")
    image.save(tmp_path / f"a.{suffix}")
    back = there_and_back(tmp_path / f"a.{suffix}", 1)
    assert np.array_equal(np.asarray(back), values)
    back.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        assert np.array_equal(np.asarray(again), values)


def test_16_bit_grey_as_colour_comes_back_as_8_bit_colour():
    image, values = deep("I;16")
    back = there_and_back(image, 3)
    assert back.mode == "RGB"
    assert np.array_equal(np.asarray(back)[..., 0], (values / 257).round())


@pytest.mark.parametrize("values", [[[-1, 5]], [[0, 65536]]])
def test_mode_i_beyond_16_bit_is_refused(values):
    image = Image.fromarray(np.array(values, dtype=np.int32))
    assert message(ArgumentError, image, 1) == (
        f"translate: an image of mode 'I' is read as 16-bit, but this one has values from {values[0][0]} to "
        f"{values[0][1]}. Scale them to 0 ... 65535, or give an array of floats in [0, 1]."
    )


def test_mode_f_holds_floats_between_0_and_1():
    values = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    back = there_and_back(Image.fromarray(values), 1)
    assert back.mode == "F"
    assert np.abs(np.asarray(back) - values).max() < 1e-6
    colour = there_and_back(Image.fromarray(values), 3)
    assert np.array_equal(np.asarray(colour)[..., 2], (values * 255).round())
    assert message(ArgumentError, Image.fromarray(values * 255), 1).startswith(
        "translate: float values must lie in [0, 1], got "
    )


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "F"])
def test_a_picture_without_pixels_is_refused(size, mode):
    assert message(ShapeError, Image.new(mode, size), 3) == (
        f"translate: got an empty picture, shape {(1, size[1], size[0], 3)}."
    )


# Arrays


def arrays_of(elements):
    return st.tuples(elements, st.lists(st.integers(1, 5), min_size=2, max_size=4)).flatmap(
        lambda chosen: arrays.arrays(
            chosen[0], tuple(chosen[1]), elements=arrays.from_dtype(np.dtype(chosen[0]), min_value=0, max_value=1)
            if np.dtype(chosen[0]).kind == "f" else None,
        )
    )  # fmt: skip


@given(array=arrays_of(st.sampled_from(["<u1", "<u2", ">u2"])))
def test_whole_numbers_come_back_exactly(array):
    back = there_and_back(array, array.shape[-1] if array.ndim > 2 else 1)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


@given(array=arrays_of(st.sampled_from(["<f2", "<f4", ">f4", "<f8", ">f8"])))
def test_floats_come_back_to_rounding(array):
    back = there_and_back(array, array.shape[-1] if array.ndim > 2 else 1)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.abs(back.astype(float) - array).max() < (1e-3 if array.itemsize == 2 else 1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_of_an_array_survives(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16)
    assert np.array_equal(there_and_back(values, 1), values)
    tensor = decode("translate", values, 1).tensor
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert (tensor.flatten().diff() > 0).all()


VIEWS = {
    "upside down": lambda a: a[::-1],
    "every other, mirrored": lambda a: a[:, ::-2],
    "transposed": lambda a: a.transpose(1, 0, 2),
    "BGR": lambda a: a[..., ::-1],
    "fortran": np.asfortranarray,
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_views_of_any_strides(view, dtype):
    array = VIEWS[view]((COLOURS / 255).astype(dtype) if dtype == np.float32 else COLOURS)
    back = there_and_back(array, 3)
    assert np.abs(back.astype(float) - array).max() < 1e-6
    assert back.shape == array.shape


def test_a_read_only_array_makes_no_warning_and_no_alias():
    array = (COLOURS / 255).astype(np.float32)
    array.flags.writeable = False
    decoded = decode("translate", array, 3)
    decoded.tensor.zero_()
    assert array.std() > 0


def test_outputs_beyond_the_range_are_clipped_in_pictures_and_arrays_and_not_in_tensors():
    far = torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)
    assert np.asarray(decode("translate", Image.new("L", (2, 1)), 1).encode(far)).tolist() == [[0, 255]]
    assert decode("translate", np.zeros((1, 2), np.uint16), 1).encode(far).tolist() == [[0, 65535]]
    assert decode("translate", np.zeros((1, 2)), 1).encode(far).tolist() == [[0, 1]]
    assert decode("translate", torch.zeros(1, 1, 2), 1).encode(far).tolist() == [[[-3, 3]]]


@pytest.mark.parametrize(
    ("array", "made", "shape"),
    [((4, 5), 1, (4, 5)), ((4, 5), 3, (4, 5, 3)), ((4, 5, 1), 1, (4, 5, 1)), ((2, 4, 5, 1), 2, (2, 4, 5, 2))],
)
def test_outputs_have_the_axes_of_the_source(array, made, shape):
    decoded = decode("translate", np.zeros(array, np.uint8), 1)
    assert decoded.encode(torch.zeros(len(decoded.tensor), made, 4, 5)).shape == shape


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int32, np.int64, np.uint32, np.complex64, object, "U1"])
def test_other_types_of_arrays_are_refused(dtype):
    array = np.zeros((4, 5, 3), dtype)
    assert message(ArgumentError, array, 3) == (
        f"translate: expects an array of uint8, uint16, or floats in [0, 1], got {array.dtype}."
    )


@pytest.mark.parametrize("shape", [(3,), (4, 5), (2, 4, 5), (4, 5, 4), (1, 1, 4, 5, 3), ()])
def test_other_shapes_of_arrays_are_refused(shape):
    assert message(ShapeError, np.zeros(shape, np.uint8), 3) == (
        f"translate: expects an array (h, w, 3) or (b, h, w, 3), got shape {shape}."
    )


def test_the_message_for_one_channel_names_the_grey_form():
    assert message(ShapeError, np.zeros((4, 5, 3), np.uint8), 1) == (
        "translate: expects an array (h, w), (h, w, 1) or (b, h, w, 1), got shape (4, 5, 3)."
    )


@pytest.mark.parametrize(
    ("low", "high", "got"),
    [(0, 255, "0 to 255"), (-1, 1, "-1 to 1"), (0, np.nan, "nan to nan"), (0, np.inf, "0 to inf")],
)
def test_floats_beyond_the_range_are_refused(low, high, got):
    text = f"float values must lie in [0, 1], got {got}. Scale them first."
    assert message(ArgumentError, np.array([[low, high]], np.float32), 1) == f"translate: {text}"
    if low == 0:
        tensor = torch.tensor([[[low, high]]], dtype=torch.float32)
        assert message(ArgumentError, tensor, 1) == f"translate: {text.replace('[0, 1]', '[-1, 1]')}"


def test_what_resampling_leaves_beyond_the_range_is_taken():
    assert there_and_back(np.array([[-0.004, 1.004]]), 1).tolist() == [[0, 1]]
    tensor = torch.tensor([[[-1.004, 1.004]]])
    assert torch.equal(there_and_back(tensor, 1), tensor)


# Tensors


@given(
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=4),
)
def test_tensors_come_back_as_they_are(dtype, shape):
    tensor = (torch.rand(shape) * 2 - 1).to(dtype)
    back = there_and_back(tensor, shape[-3])
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("shape", [(3,), (4, 5), (4, 4, 5), (1, 1, 3, 4, 5), ()])
def test_other_shapes_of_tensors_are_refused(shape):
    assert message(ShapeError, torch.zeros(shape), 3) == (
        f"translate: expects a tensor (3, h, w) or (b, 3, h, w), got {shape}."
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_other_types_of_tensors_are_refused(dtype):
    assert message(ArgumentError, torch.zeros(3, 4, 5, dtype=dtype), 3) == (
        f"translate: expects a float tensor in [-1, 1], got {dtype}. For uint8 pixels: x.float() / 127.5 - 1."
    )


@pytest.mark.parametrize("make", [torch.zeros, np.zeros], ids=["tensor", "array"])
@pytest.mark.parametrize("shape", [(0, 3, 3, 3), (3, 0, 3)])
def test_what_is_empty_is_refused(make, shape):
    assert message(ShapeError, make(shape), 3) == f"translate: got an empty picture, shape {shape}."


# Anything else


@pytest.mark.parametrize(
    "thing", [None, 5, [1, 2], b"a.png", [Image.new("L", (1, 1))]], ids=["none", "number", "list", "bytes", "pictures"]
)
def test_other_things_are_refused(thing):
    assert message(ArgumentError, thing, 3) == (
        f"translate: cannot take a {type(thing).__name__}. Give a path, a PIL image, an array or a tensor."
    )


def test_a_missing_file_is_named(tmp_path):
    assert message(DataError, tmp_path / "a.png", 3).startswith(f"{tmp_path / 'a.png'} cannot be read as a picture (")


@pytest.mark.parametrize("channels", [2, 5, 31])
def test_pictures_for_other_channels_are_refused(channels):
    assert message(ArgumentError, Image.new("RGB", (4, 4)), channels) == (
        f"translate: an image file or PIL image cannot hold the {channels} input channels of the generator. "
        "Give an array (h, w, c) or a tensor (c, h, w)."
    )


# Value ranges


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, ">i2", np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (2, 6, 5, 1)])
def test_an_array_in_a_value_range_is_scaled_and_comes_back(dtype, shape):
    values = np.linspace(0, 4095, np.prod(shape)).round().reshape(shape).astype(dtype)
    decoded = decode("translate", values, 1, (0, 4095))
    assert (decoded.tensor.min(), decoded.tensor.max()) == (-1, 1)
    back = decoded.encode(decoded.tensor)
    assert (back.dtype, back.shape) == (values.dtype, shape)
    assert np.allclose(back, values, rtol=0, atol=0 if values.dtype.kind in "ui" else 1e-3)


def test_values_outside_the_range_are_clipped_before_and_after():
    values = np.array([[-2000.0, -1000.0, 1000.0, 3000.0, np.nan, np.inf]], dtype=np.float32)
    decoded = decode("translate", values, 1, (-1000, 3000))
    assert decoded.tensor.flatten().tolist() == [-1, -1, 0, 1, -1, 1]
    assert decoded.encode(decoded.tensor * 2)[0].tolist() == [-1000, -1000, 1000, 3000, -1000, 3000]
    unsigned = decode("translate", np.array([[0, 3000]], dtype=np.uint16), 1, (-1000, 3000))
    assert unsigned.encode(torch.full((1, 1, 1, 2), -1.0)).tolist() == [[0, 0]]  # uint16 holds no -1000


@pytest.mark.parametrize(
    ("mode", "values"),
    [("I;16", np.uint16([[0, 100], [2000, 4095]])), ("I", np.int32([[0, 100], [2000, 4095]])),
     ("F", np.float32([[0, 100], [2000, 4095]]))],
)  # fmt: skip
def test_an_image_in_a_value_range_comes_back_in_its_mode_and_as_8_bit_colours(mode, values):
    image = Image.fromarray(values)
    assert image.mode == mode
    decoded = decode("translate", image, 1, (0, 4095))
    back = decoded.encode(decoded.tensor)
    assert back.mode == mode
    assert np.allclose(np.asarray(back), values, rtol=0, atol=1e-3)
    colours = decoded.encode(decoded.tensor.expand(-1, 3, -1, -1))
    assert np.asarray(colours)[..., 0].tolist() == [[0, 6], [125, 255]]


def test_8_bit_images_and_tensors_have_no_value_range():
    pixels = COLOURS[..., 0]
    for image in (pixels, Image.fromarray(pixels), torch.from_numpy(pixels / 127.5 - 1)[None].float()):
        plain, ranged = decode("translate", image, 1), decode("translate", image, 1, (0, 4095))
        assert torch.equal(plain.tensor, ranged.tensor)
        assert np.array_equal(np.asarray(plain.encode(plain.tensor)), np.asarray(ranged.encode(plain.tensor)))
