"""Files that are complete or absent, digests, and disk errors.

A file is written under a temporary name, flushed and renamed, so that a crash leaves the old file or the new one.
"""

import errno
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from imtrans.errors import ArgumentError, ImtransError, printable

CHUNK = 2**20  # bytes read at a time


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old file or the new one."""
    with write_together(path.parent) as files:
        files.write(path.name, content)


@contextmanager
def write_together(folder: Path) -> Iterator["FileGroup"]:
    """Context manager that writes several files of one folder, all or none: ``digest = files.write(name, content)``.

    The files get their names at the end of the block; an error leaves all the old files. Only a crash between the
    renames can mix old and new files.
    """
    files = FileGroup(folder)
    try:
        yield files
        for path, unfinished in files.unfinished.items():
            unfinished.replace(path)
    finally:
        for unfinished in files.unfinished.values():
            unfinished.unlink(missing_ok=True)
    sync_folder(folder)


class FileGroup:
    """Files that `write_together` writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished: dict[Path, Path] = {}

    def write(self, name: str, content: bytes | Mapping[str, Tensor]) -> str:
        """Write bytes, or tensors in the safetensors format, to the disk. Returns the SHA-256 of the file."""
        unfinished = self.folder / f".{name}.{os.getpid()}.tmp"
        self.unfinished[self.folder / name] = unfinished
        if isinstance(content, bytes):
            unfinished.write_bytes(content)
        else:
            _write_tensors(unfinished, content)
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        return sha256_of(content if isinstance(content, bytes) else unfinished)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device and memory layout; contiguous ones on the CPU are not copied."""
    whole: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        # The format refuses shared memory: tied weights are written once for each name.
        whole[name] = here.clone() if here.untyped_storage().data_ptr() in stored else here
        stored.add(here.untyped_storage().data_ptr())
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        safetensors.torch.save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # Errors of the disk come as this class too.
        if reason := re.search(r"I/O error: (.*) \(os error (\d+)\)", str(error)):
            raise OSError(int(reason[2]), reason[1], str(path)) from error
        raise
    path.chmod(mode)  # save_file ignores the umask


def sha256_of(source: bytes | Path) -> str:
    """SHA-256 of some bytes or of a file, in hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(error_class: Callable[[str], ImtransError], failure: str, advice: str) -> Iterator[None]:
    """Context manager that converts an OSError into ``error_class("{failure}: {reason}. {advice}")``."""
    try:
        yield
    except ImtransError:
        raise
    except OSError as error:
        raise error_class(f"{failure}: {error.strerror or error}. {advice}") from error


def read_file(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """Read a file, or its first `most` bytes. A pipe, a device, and a file larger than the memory are OSErrors too."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    try:
        with open(path, "rb") as file:
            return file.read() if most is None else file.read(most)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "Larger than the memory", str(path)) from error


def similar_path(path: Path) -> str:
    """Return `` Did you mean ...?`` for a missing path, with the nearest name where it first leaves the disk."""
    for missing in [*reversed(path.parents), path]:
        if not os.path.lexists(missing):
            with suppress(OSError):
                near = get_close_matches(missing.name, os.listdir(missing.parent), n=1)
                return f" Did you mean {printable(missing.parent / near[0])}?" if near else ""
            break
    return ""


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to the disk, where the system can do that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_folder() -> Path:
    """Folder for fetched files: ``IMTRANS_HOME`` of the environment, else ``imtrans`` in the user's cache folder.

    Raises:
        ArgumentError: the user has no home folder, and ``IMTRANS_HOME`` is not set.
    """
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(os.environ.get("IMTRANS_HOME") or f"{caches}/imtrans").expanduser()
    except RuntimeError as error:
        raise ArgumentError("cache_folder: this user has no home folder. Set IMTRANS_HOME to a folder.") from error


def json_bytes(value: Any) -> bytes:
    """Encode `value` as indented JSON that ends with a line break."""
    return (json.dumps(value, indent=2) + "\n").encode()
