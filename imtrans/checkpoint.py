"""The whole state of a training run, in a folder of safetensors and JSON that is there entirely or not at all."""

import json
import os
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imtrans.errors import CheckpointError, ImtransError
from imtrans.files import sync_folder, write_json, write_tensors
from imtrans.optimizing import load_state, state_of
from imtrans.saved import parse_tensors

TENSORS, STATE = "tensors.safetensors", "state.json"


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write `state` to `folder`, then delete all but the newest `keep` checkpoints beside it.

    The files are written to a folder of another name, flushed to the disk, and renamed: a crash at any instant
    leaves either no `folder` or a whole one.

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
        write_tensors(unfinished / TENSORS, tensors)
        write_json(unfinished / STATE, skeleton)
        if folder.exists():
            _delete(folder)
        unfinished.rename(folder)
        sync_folder(folder.parent)
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
    """The state of a method, of its optimizers, and of the random numbers that its next step draws."""
    random = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(device)
    return {
        "method": method.state_dict(),
        "optimizers": {name: state_of(optimizer) for name, optimizer in optimizers.items()},
        "random": random,
    }


def restore(
    state: dict[str, Any], method: nn.Module, optimizers: Mapping[str, Optimizer], device: torch.device, *, data: str
) -> None:
    """Put back what `gather` gave.

    Raises:
        CheckpointError: it is the state of another method or network, or of a run on other `data`.
    """
    try:
        if state["data"] != data:
            raise ValueError(f"it is of a run on {state['data']}, this one has {data}.")
        method.load_state_dict(state["method"])
        for name, optimizer in optimizers.items():
            load_state(optimizer, state["optimizers"][name])
        torch.set_rng_state(state["random"]["cpu"])
        if device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], device)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit this run: {textwrap.shorten(str(error), 400)} Make the run with the "
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


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, with every tensor on the CPU.

    Raises:
        CheckpointError: it cannot be read, or is damaged.
    """
    try:
        skeleton = json.loads((folder / STATE).read_text())
        state = _put_together(skeleton, parse_tensors(folder / TENSORS, (folder / TENSORS).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, ImtransError) as error:
        raise CheckpointError(
            f"{folder} is damaged ({error}). Delete it, and resume from the checkpoint before it."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{folder} is damaged ({STATE} holds no dict). Delete it.")
    return state


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
