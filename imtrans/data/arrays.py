"""Images of any number of channels and more than 8 bits: image files, ``.npy`` and ``.npz``, as arrays."""

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from einops import repeat
from PIL import Image
from torch import Tensor

from imtrans.data.images import SUFFIXES, ValueRange, converted, image_header, open_image, open_regular, unit_values
from imtrans.errors import DataError, counted, join_names, printable, short_repr

Array = np.ndarray[Any, Any]
ARRAY_SUFFIXES = (".npy", ".npz")
READABLE = (*SUFFIXES, *ARRAY_SUFFIXES)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GIVE_RANGE = "Give the range: value_range=(low, high) (--value-range)."
MAX_VALUES = 2**31  # in one file; more is no image, but an absurd header


def array_header(path: Path) -> tuple[tuple[int, int], int, bool]:
    """Return ``(width, height)``, the number of channels, and whether a file has more than 8 bits, from its header.

    Raises:
        DataError: a file that cannot be read, or an array that is not ``h w`` or ``h w c``.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        with _array_file(path) as (_, shape, dtype):
            return (shape[1], shape[0]), shape[2] if len(shape) == 3 else 1, dtype != np.uint8
    size, mode = image_header(path)
    if mode in ("1", "L", "F") or mode.startswith("I"):
        return size, 1, mode not in ("1", "L")
    return size, 4 if mode in ("RGBA", "RGBa", "LA", "La", "PA") else 3, False


def read_array(path: Path, channels: int, value_range: ValueRange | None = None) -> Array:
    """Read an image ``h w c`` with `channels` channels: uint8, or float32 in [0, 1] for files of more than 8 bits.

    Image files of 8 bit are converted for 1, 3 and 4 channels, and grey ones of more bits are repeated. See
    `imtrans.data.paired.PairedImages` for `value_range`.

    Raises:
        DataError: a file that cannot be read, other channels, or values out of range.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        values = load_array(path)
    else:
        image = open_image(path)
        if channels not in MODES:
            raise DataError(
                f"{printable(path)} is an image of mode {image.mode!r}, which has no form of {channels} channels. Save "
                "such images as .npy or .npz."
            )
        if image.mode != "F" and not image.mode.startswith("I"):
            return np.asarray(converted(image, MODES[channels])).reshape(image.height, image.width, channels)
        values = repeat(np.asarray(image), "h w -> h w c", c=channels)
        if image.mode != "F" and 0 <= values.min() <= values.max() <= 65535:
            values = values.astype(np.uint16)
    values = values if values.ndim == 3 else values[:, :, None]
    if values.shape[2] != channels:
        raise DataError(f"{printable(path)} has {counted(values.shape[2], 'channel')}, and the data set {channels}.")
    return values if values.dtype == np.uint8 else _unit(path, values, value_range)


def _unit(path: Path, values: Array, value_range: ValueRange | None) -> Array:
    """Scale `value_range`, by default the range of the dtype, to float32 in [0, 1]."""
    if value_range is not None:
        return unit_values(values, value_range).astype("f4")
    top = 65535 if values.dtype == np.uint16 else 1
    readable = values.dtype == np.uint16 or values.dtype.kind == "f"
    if not (readable and -0.01 <= values.min() <= values.max() <= top + 0.01):  # false for NaN too
        raise DataError(
            f"{printable(path)} has values of {values.dtype} from {values.min():g} to {values.max():g}. Without "
            f"a range, uint8, uint16 and floats in [0, 1] are read. {GIVE_RANGE}"
        )
    return (values.astype(np.float32) / top).clip(0, 1)


