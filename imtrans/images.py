"""Pictures: from files to tensors in [-1, 1], the jitter of pix2pix, and back to pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from imtrans.errors import ArgumentError, DataError, at_least

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


def image_files(folder: Path) -> list[Path]:
    """The pictures in `folder`, by name; hidden files and other kinds are passed over.

    Raises:
        DataError: the folder does not exist, or cannot be read.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder of pictures: {error.strerror}.") from error


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header alone.

    Raises:
        DataError: the file is no picture, or cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def open_image(path: Path) -> Image.Image:
    """Read a picture in the mode that it has.

    Raises:
        DataError: the file is no picture, or is damaged.
    """
    try:
        with Image.open(path) as image:
            return image.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_image(path: Path) -> Image.Image:
    """Read a picture as 8-bit RGB; 16-bit pictures are scaled, transparency is dropped.

    Raises:
        DataError: the file is no picture, or is damaged.
    """
    image = open_image(path)
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    # A palette with transparent colours has its way to RGB through RGBA, or Pillow warns.
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a picture ({error}). Repair the file, or take it out of the folder.")


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


def sample_rows(columns: Mapping[str, Tensor], gap: int = 4) -> Image.Image:
    """Lay out batches of pictures as the columns of one picture, a row for each sample, on white.

    Shape: each column ``(b, c, h, w)``, one to three channels (of two, and of more than three, the first is
    shown).
    """
    shown = [c if c.shape[1] in (1, 3) else c[:, :1] for c in columns.values()]
    framed = [torch.nn.functional.pad(c.expand(-1, 3, -1, -1), (0, gap, 0, gap), value=1.0) for c in shown]
    sheet = rearrange(framed, "column b c h w -> c (b h) (column w)")
    return to_image(sheet[:, :-gap, :-gap])


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
