"""A lock on a folder, that ends with the process that holds it, however that ends."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from imtrans.errors import TrainingError

try:
    import fcntl
except ImportError:  # Windows has no such locks; a second run is not noticed there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process have the lock on `folder` inside the block.

    The system drops the lock of a process that dies. So a lock file that is left over means nothing.

    Raises:
        TrainingError: another process has it, or this one does already.
        OSError: the folder cannot be written.
    """
    handle = None if fcntl is None else _acquire(folder / LOCK)
    try:
        (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):  # the disk may have become read-only; a file that is left over means nothing
            (folder / LOCK).unlink()
        if handle is not None:
            _held.discard(handle)
            os.close(handle)


def _acquire(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who had it may have deleted the file since it was opened here: then this is nobody's lock.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    break
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise TrainingError(
                f"{path.parent} is in use by {holder}. Wait for its end or stop it, or give this run another folder "
                "with out=... (--out)."
            ) from None
        except OSError as error:
            os.close(handle)
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}). See that no second run uses it.", stacklevel=4
            )
            return None
        os.close(handle)
    _hide_from_children(handle)
    return handle


def _hide_from_children(handle: int) -> None:
    """A forked process that outlives this one must not keep the lock."""
    _held.add(handle)
    _watch_forks()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()