def load_array(path: Path) -> Array:
    """Read the array ``h w`` or ``h w c`` of a ``.npy`` file, or the only one of a ``.npz`` file; never unpickles.

    Raises:
        DataError: a file that cannot be read, or holds something else.
    """
    with _array_file(path) as (file, _, _):
        file.seek(0)
        values: Array = np.lib.format.read_array(file, allow_pickle=False)
        return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def _array_file(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...], Any]]:
    """Open the file of an array; yields it with shape and dtype. Any error inside becomes a DataError."""
    try:
        with os.fdopen(open_regular(path), "rb") as file, ExitStack() as stack:
            member: IO[bytes] = file
            if path.suffix.lower() == ".npz":
                archive = stack.enter_context(zipfile.ZipFile(file))
                names = archive.namelist()
                if len(names) != 1:
                    raise ValueError(f"it holds {len(names)} arrays, not one")
                member = stack.enter_context(archive.open(names[0]))
            shape, dtype = _array_layout(member)
            yield member, shape, dtype
    except (MemoryError, DataError):
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds for a damaged file
        reason = getattr(error, "strerror", None) or printable(error).rstrip(".") or type(error).__name__
        raise DataError(
            f"{printable(path)} cannot be read as an array ({reason}). Save an array (h, w) or (h, w, c) with np.save."
        ) from error


def _array_layout(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Read the header of an array, and check it before memory is allocated."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"it has version {version} of the format")
    if len(shape) not in (2, 3) or 0 in shape or dtype.kind not in "uif" or math.prod(shape) > MAX_VALUES:
        raise ValueError(f"it holds {dtype} in shape {short_repr(shape)}")
    start = file.tell()
    if file.seek(0, os.SEEK_END) - start < math.prod(shape) * dtype.itemsize:
        raise ValueError("it is truncated")
    return shape, dtype


def image_ids(image: Image.Image) -> Array | None:
    """Return the ids ``h w`` of an image: its grey values, or the indices into its colour table; None if in colour."""
    return np.asarray(image) if image.mode in ("1", "L", "P") or image.mode.startswith("I") else None


def read_ids(path: Path, num_labels: int | None = None, *, hint: str = "") -> Array:
    """Read an id for each pixel, ``h w``, int32, from an image as for `image_ids`, or from an array of integers.

    `hint` is added to the error text about a file without ids.

    Raises:
        DataError: a file that cannot be read, or holds no ids, or with `num_labels`, others than 0 to that less one.
    """
    values: Array | None
    if path.suffix.lower() in ARRAY_SUFFIXES:
        values = load_array(path)
        found = f"{values.dtype} in shape {values.shape}"
        values = values.reshape(values.shape[:2]) if values.ndim == 3 and values.shape[2] == 1 else values
    else:
        image = open_image(path)
        values, found = image_ids(image), f"mode {image.mode!r}"
    if values is None or values.ndim != 2 or values.dtype.kind not in "bui":
        raise DataError(
            f"{printable(path)} holds no ids, but {found}. Save them as a grey image of 8 or 16 bits, an image with a "
            f"colour table, or an array (h, w) of integers.{hint}"
        )
    if num_labels is not None:
        wrong = np.unique(values[(values < 0) | (values >= num_labels)]).tolist()
        if wrong:
            raise DataError(
                f"{printable(path)} has ids {join_names(wrong)}, and labels={num_labels} takes 0 to {num_labels - 1}. "
                "Raise the number of labels, or give such pixels a class of their own in the files."
            )
    return values.astype(np.int32)


def resized_ids(ids: Array, size: tuple[int, int]) -> Tensor:
    """Resize the ids of `read_ids` by nearest neighbour to a tensor ``(1, height, width)``, int32."""
    return torch.from_numpy(np.array(_resize(ids, size, Image.Resampling.NEAREST)))[None]


def resized_array(
    values: Array, size: tuple[int, int], *, deep: bool, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Tensor:
    """Resize `read_array`'s values, each channel alone, to a tensor ``(c, height, width)``.

    It is uint8, or with `deep` floats in [-1, 1].
    """
    planes = np.moveaxis(values, 2, 0)
    if not deep:
        return torch.from_numpy(np.stack([np.asarray(_resize(plane, size, resample)) for plane in planes]))
    unit = planes.astype(np.float32) / 255 if values.dtype == np.uint8 else planes
    resized = np.stack([np.asarray(_resize(plane, size, resample)) for plane in unit])
    return torch.from_numpy(resized).clamp(0, 1) * 2 - 1


def _resize(plane: Array, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    return Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resample)
