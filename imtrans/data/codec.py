"""Image files, PIL images, arrays and tensors as network inputs, and outputs back in the same type."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor, nn

from imtrans.colours import ColourSpace, colour_space
from imtrans.data.arrays import ARRAY_SUFFIXES, image_ids, load_array, read_ids
from imtrans.data.images import ValueRange, converted, open_image, unit_values, upright
from imtrans.data.labels import Palette, one_hot, one_hot_from_colours
from imtrans.errors import ArgumentError, ShapeError, counted, join_names
from imtrans.modes import unwrap

Picture = str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MAX_VALUE = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Decoded:
    """A batch ``(b, c, h, w)`` in [-1, 1], and a function from such a batch to the type of the input."""

    tensor: Tensor
    encode: Callable[[Tensor], Any]


def decode_for(
    owner: str,
    image: Picture | Sequence[Picture],
    network: nn.Module,
    instances: Picture | Sequence[Picture] | None = None,
) -> Decoded:
    """Convert an image, or a list of images of one size, to a batch with the input channels of `network`.

    Errors are as for `decode`. For a list, `Decoded.encode` gives a list.

    A network with an `imtrans.colours.colour_space` gets the source channels of a grey or RGB image, and
    `Decoded.encode` joins them with the network's output. A network's `value_range` is passed to `decode`.

    A network with a palette gets an RGB label map as one-hot channels; a tensor of more channels is one-hot already. A
    network with `num_labels` gets a map of class ids so, and `Decoded.encode` makes 8-bit images; a tensor is one-hot
    already. Both get the edges of `instances` if they take them.
    """
    if isinstance(image, (list, tuple)):
        return _decode_list(owner, image, network, instances)
    image, instances = cast(Picture, image), cast("Picture | None", instances)
    network = unwrap(network)
    found, palette, num_labels, takes_edges = (
        getattr(network, name, None) for name in ("value_range", "palette", "num_labels", "instances")
    )
    value_range = found if isinstance(found, tuple) else None
    by_colour = isinstance(palette, tuple) and not (isinstance(image, Tensor) and _channels(image) != 3)
    by_id = isinstance(num_labels, int) and not isinstance(image, Tensor)
    _check_instances(owner, instances, takes_edges is True and (by_colour or by_id))
    if by_colour or by_id:
        objects = None if instances is None else _decode_ids(owner, instances).tensor
        if by_id:
            ids = _decode_ids(owner, image, num_labels)
            return Decoded(one_hot(ids.tensor, cast(int, num_labels), instances=objects), ids.encode)
        painted = decode(owner, image, 3, value_range)
        source = one_hot_from_colours(painted.tensor, cast(Palette, palette), instances=objects)
        return Decoded(source, painted.encode)
    image = _loaded(image)
    space = colour_space(network)
    if space is None:
        return decode(owner, image, cast(int, network.in_channels), value_range)
    decoded = decode(owner, image, _image_channels(owner, image, space), value_range)
    source, _ = space.split(decoded.tensor.expand(-1, space.channels[-1], -1, -1))
    return Decoded(source, lambda output: decoded.encode(space.join(source, output)))


def _decode_list(owner: str, images: Sequence[Picture], network: nn.Module, instances: Any) -> Decoded:
    if isinstance(instances, (list, tuple)) and len(instances) != len(images):
        raise ArgumentError(
            f"{owner}: {counted(len(images), 'image')} need as many instances, got {len(instances)}. Give one for each."
        )
    if not images:
        raise ArgumentError(f"{owner}: the list of images is empty. Give at least one.")
    each = instances if isinstance(instances, (list, tuple)) else [instances] * len(images)
    parts = [decode_for(owner, image, network, objects) for image, objects in zip(images, each, strict=True)]
    sizes = dict.fromkeys("{}x{}".format(*part.tensor.shape[-2:]) for part in parts)
    if len(sizes) > 1:
        raise ShapeError(
            f"{owner}: the images of a list must have one height and width, got {join_names([*sizes])}. Give lists of "
            "images of one size, or one image at a time."
        )
    counts = [len(part.tensor) for part in parts]
    return Decoded(
        torch.cat([part.tensor for part in parts]),
        lambda batch: [part.encode(made) for part, made in zip(parts, batch.split(counts), strict=True)],
    )


def _check_instances(owner: str, instances: Picture | None, takes_edges: bool) -> None:
    if takes_edges and instances is None:
        raise ArgumentError(
            f"{owner}: the generator takes the edges of instances too. Give instances=..., an id of the object for "
            "each pixel: the path of an image or array, a PIL image, or an integer array (h, w)."
        )
    if instances is not None and not takes_edges:
        raise ArgumentError(
            f"{owner}: instances are for a generator whose attribute instances is True, and for a label map that is "
            "not one-hot yet. Leave them out."
        )


def _decode_ids(owner: str, image: Picture, num_labels: int | None = None) -> Decoded:
    """Return the ids ``(b, h, w)`` of an image, of integers, and the function that encodes 8-bit images."""
    values: object = image
    is_array = isinstance(image, np.ndarray)
    if isinstance(image, (str, PathLike)):
        values = read_ids(path := Path(image), num_labels)
        is_array = path.suffix.lower() in ARRAY_SUFFIXES
    elif isinstance(image, Image.Image):
        values = image_ids(upright(image))
    if not (isinstance(values, np.ndarray) and values.dtype.kind in "bui" and values.ndim in (2, 3, 4)) or (
        values.ndim > 2 and values.shape[-1] != 1
    ):
        shape = f" of {image.dtype} in shape {tuple(image.shape)}" if isinstance(image, (np.ndarray, Tensor)) else ""
        mode = f" of mode {image.mode!r}" if isinstance(image, Image.Image) else ""
        raise ArgumentError(
            f"{owner}: expects an id for each pixel, in a file, a grey PIL image, one with a colour table, or an array "
            f"of integers (h, w), (h, w, 1) or (b, h, w, 1); got {type(image).__name__}{mode}{shape}."
        )
    ids = torch.from_numpy(values.astype(np.int64))
    batch = ids[None] if values.ndim == 2 else ids[..., 0] if values.ndim == 4 else ids[None, ..., 0]
    if is_array:
        return Decoded(batch, _from_array(owner, np.zeros([1] * values.ndim, np.uint8), 1).encode)
    return Decoded(batch, _from_pil(owner, Image.new("L", (1, 1)), 1).encode)


def _loaded(image: Picture) -> Picture:
    """Read a file, if `image` is a path."""
    if not isinstance(image, (str, PathLike)):
        return image
    path = Path(image)
    return load_array(path) if path.suffix.lower() in ARRAY_SUFFIXES else open_image(path)


def _channels(image: Picture) -> int:
    """Return the channels of an array or tensor; 3 for a PIL image, which can be converted."""
    if not isinstance(image, (np.ndarray, Tensor)):
        return 3
    return image.shape[-3 if isinstance(image, Tensor) else -1] if image.ndim > 2 else 1


def _image_channels(owner: str, image: Picture, space: ColourSpace) -> int:
    """Return the channels to decode: of an array or tensor its own, of a PIL image the most."""
    if not isinstance(image, (np.ndarray, Tensor)):
        return space.channels[-1]
    channels = _channels(image)
    if channels not in space.channels:
        raise ShapeError(f"{owner}: the generator {space.purpose}, got shape {tuple(image.shape)}.")
    return channels


def decode(owner: str, image: Picture, channels: int, value_range: ValueRange | None = None) -> Decoded:
    """Convert an image to a batch for a network with `channels` input channels.

    - A path or a PIL image becomes grey, RGB or RGBA for 1, 3 or 4 channels, and `Decoded.encode` makes a PIL image. It
      is rotated as its EXIF orientation says; 1 and 3 channels drop transparency. Modes of 16 bit (``I;16``, and ``I``
      with values up to 65535) keep their depth for outputs of one channel; mode ``F`` holds values in [0, 1].
    - A path to a ``.npy`` or ``.npz`` file is read as an array.
    - An array is ``h w``, ``h w c`` or ``b h w c``: uint8, uint16, or floats in [0, 1], in any byte order.
    - A tensor is ``c h w`` or ``b c h w``, floats in [-1, 1].

    With a `value_range`, files, PIL images and arrays of more than 8 bits hold these values, of any dtype. Others are
    clipped, and outputs have the range too.

    Raises:
        ArgumentError: another type, dtype or value range; a file or PIL image for another number of channels.
        ShapeError: another number of axes or channels, or no pixels.
        DataError: a file that cannot be read.
    """
    if isinstance(image, Tensor):
        return _from_tensor(owner, image, channels)
    image = _loaded(image)
    if isinstance(image, np.ndarray):
        return _from_array(owner, image, channels, value_range)
    if isinstance(image, Image.Image):
        return _from_pil(owner, image, channels, value_range)
    raise ArgumentError(
        f"{owner}: cannot take a {type(image).__name__}. Give a path, a PIL image, an array or a tensor."
    )


def _from_tensor(owner: str, image: Tensor, channels: int) -> Decoded:
    if image.ndim not in (3, 4) or image.shape[-3] != channels:
        raise ShapeError(
            f"{owner}: expects a tensor ({channels}, h, w) or (b, {channels}, h, w), got {tuple(image.shape)}."
        )
    if not image.is_floating_point():
        raise ArgumentError(
            f"{owner}: expects a float tensor in [-1, 1], got {image.dtype}. For uint8 pixels: x.float() / 127.5 - 1."
        )
    _check_values(owner, image, -1.0)
    if image.ndim == 3:
        return Decoded(image[None], lambda batch: batch.to(image)[0])
    return Decoded(image, lambda batch: batch.to(image))


def _from_array(
    owner: str, image: np.ndarray[Any, Any], channels: int, value_range: ValueRange | None = None
) -> Decoded:
    axes = image.ndim
    if axes not in (2, 3, 4) or (image.shape[-1] if axes > 2 else 1) != channels:
        grey = "(h, w), " if channels == 1 else ""
        first = axes == 3 and image.shape[0] == channels
        hint = " The channels come first: use x.transpose(1, 2, 0)." if first else ""
        raise ShapeError(
            f"{owner}: expects an array {grey}(h, w, {channels}) or (b, h, w, {channels}), got shape {image.shape}."
            f"{hint}"
        )
    ranged = value_range is not None and image.dtype != np.uint8 and image.dtype.kind in "uif"
    low, high = value_range if value_range is not None and ranged else (0, _MAX_VALUE.get(image.dtype.name, 1))
    if not ranged and high == 1 and image.dtype.kind != "f":
        raise ArgumentError(f"{owner}: expects an array of uint8, uint16, or floats in [0, 1], got {image.dtype}.")
    top = 1 if ranged else high
    values = torch.from_numpy((unit_values(image, (low, high)) if ranged else image).astype(np.float32, order="C"))
    _check_values(owner, values, 0.0 if top == 1 else None)
    batch = rearrange(values, {2: "h w -> 1 1 h w", 3: "h w c -> 1 c h w", 4: "b h w c -> b c h w"}[axes])

    def encode(batch: Tensor) -> np.ndarray[Any, Any]:
        array = _encoded(batch, image.dtype, (low, high))
        if axes == 4:
            return array
        return array[0, ..., 0] if axes == 2 and array.shape[-1] == 1 else array[0]

    return Decoded(batch / (top / 2) - 1, encode)


def _encoded(batch: Tensor, dtype: np.dtype[Any], value_range: ValueRange) -> np.ndarray[Any, Any]:
    """Return the array ``b h w c`` of a batch in [-1, 1], scaled to `value_range`."""
    low, high = value_range
    unit = (rearrange(batch.float().cpu(), "b c h w -> b h w c").clamp(-1, 1) + 1) / 2
    values = (unit * (high - low) + low).numpy()
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return values.astype(np.float64).round().clip(limits.min, limits.max).astype(dtype)


def _from_pil(owner: str, image: Image.Image, channels: int, value_range: ValueRange | None = None) -> Decoded:
    if channels not in PIL_MODES:
        raise ArgumentError(
            f"{owner}: an image file or PIL image cannot hold the {channels} input channels of the generator. "
            "Give an array (h, w, c) or a tensor (c, h, w)."
        )
    pixels = _pixels(owner, upright(image), channels, any_value=value_range is not None)
    decoded = _from_array(owner, pixels, channels, value_range)

    def encode(batch: Tensor) -> Image.Image:
        made = batch.shape[1]
        if made not in PIL_MODES:
            raise ArgumentError(
                f"{owner}: the generator's {made} output channels fit no PIL image. Give the source as an array or a "
                "tensor; the output is then one too."
            )
        if made == 1:
            return Image.fromarray(decoded.encode(batch)[0, ..., 0])
        return Image.fromarray(_encoded(batch, np.dtype(np.uint8), (0, 255))[0])  # Pillow's colour images have 8 bits

    return Decoded(decoded.tensor, encode)


def _pixels(owner: str, image: Image.Image, channels: int, *, any_value: bool) -> np.ndarray[Any, Any]:
    """Return an array ``(1, h, w, channels)``: uint8, or uint16 or float32 for images with one value a pixel.

    With `any_value`, an image of mode ``I`` is int32.
    """
    if image.mode == "F":
        return repeat(np.asarray(image), "h w -> 1 h w c", c=channels)
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if any_value:
            return repeat(deep.astype(deep.dtype.newbyteorder("=")), "h w -> 1 h w c", c=channels)
        if deep.size and not (deep.min() >= 0 and deep.max() <= 65535):
            raise ArgumentError(
                f"{owner}: an image of mode {image.mode!r} is read as 16-bit, but this one has values from "
                f"{deep.min()} to {deep.max()}. Scale them to 0 ... 65535, or give an array of floats in [0, 1]."
            )
        return repeat(deep.astype(np.uint16), "h w -> 1 h w c", c=channels)
    try:
        pixels = np.asarray(converted(image, PIL_MODES[channels]))
    except ValueError as error:
        raise ArgumentError(
            f"{owner}: cannot read an image of mode {image.mode!r} ({error}). Convert it to RGB first."
        ) from error
    return pixels.reshape(1, image.height, image.width, channels)


def check_batch_values(owner: str, batch: Mapping[str, Any], *, warn: bool = True) -> None:
    """Raise an ArgumentError if a source or target lies outside [-1, 1]; NaN and infinities pass.

    With `warn`, warn if source and target both look like images in [0, 1], as torchvision's ``ToTensor`` gives.
    """
    in_unit = []
    for name in batch.keys() & {"source", "target"}:
        values = batch[name]
        if not isinstance(values, Tensor) or values.numel() == 0 or not values.is_floating_point():
            continue
        least, most = values.min().item(), values.max().item()
        if -math.inf < least < -1.01 or 1.01 < most < math.inf:
            raise ArgumentError(
                f"{owner}: batch[{name!r}] must lie in [-1, 1], got {least:g} to {most:g}. Scale the samples of the "
                "data set; pixels from 0 to 255: x / 127.5 - 1."
            )
        in_unit.append(0 <= least < most and not _is_one_hot(values))
    if warn and in_unit == [True, True]:
        warnings.warn(
            f"{owner}: source and target of the first batch have no value below 0, as images in [0, 1]. The networks "
            "expect [-1, 1]. If the data set gives [0, 1], as ToTensor of torchvision does, scale its samples: "
            "x * 2 - 1.",
            stacklevel=2,
        )


def _is_one_hot(values: Tensor) -> bool:
    """Whether a batch has one channel of each pixel set, and perhaps edges of instances as the last channel."""
    ones = values == 1
    return bool((ones | (values == 0)).all()) and any(
        bool((channels.sum(dim=1) == 1).all()) for channels in (ones, ones[:, :-1]) if values.ndim == 4
    )


def _check_values(owner: str, values: Tensor, low: float | None) -> None:
    """Raise for an empty image, or for values outside [`low`, 1]; None checks no range."""
    if values.numel() == 0:
        raise ShapeError(f"{owner}: got an empty picture, shape {tuple(values.shape)}.")
    least, most = values.min().item(), values.max().item()
    # Resampling and rounding overshoot a little; NaN fails every comparison.
    if low is not None and not (low - 0.01 <= least and most <= 1.01):
        raise ArgumentError(
            f"{owner}: float values must lie in [{low:g}, 1], got {least:g} to {most:g}. Scale them first."
        )
