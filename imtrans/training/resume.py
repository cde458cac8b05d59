"""What a resumed run may change: its configuration is compared with the ``config.json`` of its folder."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imtrans.errors import CheckpointError, counted, join_names, one_line, printable

# What a run learns depends on these entries. A change of any other entry is recorded.
LEARNED = (
    "method", "settings", "networks", "data", "data_settings", "data_seed", "batch_size", "epochs", "decay_epochs",
    "lr_policy", "warmup_epochs", "lr", "betas", "ema", "precision", "seed",
)  # fmt: skip


def data_config(data: object) -> dict[str, Any]:
    """Return the entries of ``config.json`` that let a run continue with fewer files; empty if `data` has none.

    Args:
        data: data set with the attributes `files`, the names of its files as a list, and `settings`, a text like its
            ``repr`` that does not depend on the files.
    """
    files, settings = getattr(data, "files", None), getattr(data, "settings", None)
    if not isinstance(settings, str) or not isinstance(files, list):
        return {}
    return {"data_settings": settings, "files": [str(file) for file in files]}


def have_files(*configs: Mapping[str, Any]) -> bool:
    """Whether each configuration lists the files of its data."""
    return all(isinstance(config.get("files"), list) for config in configs)


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return the entries that a resumed run changes, as ``{name: [was, now]}``.

    An entry that `old` lacks is not compared: the folder may come from an older version. With the `lr_policy`
    ``"plateau"``, `val_data` and `validate_every` belong to `LEARNED` too.

    Fewer of the same files are such a change, ``{"files": {"left_out": [...]}}``: see `data_config`.

    Args:
        old: content of the ``config.json`` of the run in `folder`.
        new: configuration of the run that resumes it.

    Raises:
        CheckpointError: an entry of `LEARNED` differs; the text names each difference. The exceptions:

            - `epochs` may grow, with other `decay_epochs`.
            - `batch_size` may change with the number of processes, if the batch of all processes has the same size.
            - `data` may have fewer of the same files, in the same order.
    """
    old, new = {"processes": 1, **old}, {"processes": 1, **json.loads(json.dumps(new))}
    changes: dict[str, Any] = {
        name: [old[name], new[name]]
        for name in new
        if name in old and name != "files" and not _same(old[name], new[name])
    }
    learned = LEARNED + (("val_data", "validate_every") if new.get("lr_policy") == "plateau" else ())
    refused = {name: pair for name, pair in changes.items() if name in learned}
    if "settings" not in old:
        refused.pop("data", None)  # an older version may have described the same data in other words
    if _is_less(*refused.get("epochs", (None, None))):
        refused.pop("epochs")
        refused.pop("decay_epochs", None)
    if _global_batch_size(old) == _global_batch_size(new):
        refused.pop("batch_size", None)
    other_files = []
    if have_files(old, new) and old["files"] != new["files"]:
        left_out = _left_out(old["files"], new["files"])
        if left_out is None:
            other_files.append(_file_difference(old["files"], new["files"]))
        else:
            changes["files"] = {"left_out": left_out}
            if "data_settings" not in refused:
                refused.pop("data", None)
    if "data" in refused:
        refused.pop("data_settings", None)
    if refused or other_files:
        named = [line for name, (was, now) in refused.items() for line in _differences(was, now, name)] + other_files
        raise CheckpointError(
            f"the run in {folder} has other arguments: {'; '.join(named)}. Resume it with the values in its "
            "config.json, or start another run with out=... (--out)."
        )
    return changes


def _same(was: Any, now: Any) -> bool:
    """Whether two entries are equal. Of nested ones, keys that both have are compared."""
    if isinstance(was, dict) and isinstance(now, dict):
        return all(_same(was[key], now[key]) for key in was.keys() & now.keys())
    return bool(_comparable(was) == _comparable(now))


def _differences(was: Any, now: Any, *path: str) -> Iterator[str]:
    """Describe the differences of two entries; a difference in a nested entry is named by the entry alone."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in now:
            if key in was and not _same(was[key], now[key]):
                yield from _differences(was[key], now[key], *path, key)
    else:
        name = ".".join(part for part in path if part not in ("settings", "networks", "arguments"))
        show = str if "arguments" in path else repr  # arguments of networks are saved as their reprs
        yield f"{name} was {one_line(show(was), 200)}, now {one_line(show(now), 200)}"


def _comparable(value: Any) -> Any:
    """Return a text without memory addresses, and with "1 pair" for "1 pairs", as older versions wrote it."""
    if not isinstance(value, str):
        return value
    return re.sub(r"\b(1 (?:bad |procedural )?\w+?)s\b", r"\1", re.sub(r" at 0x[0-9a-fA-F]+", "", value))


def _is_less(was: Any, now: Any) -> bool:
    return isinstance(was, int) and isinstance(now, int) and was < now


def _global_batch_size(config: Mapping[str, Any]) -> Any:
    batch_size, processes = config.get("batch_size"), config["processes"]
    return batch_size * processes if isinstance(batch_size, int) and isinstance(processes, int) else batch_size


def _left_out(was: Sequence[Any], now: Sequence[Any]) -> list[Any] | None:
    """Return the files of `was` that `now` lacks; None if `now` has others, or another order."""
    left_out, kept = [], 0
    for file in was:
        if kept < len(now) and file == now[kept]:
            kept += 1
        else:
            left_out.append(file)
    return left_out if kept == len(now) else None


def _file_difference(was: Sequence[Any], now: Sequence[Any]) -> str:
    before = set(map(str, was))
    if added := [printable(file) for file in now if file not in before]:
        verb = "is" if len(added) == 1 else "are"
        number = f"{len(added)} of {counted(len(now), 'file')}"
        return f"{number} {verb} not among the {len(was)} of the run: {join_names(added, 3)}"
    return "the files have another order"


def fewer_files_text(left_out: Sequence[str], files: int, *, step: int, epoch: int, total_steps: int) -> str:
    """Return the text for a run that continues with fewer `files` after `step` steps, in `epoch`, counted from 0.

    >>> fewer_files_text(["b.png"], 2, step=4, epoch=1, total_steps=7)
    'Resumed after step 4 without 1 of 3 files: b.png. Epoch 2 continues with the others; the run has 7 steps now.'
    """
    return (
        f"Resumed after step {step} without {len(left_out)} of {files + len(left_out)} files: "
        f"{join_names([printable(file) for file in left_out], 3)}. Epoch {epoch + 1} continues with the others; the "
        f"run has {counted(total_steps, 'step')} now."
    )
