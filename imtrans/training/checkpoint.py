"""Checkpoint format: a folder with a nested state as safetensors and JSON, complete or absent."""

import json
import os
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from imtrans.errors import CheckpointError, ImtransError, one_line
from imtrans.files import disk_errors, read_file, sha256_of, sync_folder, write_together
from imtrans.hub.saved_model import parse_tensors

TENSORS, STATE, DIGESTS = "tensors.safetensors", "state.json", "SHA256SUMS"


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write `state` to `folder`, then delete the oldest checkpoints of its parent.

    The files are written to a folder of another name, flushed to the disk, and renamed. So a crash leaves a complete
    `folder` or none. ``sha256sum --check`` reads the file of digests.

    Args:
        folder: folder to write, named by the step, among the other checkpoints.
        state: nested dicts, lists and tuples of tensors, numbers, strings, bools and None.
        keep: number of checkpoints to keep.

    Raises:
        CheckpointError: the state holds another type, or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _split(state, "", tensors)
    unfinished = _temporary(folder)
    advice = "Earlier checkpoints are intact. Free some space or choose another folder, and resume."
    try:
        with disk_errors(CheckpointError, f"{folder} cannot be written", advice):
            for leftover in folder.parent.glob(".*.tmp"):
                shutil.rmtree(leftover)
            unfinished.mkdir(parents=True)
            with write_together(unfinished) as files:
                digests = (files.write(TENSORS, tensors), files.write(STATE, json.dumps(skeleton).encode()))
                files.write(DIGESTS, _digest_lines(*digests))
            if folder.exists():
                _delete(folder)
            unfinished.rename(folder)
            for parent in list(folder.parents)[:2]:
                sync_folder(parent)
            for old in checkpoints(folder.parent)[:-keep]:
                _delete(old)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first; an empty list if the folder does not exist."""
    return sorted((p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def _temporary(folder: Path, kind: str = "new") -> Path:
    """Return a name that `checkpoints` ignores."""
    return folder.with_name(f".{folder.name}.{kind}.{os.getpid()}.tmp")


def _delete(folder: Path) -> None:
    # Renamed first: a crash must not leave half a checkpoint under its name.
    shutil.rmtree(folder.rename(_temporary(folder, "old")))


def newest_state(folder: Path) -> dict[str, Any] | None:
    """Load the newest complete checkpoint in `folder`; return None if there is no checkpoint.

    Newer checkpoints that are damaged are renamed, with a warning.

    Raises:
        CheckpointError: all checkpoints are damaged.
    """
    found = checkpoints(folder)
    problems: dict[Path, CheckpointError] = {}
    for checkpoint in reversed(found):
        try:
            state = load_checkpoint(checkpoint)
        except CheckpointError as error:
            problems[checkpoint] = error
            continue
        # Only once a complete one is found: the next call must not see an empty folder.
        for damaged, problem in problems.items():
            renamed = damaged.with_name(f"{damaged.name}.damaged")
            with suppress(OSError):
                shutil.rmtree(renamed, ignore_errors=True)
                damaged.rename(renamed)
            warnings.warn(f"{problem} It is skipped, and renamed to {renamed.name}.", stacklevel=2)
        return state
    if found:
        raise CheckpointError(
            f"each checkpoint in {folder} is damaged, {len(found)} in all. The oldest: {problems[found[0]]} Start "
            "in another folder."
        )
    return None


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Load a checkpoint that `save_checkpoint` wrote, with its tensors on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged or cannot be read.
    """
    try:
        contents = {name: read_file(folder / name) for name in (TENSORS, STATE)}
        if _digest_lines(*map(sha256_of, contents.values())) != read_file(folder / DIGESTS, most=1000):
            raise ValueError(f"the files do not match the digests in {DIGESTS}")
        state = _join(json.loads(contents[STATE]), parse_tensors(folder / TENSORS, contents[TENSORS]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ImtransError) as error:
        raise CheckpointError(f"{folder} is damaged ({one_line(str(error))}).") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder} is damaged ({STATE} holds no dict).")
    return state


def _digest_lines(tensors: str, state: str) -> bytes:
    return f"{tensors}  {TENSORS}\n{state}  {STATE}\n".encode()


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of `value` to `tensors`; return the rest in a form that JSON holds."""
    if isinstance(value, Tensor):
        # The number separates the keys 1 and "1", and "a/b" from "b" within "a".
        name = f"{len(tensors)}{path}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, (str, int))]:
            raise CheckpointError(
                f"the state has the key {odd[0]!r} at {path or 'its root'}. Use strings and integers."
            )
        return {"dict": [[key, _split(entry, f"{path}/{key}", tensors)] for key, entry in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_split(entry, f"{path}/{i}", tensors) for i, entry in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"the state has a {type(value).__name__} at {path or 'its root'}, and a checkpoint cannot hold it. "
        "Use tensors, numbers, strings, and dicts and lists of them."
    )


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _join(entry, tensors) for key, entry in content}
    entries = [_join(entry, tensors) for entry in content]
    return tuple(entries) if kind == "tuple" else entries
