"""The folder that a training run leaves behind."""

import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.distributed.process_group import process_group
from imtrans.distributed.torchrun import restarted_run_id, torchrun_id
from imtrans.errors import CheckpointError, SavedModelError, TrainingError
from imtrans.files import write_atomic, write_json
from imtrans.hub.pretrained import Pretrained
from imtrans.methods.base import Translation
from imtrans.training.checkpoint import newest_state, save_checkpoint
from imtrans.training.lock import locked
from imtrans.training.publish import TrainingSummary, publish
from imtrans.training.report.gallery import write_gallery
from imtrans.training.report.image_grid import image_grid_png
from imtrans.version import __version__


def describe(method: nn.Module) -> dict[str, Any]:
    """What ``config.json`` says of a method: its class, its networks, and the versions it runs on."""
    return {
        "method": type(method).__name__,
        "networks": {
            name: {"class": type(network).__name__, "arguments": {k: repr(v) for k, v in network.config.items()}}
            for name, network in method.named_children()
            if isinstance(network, Pretrained)
        },
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class RunFolder:
    """Where a run writes its metrics, samples, gallery, checkpoints and networks; without a path, nowhere.

    Of several processes the first one writes and reads; the others wait for it, and are given what it has read.

    Args:
        path: of the folder, or None.
        keep: how many checkpoints remain.
    """

    def __init__(self, path: str | PathLike[str] | None, *, keep: int) -> None:
        self.path = None if path is None or not process_group().is_rank0 else Path(path)
        self.keep = keep

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[bool]:
        """Make the folder, or find the run in it, and keep other runs out of it inside the block.

        Gives whether the run in it goes on: with `resume`, and after torchrun has restarted the processes of a run.

        Raises:
            TrainingError: another run is going on in it, it cannot be written, or, without `resume`, holds a run.
            CheckpointError: with `resume`, it holds none.
        """
        with ExitStack() as stack:
            yield process_group().run_on_rank0(lambda: self._hold(stack, resume or self._is_of(restarted_run_id())))

    def _hold(self, stack: ExitStack, goes_on: bool) -> bool:
        if goes_on and not self._holds_run():
            raise CheckpointError(
                f"there is no run in {self.path} to resume. Start without resume, or check the folder."
            )
        if self.path is not None:
            with self._writing():
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path))
            if not goes_on and self._holds_run():
                raise TrainingError(
                    f"{self.path} already holds a run. Continue it with resume=True (--resume), or give this one "
                    "another folder with out=... (--out)."
                )
        return goes_on

    def _is_of(self, job: str | None) -> bool:
        """Whether `job`, see `imtrans.distributed.process_group.job`, has begun the run that the folder holds."""
        if self.path is None or job is None:
            return False
        try:
            return bool(json.loads((self.path / "config.json").read_text())["job"] == job)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _holds_run(self) -> bool:
        # Path.exists raises over a folder that may not be looked into, or a name that is too long.
        return self.path is not None and os.path.exists(self.path / "config.json")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk says inside the block into our error."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{error.filename or self.path} cannot be written: {error.strerror or error}. What was saved before is "
                "whole. Make room, or choose another folder, and resume."
            ) from error

    def begin(self, config: Mapping[str, Any]) -> None:
        """Start a new run.

        Raises:
            TrainingError: the folder cannot be written.
        """
        process_group().run_on_rank0(
            lambda: self._begin({**config, **({"job": torchrun_id()} if torchrun_id() else {})})
        )

    def _begin(self, config: Mapping[str, Any]) -> None:
        if self.path is not None:
            with self._writing():
                write_json(self.path / "config.json", config)

    def newest_state(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint that is whole; None if the run was stopped before it had one.

        Raises:
            CheckpointError: no checkpoint is whole, or all of them are gone.
        """
        return process_group().run_on_rank0(self._newest_state)

    def _newest_state(self) -> dict[str, Any] | None:
        if self.path is None:
            return None
        state = newest_state(self.path / "checkpoints")
        if state is None and (self.path / "metrics.jsonl").exists():
            # A run has its first checkpoint before its first step: to begin anew would write over what it has left.
            raise CheckpointError(
                f"{self.path} holds a run without a checkpoint: {self.path / 'checkpoints'} is gone, or may not be "
                "read. Put it back, or start in another folder."
            )
        return state

    def forget_after(self, step: int) -> None:
        """Drop what a run that was stopped had logged and sampled after its last checkpoint, and a torn last line."""
        if self.path is None:
            return
        metrics = self.path / "metrics.jsonl"
        with self._writing():
            if metrics.exists():
                kept = [line for line in metrics.read_text(errors="replace").splitlines() if _is_until(line, step)]
                write_atomic(metrics, "".join(f"{line}\n" for line in kept).encode())
            for sample in (self.path / "samples").glob("*.png"):
                if sample.stem.isdigit() and int(sample.stem) > step:
                    sample.unlink()
            # What a kill left of a file that was being written; some are as large as a network.
            for unfinished in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]:
                if unfinished.is_file():
                    unfinished.unlink()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        if self.path is not None:
            with self._writing(), (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def sample(self, step: int, columns: Mapping[str, Tensor]) -> None:
        """Save rows of pictures, and bring the gallery up to date."""
        if self.path is not None:
            with self._writing():
                (self.path / "samples").mkdir(exist_ok=True)
                write_atomic(self.path / "samples" / f"{step:06d}.png", image_grid_png(columns))
            self.show()

    def checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Save the whole state.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        process_group().run_on_rank0(lambda: self._checkpoint(step, state))

    def _checkpoint(self, step: int, state: dict[str, Any]) -> None:
        if self.path is not None:
            save_checkpoint(self.path / "checkpoints" / f"{step:06d}", state, keep=self.keep)

    def publish(self, translations: Sequence[Translation], provenance: TrainingSummary) -> None:
        """Save the network of each translation as it is to be used; a warning names one that cannot be described."""
        if self.path is not None:
            for translation in translations:
                network = translation.network
                if not isinstance(network, Pretrained):
                    continue
                try:
                    network.description()
                except SavedModelError as error:
                    # Not the end of a long run: nothing is lost.
                    warnings.warn(
                        f"{error} The checkpoints in {self.path} hold its weights all the same.", stacklevel=2
                    )
                else:
                    publish(self.path / translation.name, network, provenance, source=translation.source)

    def show(self) -> None:
        """Bring the gallery up to date."""
        if self.path is not None:
            with self._writing():
                write_gallery(self.path)


def _is_until(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        # A line torn by a kill belongs to no step.
        return False
