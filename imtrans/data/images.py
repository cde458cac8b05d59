"""Pictures: from files to tensors in [-1, 1], the jitter of pix2pix, and back to pictures."""

import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from imtrans.checks import at_least
from imtrans.errors import ArgumentError, DataError, printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
# Pillow knows more, and some of them start other programs: what is called .jpg may be PostScript.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
ORIENTATION = 0x0112
DAMAGED_EXIF = (SyntaxError, ValueError, TypeError, KeyError, struct.error)


def image_files(folder: Path) -> list[Path]:
    """What is named like a picture in `folder`, by name; hidden files, folders and other kinds are passed over.

    Links that lead nowhere, FIFOs and the like are among them: they are refused when they are opened, by name.

    Raises:
        DataError: the folder does not exist, or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_named_like_a_picture(entry)]
    except OSError as error:
        raise DataError(
            f"{printable(folder)} cannot be read as a folder of pictures: {error.strerror}. Check the path."
        ) from error
    return [folder / name for name in sorted(names)]


def _is_named_like_a_picture(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
        return False
    try:
        return not entry.is_dir()
    except OSError:  # a link that leads to itself
        return True


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture that is turned upright, from its header alone.

    Raises:
        DataError: the file is no picture, or cannot be read.
    """
    with _opened(path) as image:
        # Some versions of Pillow turn the size of a TIFF when they read its header, others with the picture.
        tags = getattr(image, "tag_v2", None)
        width, height = image.size if tags is None else (tags[256], tags[257])
        try:
            # The base class's own: the one of PNG decodes the picture, to look for EXIF behind it.
            sideways = Image.Image.getexif(image).get(ORIENTATION) in (5, 6, 7, 8)
        except DAMAGED_EXIF:
            sideways = False
    return (height, width) if sideways else (width, height)


def open_image(path: Path) -> Image.Image:
    """Read a picture in the mode that it has, turned upright; of many, the first.

    Raises:
        DataError: the file is no picture, or is damaged.
    """
    with _opened(path) as image:
        return upright(image.copy())


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture of which the header was read, without a warning; any trouble in it is a DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with os.fdopen(_open_file(path), "rb") as file, Image.open(file, formats=FORMATS) as image:
                if 0 in image.size:
                    raise ValueError("no pixels")
                yield image
    except MemoryError:
        raise  # of the machine, not of the file
    except Exception as error:  # Pillow's readers raise nearly anything over a damaged file
        raise DataError(
            f"{printable(path)} cannot be read as a picture ({_reason(error)}). {_way_out(error)}"
        ) from error


def _open_file(path: Path) -> int:
    # Without O_NONBLOCK, a FIFO waits for somebody who writes.
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


