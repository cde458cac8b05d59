"""Image files: reading them safely, and tensors from images and back."""

import os
import stat
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from imtrans.errors import ArgumentError, DataError, printable
from imtrans.files import similar_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
# Pillow reads more formats, and runs another program for some: a file named .jpg may be PostScript.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
ORIENTATION = 0x0112
DAMAGED_EXIF = (SyntaxError, ValueError, TypeError, KeyError, struct.error)


def image_files(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the files in `folder` with one of the suffixes, sorted by name, without hidden ones.

    Raises:
        DataError: the folder does not exist, or cannot be read. Broken links and FIFOs raise one only when opened.
    """
    try:
        paths = [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{printable(folder)} cannot be read as a folder of pictures: {error.strerror}. "
            f"Check the path.{similar_path(folder) if isinstance(error, FileNotFoundError) else ''}"
        ) from error
    # Not Path.is_dir, which raises for some broken links.
    return [path for path in paths if path.suffix.lower() in suffixes and not os.path.isdir(path)]


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright image, from its header alone; errors as for `open_image`."""
    return image_header(path)[0]


def image_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return `image_size` and Pillow's mode of the image; errors as for `open_image`."""
    with _opened(path) as image:
        # Some versions of Pillow apply the orientation of a TIFF to `size` already in the header.
        tags = getattr(image, "tag_v2", None)
        width, height = image.size if tags is None else (tags[256], tags[257])
        try:
            # Not `image.getexif`: for a PNG it decodes the image, to find EXIF data behind it.
            sideways = Image.Image.getexif(image).get(ORIENTATION) in (5, 6, 7, 8)
        except DAMAGED_EXIF:
            sideways = False
        mode = image.mode
    return (height, width) if sideways else (width, height), mode


def open_image(path: Path) -> Image.Image:
    """Read the first image of a file in its own mode, upright.

    Raises:
        DataError: the file is not an image, is damaged, or cannot be read.
    """
    with _opened(path) as image:
        return upright(image.copy())


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image and read its header, without warnings; any error inside becomes a DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with os.fdopen(open_regular(path), "rb") as file, Image.open(file, formats=FORMATS) as image:
                if 0 in image.size:
                    raise ValueError("no pixels")
                yield image
    except MemoryError:
        raise  # not the fault of the file
    except Exception as error:  # Pillow raises almost any exception for a damaged file
        way_out = "Repair the file, or take it out of the folder."
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):  # no broken link
            way_out = f"Check the path.{similar_path(path)}"
        elif isinstance(error, PermissionError):
            way_out = "Change its permissions, or take it out of the folder."
        elif os.path.isdir(path):
            way_out = "Give the path of one picture in it."
        if isinstance(error, Image.DecompressionBombError):
            way_out = "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        raise DataError(f"{printable(path)} cannot be read as a picture ({_reason(error)}). {way_out}") from error


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; never waits."""
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError("no regular file")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(error).rstrip(".") or type(error).__name__


ValueRange = tuple[float, float]
"""The values of a file that become black and white."""


def unit_values(values: np.ndarray[Any, Any], value_range: ValueRange) -> np.ndarray[Any, Any]:
    """Scale `value_range` to [0, 1], in float64. Other values are clipped; NaN becomes 0."""
    low, high = value_range
    return (np.nan_to_num(values.astype(np.float64), nan=low).clip(low, high) - low) / (high - low)


def read_image(path: Path, value_range: ValueRange | None = None, *, way_out: str = "Scale them.") -> Image.Image:
    """Read an image as 8-bit RGB, upright: 16-bit values and floats in [0, 1] are scaled, transparency is dropped.

    With a `value_range`, 16-bit values and floats are scaled from it, and clipped. `way_out` ends the error text about
    values out of range.

    Raises:
        DataError: as for `open_image`, or values out of range.
    """
    return as_rgb(open_image(path), path, value_range, way_out=way_out)


def as_rgb(
    image: Image.Image, name: object, value_range: ValueRange | None = None, *, way_out: str = "Scale them."
) -> Image.Image:
    """Convert an upright image as `read_image` does; `name` names it in error texts."""
    if image.mode != "F" and not image.mode.startswith("I"):
        try:
            return converted(image, "RGB")
        except (ValueError, ImageCms.PyCMSError) as error:
            raise DataError(f"{printable(name)}: mode {image.mode!r} cannot be converted to RGB ({error}).") from error
    values = np.asarray(image)
    if value_range is not None:
        return Image.fromarray((unit_values(values, value_range) * 255).round().astype(np.uint8)).convert("RGB")
    top, margin = (1, 0.01) if image.mode == "F" else (65535, 0)  # resampling overshoots a little
    if not (values.min() >= -margin and values.max() <= top + margin):  # false for NaN too
        raise DataError(
            f"{printable(name)} has values from {values.min():g} to {values.max():g}; a picture of mode {image.mode!r} "
            f"holds 0 to {top}. {way_out}"
        )
    grey = (values.clip(0, top) * (255 / top)).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def warn_of_dark_files(owner: str, paths: Sequence[Path]) -> None:
    """Warn if 16-bit `paths` use a quarter of their range or less, as 12-bit data does; reads a few of them."""
    read = list(paths)[:: max(1, len(paths) // 8)][:8]
    extrema = []
    for path in read:
        with _opened(path) as image:
            values = np.asarray(image)
            extrema.append((int(values.min()), int(values.max())))
    least, most = min([low for low, _ in extrema], default=0), max([high for _, high in extrema], default=0)
    if 0 <= least < most <= 65535 // 4:
        top = 2 ** most.bit_length() - 1
        warnings.warn(
            f"{owner}: {len(extrema)} of {len(paths)} files in 16 bit were read, with values from {least} to {most} of "
            f"65535: these are dark pictures. Give their range, value_range=(0, {top}) (--value-range 0 {top}).",
            stacklevel=3,
        )


def upright(image: Image.Image) -> Image.Image:
    """Rotate an image as its EXIF orientation says; damaged EXIF data is ignored."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return ImageOps.exif_transpose(image)
    except DAMAGED_EXIF:
        return image


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert an 8-bit image to `mode`, by way of RGB where Pillow has no direct conversion."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("P", "PA", "RGBa"):
        # Without this step, Pillow warns about a palette with transparent colours.
        image = image.convert("RGBA")
    return image.convert(mode)


