"""Folder of a training run: configuration, metrics, samples, gallery, checkpoints, networks."""

import json
import os
import platform
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.distributed.torchrun import restarted_run_id, torchrun_id
from imtrans.errors import CheckpointError, SavedModelError, TrainingError
from imtrans.files import json_bytes, read_file, write_atomic
from imtrans.hub.foreign import describe
from imtrans.hub.pretrained import Pretrained
from imtrans.methods.base import Translation
from imtrans.modes import unwrap
from imtrans.training.checkpoint import newest_state, save_checkpoint
from imtrans.training.publish import TrainingSummary, publish
from imtrans.training.report.gallery import write_gallery
from imtrans.training.report.image_grid import image_grid_png
from imtrans.training.resume import compare_configs, have_files
from imtrans.version import __version__

LOCK, LOCK_OWNER = ".lock", ".lock-owner"  # two files: Windows lets no other process read a locked one


def method_config(method: nn.Module) -> dict[str, Any]:
    """Return the entries of ``config.json`` about a method: class, settings, networks, versions."""
    settings = getattr(method, "settings", dict)
    return {
        "method": type(method).__name__,
        "settings": cast(Any, settings)(),
        "networks": {
            name: {"class": type(network).__name__, "arguments": {k: repr(v) for k, v in network.config.items()}}
            for name, child in method.named_children()
            if isinstance(network := unwrap(child), Pretrained)
        },
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class NoRunFolder:
    """Run folder of ``out=None``, and of all ranks but 0: writes nothing, and holds no run."""

    path = None

    @contextmanager
    def locked(self, *, resume: bool) -> Iterator[bool]:
        """Return False; raise a CheckpointError with `resume`."""
        if resume:
            raise _nothing_to_resume(None)
        yield False

    def check_resumed(self, config: Mapping[str, Any]) -> bool:
        """Return False."""
        return False

    def resume(self, config: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Return no changes."""
        return {}

    def _ignore(self, *arguments: Any) -> None:
        """Do nothing."""

    newest_state = start = truncate = log = save_sample = save_checkpoint = save_networks = _ignore
    check_networks = write_gallery = _ignore


class RunFolder:
    """Folder of a training run. Methods raise a TrainingError if it cannot be written.

    Args:
        path: path of the folder.
        keep: number of checkpoints to keep.
    """

    def __init__(self, path: str | PathLike[str], *, keep: int) -> None:
        self.path, self.keep = Path(path), keep

    @contextmanager
    def locked(self, *, resume: bool) -> Iterator[bool]:
        """Context manager that creates the folder and keeps other runs out. Returns whether its run continues.

        A run continues with `resume`, and after torchrun restarted its processes.

        Raises:
            TrainingError: another run is active in the folder, without `resume` it holds a run, or it is a file.
            CheckpointError: with `resume`, it holds no run.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise TrainingError(f"{self.path} is a file. Give the run a folder with out=... (--out).")
        resume = resume or self._belongs_to(restarted_run_id())
        if resume and not self._holds_run():
            raise _nothing_to_resume(self.path)
        with self._disk_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOCK).touch()
        with _lock(self.path):
            with self._disk_errors():
                (self.path / LOCK_OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            if not resume and self._holds_run():
                raise TrainingError(
                    f"{self.path} already holds a run. Continue it with resume=True (--resume), or give this one "
                    "another folder with out=... (--out)."
                )
            yield resume

    def start(self, config: Mapping[str, Any]) -> None:
        """Write the configuration of a new run."""
        job = {"job": torchrun_id()} if torchrun_id() else {}
        with self._disk_errors():
            write_atomic(self.path / "config.json", json_bytes({**config, **job}))

    def check_resumed(self, config: Mapping[str, Any]) -> bool:
        """Compare `config` with ``config.json``: see `imtrans.training.resume.compare_configs`.

        Returns whether that included the lists of files. A ``config.json`` that cannot be read is not compared, with a
        warning.
        """
        if not (old := self._config()):
            path = self.path / "config.json"
            warnings.warn(f"{path} cannot be read. This run is not compared with it, and writes it anew.", stacklevel=2)
        compare_configs(old, config, folder=self.path)
        return have_files(old, config)

    def resume(self, config: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Update ``config.json`` to `config`. Records the changes at `step`, and returns them."""
        old = self._config()
        changes = compare_configs(old, config, folder=self.path)
        kept = {name: value for name, value in old.items() if name != "processes"}  # absent for one process
        if changes:
            kept["changes"] = [*kept.get("changes", []), {"step": step, **changes}]
        new = json.loads(json_bytes({**kept, **config}))
        if new != old:
            with self._disk_errors():
                write_atomic(self.path / "config.json", json_bytes(new))
        return changes

    def newest_state(self) -> dict[str, Any] | None:
        """Load the newest complete checkpoint; None if the run stopped before its first one.

        Raises:
            CheckpointError: all checkpoints are damaged or missing.
        """
        state = newest_state(self.path / "checkpoints")
        if state is None and (self.path / "metrics.jsonl").exists():
            # The first checkpoint precedes the first step. A new start would overwrite the results of the run.
            raise CheckpointError(
                f"{self.path} holds a run without a checkpoint: {self.path / 'checkpoints'} is missing or cannot be "
                "read. Restore it, or start in another folder."
            )
        return state

    def truncate(self, step: int) -> None:
        """Delete log lines and samples after `step`, and unfinished files."""
        metrics = self.path / "metrics.jsonl"
        with self._disk_errors():
            if metrics.exists():
                kept = [line for line in metrics.read_text(errors="replace").splitlines() if _is_until(line, step)]
                write_atomic(metrics, "".join(f"{line}\n" for line in kept).encode())
            for sample in (self.path / "samples").glob("*.png"):
                if sample.stem.isdigit() and int(sample.stem) > step:
                    sample.unlink()
            for unfinished in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]:
                if unfinished.is_file():
                    unfinished.unlink()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        with self._disk_errors(), (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save_sample(self, step: int, columns: Mapping[str, Tensor]) -> None:
        """Save a sample grid, and update the gallery. Each column: ``(b, c, h, w)``."""
        with self._disk_errors():
            (self.path / "samples").mkdir(exist_ok=True)
            write_atomic(self.path / "samples" / f"{step:06d}.png", image_grid_png(columns))
        self.write_gallery()

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Save a checkpoint; see `imtrans.training.checkpoint.save_checkpoint`."""
        save_checkpoint(self.path / "checkpoints" / f"{step:06d}", state, keep=self.keep)

    def check_networks(self, translations: Sequence[Translation]) -> None:
        """Warn of each network that cannot be saved, or that imtrans cannot load. It is no reason to end a run."""
        for translation in translations:
            network = unwrap(translation.network)
            if self._can_save(network) and not isinstance(network, Pretrained):
                warnings.warn(
                    f"{translation.name} is a {type(network).__name__}, not a network of imtrans: load_pretrained "
                    f"cannot build it. {self.path / translation.name} will have its weights, and the code that loads "
                    "them in config.json. Keep the arguments that it was built with.",
                    stacklevel=2,
                )

    def save_networks(self, translations: Sequence[Translation], summary: TrainingSummary) -> None:
        """Save the network of each translation; warn of one that cannot be saved."""
        for translation in translations:
            if self._can_save(translation.network):
                publish(self.path / translation.name, translation.network, summary, source=translation.source)

    def _can_save(self, network: nn.Module) -> bool:
        try:
            describe(network)
        except SavedModelError as error:
            warnings.warn(f"{error} The checkpoints in {self.path} still hold its weights.", stacklevel=3)
            return False
        return True

    def write_gallery(self) -> None:
        """Update the gallery."""
        with self._disk_errors():
            write_gallery(self.path)

    def _holds_run(self) -> bool:
        # Path.exists raises for a folder without permission, and for a name that is too long.
        return os.path.exists(self.path / "config.json")

    def _belongs_to(self, job: str | None) -> bool:
        """Whether the torchrun job `job` started the run in the folder."""
        return job is not None and self._config().get("job") == job

    def _config(self) -> dict[str, Any]:
        """Read ``config.json``; return an empty dict if it cannot be read."""
        with suppress(OSError, ValueError, RecursionError):
            config = json.loads(read_file(self.path / "config.json"))
            return config if isinstance(config, dict) else {}
        return {}

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{error.filename or self.path} cannot be written: {error.strerror or error}. Everything saved before "
                "is intact. Free some space or choose another folder, and resume."
            ) from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Context manager that holds the lock of a folder. It ends with its process; a leftover file means nothing."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0.1, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        owner = "another process"
        with suppress(OSError):
            owner = (folder / LOCK_OWNER).read_text(errors="replace")[:200].strip() or owner
        raise TrainingError(
            f"{folder} is in use by {owner}. Wait for its end or stop it, or give this run another folder with "
            "out=... (--out)."
        ) from None
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}). Make sure that no second run uses it.", stacklevel=4
        )
    try:
        yield
    finally:
        # While the lock is held: the file of the next run must stay.
        for name in (LOCK_OWNER, LOCK):
            with suppress(OSError):  # the disk may have become read-only
                (folder / name).unlink()
        lock.release()


def _nothing_to_resume(path: Path | None) -> CheckpointError:
    return CheckpointError(f"there is no run in {path} to resume. Start without resume, or check the folder.")


def _is_until(line: str, step: int) -> bool:
    """Whether a line of ``metrics.jsonl`` belongs to a step up to `step`; False for a truncated line."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
