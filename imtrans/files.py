"""Files that are either the old ones or the new ones, whatever happens while they are written."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash at any instant leaves the old file or the new one."""
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that belong together as `write_atomic` does: none takes its name before all are on the disk.

    So a disk that is full leaves all the old ones. Only a crash just between their renames can mix old and new.
    """
    beside = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        for unfinished, content in zip(beside.values(), contents.values(), strict=True):
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, unfinished in beside.items():
            unfinished.replace(path)
    finally:
        for unfinished in beside.values():
            unfinished.unlink(missing_ok=True)
    sync_folder(folder)


def read_file(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """The content of a file, or its first `most` bytes.

    Raises:
        OSError: it cannot be read; or it is a pipe or a device, which may never end; or it is larger than the memory.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    try:
        with open(path, "rb") as file:
            return file.read() if most is None else file.read(most)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "Larger than the memory", str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power, where the system can do that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """The content of a file of indented JSON."""
    return (json.dumps(value, indent=2) + "\n").encode()


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """The content of a safetensors file; of tensors from any device, memory layout and view, shared or not."""
    whole: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        # The format has no shared memory, and its writer refuses it: tied weights are written once for each name.
        whole[name] = here.clone() if here.untyped_storage().data_ptr() in stored else here
        stored.add(here.untyped_storage().data_ptr())
    return safetensors.torch.save(whole, metadata={"format": "pt"})