def _way_out(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "If it is not meant to exhaust the memory, raise PIL.Image.MAX_IMAGE_PIXELS."
    return "Repair the file, or take it out of the folder."


def read_image(path: Path) -> Image.Image:
    """Read a picture as 8-bit RGB, turned upright.

    Values of 16 bit, and floats in [0, 1], are scaled; transparency is dropped.

    Raises:
        DataError: the file is no picture, is damaged, or has other values.
    """
    image = open_image(path)
    most = 1 if image.mode == "F" else 65535 if image.mode.startswith("I") else None
    if most is None:
        try:
            return converted(image, "RGB")
        except (ValueError, ImageCms.PyCMSError) as error:
            raise DataError(f"{printable(path)}: mode {image.mode!r} cannot be turned into RGB ({error}).") from error
    values = np.asarray(image)
    beyond = 0.01 if image.mode == "F" else 0  # what resampling leaves
    if not (values.min() >= -beyond and values.max() <= most + beyond):  # NaN fails every comparison
        raise DataError(
            f"{printable(path)} has values from {values.min():g} to {values.max():g}; a picture of mode {image.mode!r} "
            f"holds 0 to {most}. Scale them."
        )
    grey = (values.clip(0, most) * (255 / most)).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says; one with damaged EXIF stays as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return ImageOps.exif_transpose(image)
    except DAMAGED_EXIF:
        return image


def converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert a picture of 8 bit, by way of RGB where Pillow has no straight one."""
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("P", "PA", "RGBa"):
        # A palette with transparent colours has its way to RGB through RGBA, or Pillow warns.
        image = image.convert("RGBA")
    return image.convert(mode)


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an 8-bit picture into a float tensor ``(c, h, w)`` in [-1, 1]."""
    return to_float(to_bytes(image))


def to_bytes(image: Image.Image) -> Tensor:
    """Turn an 8-bit picture into a uint8 tensor ``(c, h, w)``."""
    return rearrange(torch.from_numpy(np.array(image, dtype=np.uint8)), "h w c -> c h w").contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels of any shape into floats in [-1, 1], the same on every device."""
    # A CUDA card divides by a number with its rounded inverse; by a tensor, it divides.
    return pixels.float() / torch.full((), 127.5, device=pixels.device) - 1


def to_image(tensor: Tensor) -> Image.Image:
    """Turn a tensor ``(c, h, w)`` in [-1, 1] into an 8-bit picture; values outside are clipped.

    Raises:
        ArgumentError: neither one nor three channels.

    >>> to_image(torch.ones(3, 4, 6)).getpixel((0, 0))
    (255, 255, 255)
    """
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ArgumentError(
            f"to_image: expects (c, h, w) with 1 or 3 channels, got {tuple(tensor.shape)}. "
            "Give one picture of a batch, and choose the channels to show."
        )
    pixels = ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    whole = repeat(pixels, "c h w -> h w (c n)", n=3 // tensor.shape[0]).numpy()
    return Image.fromarray(whole)


@dataclass(frozen=True)
class Jitter:
    """Resize pictures, and cut the same random window out of each; flip all or none of them.

    Args:
        size: height and width of what comes out.
        load_size: height and width that pictures are resized to first; ``size * 286 / 256`` if None.
        flip: whether to mirror left and right half of the time.

    Raises:
        ArgumentError: a `size` below 1, or a `load_size` below `size`.

    Source: Isola et al. 2017, section 6.2.
    """

    size: int
    load_size: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        at_least("Jitter", "size", self.size, 1)
        if self.load_size is not None:
            at_least("Jitter", "load_size", self.load_size, self.size)

    @property
    def large(self) -> int:
        """Height and width of the pictures that the window is cut from."""
        return round(self.size * 286 / 256) if self.load_size is None else self.load_size

    def __call__(self, images: Sequence[Image.Image], rng: np.random.Generator | None) -> list[Tensor]:
        """Return the pictures as tensors ``(c, size, size)``; without `rng`, only resized to `size`."""
        if rng is None:
            return [to_float(pixels) for pixels in self.load(images, self.size)]
        window = torch.tensor([self.window(rng)])
        return [self.cut(pixels[None], window)[0] for pixels in self.load(images, self.large)]

    def load(self, images: Sequence[Image.Image], size: int) -> list[Tensor]:
        """Return the pictures, resized, as bytes: uint8 tensors ``(c, size, size)``."""
        return [to_bytes(_resized(image, size)) for image in images]

    def window(self, rng: np.random.Generator) -> tuple[int, int, bool]:
        """Draw where the window is cut: its left and top edge, and whether it is mirrored."""
        left, top = (int(n) for n in rng.integers(0, self.large - self.size, size=2, endpoint=True))
        return left, top, bool(self.flip and rng.random() < 0.5)

    def cut(self, pixels: Tensor, windows: Tensor) -> Tensor:
        """Cut a window out of each picture, where the pictures are, and turn it into floats in [-1, 1].

        Shape: ``(b, c, large, large)``, uint8, and ``(b, 3)``, whole numbers as `window` draws them ->
        ``(b, c, size, size)``.
        """
        left, top, mirrored = (column[:, None] for column in windows.unbind(1))
        along = torch.arange(self.size, device=pixels.device)
        rows = top + along
        columns = left + torch.where(mirrored.bool(), self.size - 1 - along, along)
        at = (rows[:, :, None] * pixels.shape[-1] + columns[:, None, :]).flatten(1)
        # One flat gather: on a CPU it takes a quarter of the time of an index for each axis.
        cut = pixels.flatten(2).gather(2, at[:, None].expand(-1, pixels.shape[1], -1))
        return to_float(cut.unflatten(2, (self.size, self.size)))


def _resized(image: Image.Image, size: int) -> Image.Image:
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
