"""What a resumed run may change: its configuration is compared with the ``config.json`` of its folder."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imtrans.errors import CheckpointError, one_line

# What a run learns depends on these entries. A change of any other entry is recorded.
LEARNED = (
    "method", "settings", "networks", "data", "data_seed", "batch_size", "epochs", "decay_epochs", "lr_policy",
    "warmup_epochs", "lr", "betas", "ema",
    "precision", "seed",
)  # fmt: skip


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return the entries that a resumed run changes, as ``{name: [was, now]}``.

    An entry that `old` lacks is not compared: the folder may come from an older version. With the `lr_policy`
    ``"plateau"``, `val_data` and `validate_every` belong to `LEARNED` too.

    Args:
        old: content of the ``config.json`` of the run in `folder`.
        new: configuration of the run that resumes it.

    Raises:
        CheckpointError: an entry of `LEARNED` differs; the text names each difference. The exceptions:

            - `epochs` may grow, with other `decay_epochs`.
            - `batch_size` may change with the number of processes, if the batch of all processes has the same size.
    """
    old, new = {"processes": 1, **old}, {"processes": 1, **json.loads(json.dumps(new))}
    changes = {name: [old[name], new[name]] for name in new if name in old and not _same(old[name], new[name])}
    learned = LEARNED + (("val_data", "validate_every") if new.get("lr_policy") == "plateau" else ())
    refused = {name: pair for name, pair in changes.items() if name in learned}
    if "settings" not in old:
        refused.pop("data", None)  # an older version may have described the same data in other words
    if _is_less(*refused.get("epochs", (None, None))):
        refused.pop("epochs")
        refused.pop("decay_epochs", None)
    if _global_batch_size(old) == _global_batch_size(new):
        refused.pop("batch_size", None)
    if refused:
        named = [line for name, (was, now) in refused.items() for line in _differences(was, now, name)]
        raise CheckpointError(
            f"the run in {folder} has other arguments: {'; '.join(named)}. Resume it with the values in its "
            "config.json, or start another run with out=... (--out)."
        )
    return changes


def _same(was: Any, now: Any) -> bool:
    """Whether two entries are equal. Of nested ones, keys that both have are compared."""
    if isinstance(was, dict) and isinstance(now, dict):
        return all(_same(was[key], now[key]) for key in was.keys() & now.keys())
    return bool(_without_address(was) == _without_address(now))


def _differences(was: Any, now: Any, *path: str) -> Iterator[str]:
    """Describe the differences of two entries; a difference in a nested entry is named by the entry alone."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in now:
            if key in was and not _same(was[key], now[key]):
                yield from _differences(was[key], now[key], *path, key)
    else:
        name = ".".join(part for part in path if part not in ("settings", "networks", "arguments"))
        yield f"{name} was {one_line(repr(was), 200)}, now {one_line(repr(now), 200)}"


def _without_address(value: Any) -> Any:
    """Return `value` without the memory addresses that the ``repr`` of an object may hold."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", value) if isinstance(value, str) else value


def _is_less(was: Any, now: Any) -> bool:
    return isinstance(was, int) and isinstance(now, int) and was < now


def _global_batch_size(config: Mapping[str, Any]) -> Any:
    batch_size, processes = config.get("batch_size"), config["processes"]
    return batch_size * processes if isinstance(batch_size, int) and isinstance(processes, int) else batch_size
