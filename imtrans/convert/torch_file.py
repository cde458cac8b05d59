"""Tensors out of a file that ``torch.save`` wrote, without trust in it: nothing is run, nothing is inflated.

A compressed record of a megabyte may inflate to a gigabyte. What is read here is as long as it is in the file.
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imtrans.convert.pickled import Refused, Storage, View, unpickle
from imtrans.errors import SavedModelError
from imtrans.files import read_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before zip files


def read_torch_file(path: Path) -> Any:
    """What a file holds: a tensor, or a dict of tensors, or of dicts, lists and tuples of numbers and strings.

    Reads the zip files of PyTorch since 1.6 and the format before, little-endian, not compressed. In memory it is the
    file, the tensors, and a constant.

    Raises:
        SavedModelError: it cannot be read, is damaged, or holds anything else.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return _read_zip(content) if content[:4] == b"PK\3\4" else _read_legacy(content)
    except Refused as error:
        raise SavedModelError(f"{path} {error}") from error
    except Exception as error:  # damaged data leads the parsers below to raise anything
        raise SavedModelError(
            f"{path} is no state dict: it is damaged, or holds more than tensors, and what else it holds is not run. "
            "Give the file that the reference implementation saved, such as latest_net_G.pth."
        ) from error


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = archive.infolist()
        # A record that is as long as what is stored of it inflates to nothing; and no two share their bytes.
        if any(r.compress_type != zipfile.ZIP_STORED or r.file_size != r.compress_size for r in records):
            raise ValueError("compressed")
        if sum(record.file_size for record in records) > len(content):
            raise ValueError("overlapping")
        names = [record.filename for record in records]
        (root,) = {name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")}
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big-endian")
        found = unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))
        storages = _wanted(found)
        kept = {key: bytearray(archive.read(f"{root}data/{key}")) for key in storages}
    return _with_tensors(found, storages, kept)


def _read_legacy(content: bytes) -> Any:
    """Four pickles, a fifth with the order of the storages, then each: its length in elements, and its bytes."""
    file = io.BytesIO(content)
    magic, protocol, system = unpickle(file), unpickle(file), unpickle(file)
    if (magic, protocol) != (MAGIC, PROTOCOL) or not system["little_endian"]:
        raise ValueError("of another format")
    found = unpickle(file)
    storages = _wanted(found)
    kept = {}
    for key in unpickle(file):
        storage = storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length:
            raise ValueError("a storage of another length")
        kept[key] = bytearray(file.read(storage.nbytes))
    return _with_tensors(found, storages, kept)


def _views(found: Any) -> Iterator[View]:
    """Tensors by their names, and one alone; any deeper make no state dict, and are not read."""
    for value in found.values() if isinstance(found, dict) else [found]:
        if isinstance(value, View):
            yield value


def _wanted(found: Any) -> dict[str, Storage]:
    """The storages that tensors refer to; they hold at least as much as the tensors claim."""
    storages: dict[str, Storage] = {}
    claimed = 0
    for view in _views(found):
        if storages.setdefault(view.storage.key, view.storage) != view.storage:
            raise ValueError("two descriptions of a storage")
        claimed += view.numel * view.storage.dtype.itemsize
    held = sum(storage.nbytes for storage in storages.values())
    if claimed > held:
        raise Refused(f"claims tensors of {claimed:,} bytes, and holds {held:,}.")
    return storages


def _with_tensors(found: Any, storages: Mapping[str, Storage], kept: Mapping[str, bytearray]) -> Any:
    if any(len(kept[key]) != storage.nbytes for key, storage in storages.items()):
        raise ValueError("a storage of another length")
    if isinstance(found, dict):
        return {k: v.of(kept[v.storage.key]) if isinstance(v, View) else v for k, v in found.items()}
    return found.of(kept[found.storage.key]) if isinstance(found, View) else found
