"""The whole state of a training run, in a folder of safetensors and JSON that is there entirely or not at all."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imtrans.distributed.process_group import process_group
from imtrans.errors import CheckpointError, ImtransError, one_line
from imtrans.files import read_file, sha256_of, sync_folder, write_together
from imtrans.hub.saved_model import parse_tensors
from imtrans.methods.optimizer_state import load_state, state_of
from imtrans.runtime import random_state, set_random_state

TENSORS, STATE, DIGESTS = "tensors.safetensors", "state.json", "SHA256SUMS"


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write `state` to `folder`, then delete all but the newest `keep` checkpoints beside it.

    The files are written to a folder of another name, flushed to the disk, and renamed: a crash at any instant
    leaves either no `folder` or a whole one. Their digests are in the form that ``sha256sum --check`` reads.

    Args:
        folder: its name is the step; its siblings are the other checkpoints.
        state: nested dicts, lists and tuples of tensors, numbers, strings, bools and None.
        keep: how many checkpoints remain.

    Raises:
        CheckpointError: the state holds something else, or the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(state, "", tensors)
    unfinished = _beside(folder)
    try:
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
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written: {error.strerror or error}. Earlier checkpoints are untouched; make room "
            "or choose another folder, and resume."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def gather(method: nn.Module, optimizers: Mapping[str, Optimizer], device: torch.device) -> dict[str, Any]:
    """The state of a method, of its optimizers, and of the random numbers that each process draws in its next step."""
    return {
        "method": method.state_dict(),
        "optimizers": {name: state_of(optimizer) for name, optimizer in optimizers.items()},
        "random": process_group().all_gather_object(random_state(device)),
    }


def restore(
    state: dict[str, Any], method: nn.Module, optimizers: Mapping[str, Optimizer], device: torch.device
) -> None:
    """Put back what `gather` gave; see `fitting`. A process more than there were keeps the random state it has."""
    method.load_state_dict(state["method"])
    for name, optimizer in optimizers.items():
        load_state(optimizer, state["optimizers"][name])
    for random in state["random"][process_group().rank : process_group().rank + 1]:
        set_random_state(random, device)


@contextmanager
def fitting() -> Iterator[None]:
    """Turn what goes wrong inside the block, where a state is put back, into our error.

    Raises:
        CheckpointError: it is the state of another method or network, or something else altogether.
    """
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit this run: {one_line(str(error))} Make the run with the "
            "arguments in config.json, or start one in another folder."
        ) from error


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; empty if there is no such folder."""
    return sorted((p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def _beside(folder: Path, what: str = "new") -> Path:
    """A name that `checkpoints` passes over."""
    return folder.with_name(f".{folder.name}.{what}.{os.getpid()}.tmp")


def _delete(folder: Path) -> None:
    """Delete a checkpoint; what a crash leaves of it no longer has the name of one."""
    shutil.rmtree(folder.rename(_beside(folder, "old")))


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint in `folder` that is whole; None if there has never been one.

    Damaged ones that are newer are named in a warning, and put aside under another name.

    Raises:
        CheckpointError: all are damaged.
    """
    found = checkpoints(folder)
    problems: dict[Path, CheckpointError] = {}
    for checkpoint in reversed(found):
        try:
            state = load_checkpoint(checkpoint)
        except CheckpointError as error:
            problems[checkpoint] = error
            continue
        # Not before a whole one is found: the next call must not take a folder of damaged ones for one without any.
        for damaged, problem in problems.items():
            aside = damaged.with_name(f"{damaged.name}.damaged")
            with suppress(OSError):
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
            warnings.warn(f"{problem} It is left out, as {aside.name}.", stacklevel=2)
        return state
    if found:
        raise CheckpointError(
            f"all {len(found)} checkpoints in {folder} are damaged; the oldest: {problems[found[0]]} Start in another "
            "folder."
        )
    return None


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, with every tensor on the CPU.

    Raises:
        CheckpointError: it cannot be read, or is damaged.
    """
    try:
        contents = {name: read_file(folder / name) for name in (TENSORS, STATE)}
        if _digest_lines(*map(sha256_of, contents.values())) != read_file(folder / DIGESTS, most=1000):
            raise ValueError(f"the files are not those of which {DIGESTS} has the digests")
        state = _put_together(json.loads(contents[STATE]), parse_tensors(folder / TENSORS, contents[TENSORS]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ImtransError) as error:
        raise CheckpointError(f"{folder} is damaged ({one_line(str(error))}).") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder} is damaged ({STATE} holds no dict).")
    return state


def _digest_lines(tensors: str, state: str) -> bytes:
    return f"{tensors}  {TENSORS}\n{state}  {STATE}\n".encode()


def _take_apart(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors in `value` to `tensors`; return the rest as JSON, with dict keys of any simple type."""
    if isinstance(value, Tensor):
        # The number keeps apart the keys 1 and "1", or a/b and a that holds b.
        name = f"{len(tensors)}{path}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, (str, int))]:
            raise CheckpointError(
                f"the state has the key {odd[0]!r} at {path or 'its root'}. Use strings and whole numbers."
            )
        return {"dict": [[key, _take_apart(entry, f"{path}/{key}", tensors)] for key, entry in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_take_apart(entry, f"{path}/{i}", tensors) for i, entry in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"the state has a {type(value).__name__} at {path or 'its root'}, which a checkpoint cannot hold. "
        "Use tensors, numbers, strings, and dicts and lists of them."
    )


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _put_together(entry, tensors) for key, entry in content}
    entries = [_put_together(entry, tensors) for entry in content]
    return tuple(entries) if kind == "tuple" else entries