def resized(
    image: Image.Image, size: int | tuple[int, int], resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Tensor:
    """Resize an 8-bit image to a uint8 tensor ``(c, height, width)``; `size` is a number or ``(height, width)``."""
    height, width = (size, size) if isinstance(size, int) else size
    return to_uint8(image.resize((width, height), resample))


def to_uint8(image: Image.Image) -> Tensor:
    """Convert an 8-bit image to a uint8 tensor ``(c, h, w)``."""
    return rearrange(torch.from_numpy(np.array(image, dtype=np.uint8)), "h w c -> c h w").contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """Convert a uint8 tensor of any shape to floats in [-1, 1], the same on every device. Floats are returned as is."""
    if pixels.is_floating_point():
        return pixels
    # By a Python number, CUDA would multiply with its rounded inverse.
    return pixels.float() / torch.full((), 127.5, device=pixels.device) - 1


def to_tensor(image: Image.Image) -> Tensor:
    """Convert an 8-bit image to a float tensor ``(c, h, w)`` in [-1, 1]."""
    return to_float(to_uint8(image))


def to_image(tensor: Tensor) -> Image.Image:
    """Convert a tensor ``(c, h, w)`` in [-1, 1] to an 8-bit RGB image; values out of range are clipped.

    Raises:
        ArgumentError: neither one nor three channels.

    >>> to_image(torch.ones(3, 4, 6)).getpixel((0, 0))
    (255, 255, 255)
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ArgumentError(
            f"to_image: expects (c, h, w) with 1 or 3 channels, got {tuple(tensor.shape)}. "
            "Give one image of a batch, and choose the channels to show."
        )
    pixels = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(repeat(pixels, "c h w -> h w (c n)", n=3 // tensor.shape[0]).numpy())
