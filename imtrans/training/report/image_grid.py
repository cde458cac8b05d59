"""Sample grid: batches of images side by side in one image, saved with the names of its columns."""

import io
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from imtrans.colours import hues
from imtrans.data.images import to_image


def image_grid(columns: Mapping[str, Tensor], gap: int = 4) -> Image.Image:
    """Lay out batches of images as the columns of one image, with a row for each sample, on white.

    Shape: each column ``(b, c, h, w)`` in [-1, 1]. For 2 and 4 channels, the first is shown. More than 4 channels are a
    label map (`imtrans.one_hot`): each pixel gets the hue of its largest channel, the first among equals.
    """
    shown = [_displayable(column).expand(-1, 3, -1, -1) for column in columns.values()]
    framed = [torch.nn.functional.pad(c, (0, gap, 0, gap), value=1.0) for c in shown]
    sheet = rearrange(framed, "column b c h w -> c (b h) (column w)")
    return to_image(sheet[:, :-gap, :-gap])


def _displayable(column: Tensor) -> Tensor:
    channels = column.shape[1]
    if channels <= 4:
        return column if channels in (1, 3) else column[:, :1]
    colours = torch.tensor(hues(channels), device=column.device) / 127.5 - 1
    return rearrange(colours[column.argmax(dim=1)], "b h w c -> b c h w")


def column_titles(columns: Iterable[str]) -> str:
    """Return the titles of the columns of `image_grid`.

    >>> column_titles(["source", "fake", "cycled_source"])
    'source, output, cycled source'
    """
    return ", ".join("output" if name == "fake" else name.replace("_", " ") for name in columns)


def image_grid_png(columns: Mapping[str, Tensor]) -> bytes:
    """Return `image_grid` as a PNG file that holds the titles of its columns."""
    named, file = PngInfo(), io.BytesIO()
    named.add_text("columns", column_titles(columns))
    image_grid(columns).save(file, "PNG", pnginfo=named)
    return file.getvalue()


def image_grid_header(path: Path) -> tuple[int, int, str]:
    """Return width, height and column titles from the header of an `image_grid_png` file; 0 and "" if damaged."""
    with path.open("rb") as file:
        head = file.read(4096)
    width, height = struct.unpack(">II", head[16:24].rjust(8, b"\0"))
    text = re.search(rb"(.{4})tEXtcolumns\0", head, re.DOTALL)
    names = head[text.end() :][: int.from_bytes(text[1], "big") - len("columns\0")] if text else b""
    return width, height, names.decode("latin-1")
