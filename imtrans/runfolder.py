"""The folder that a training run leaves behind."""

import json
import platform
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from imtrans.errors import CheckpointError, TrainingError
from imtrans.files import write_atomic, write_json
from imtrans.gallery import write_gallery
from imtrans.images import sample_rows
from imtrans.pretrained import Pretrained
from imtrans.release import Provenance, release
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


def check_finite(method: nn.Module, step: int) -> None:
    """Raise if training has spoilt a parameter; the losses show it only a step later.

    Raises:
        TrainingError: a parameter holds values that are not finite.
    """
    for name, parameter in method.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingError(
                f"{name} holds values that are not finite after step {step}. The last checkpoint is from before. "
                "Lower the learning rate, or look at the data."
            )


class RunFolder:
    """Where a run writes its metrics, samples, gallery, checkpoints and networks; without a path, nowhere.

    Args:
        path: of the folder, or None.
        keep: how many checkpoints remain.
    """

    def __init__(self, path: str | PathLike[str] | None, *, keep: int) -> None:
        self.path = None if path is None else Path(path)
        self.keep = keep

    def begin(self, config: Mapping[str, Any]) -> None:
        """Start a new run.

        Raises:
            TrainingError: the folder already holds a run, or cannot be made.
        """
        if self.path is None:
            return
        if (self.path / "config.json").exists():
            saved = checkpoints(self.path / "checkpoints")
            first = "Continue it with resume=True (--resume)" if saved else "It has no checkpoint: delete it"
            raise TrainingError(
                f"{self.path} already holds a run. {first}, or give this one another folder with out=... (--out)."
            )
        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            write_json(self.path / "config.json", config)
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be written: {error.strerror}. Choose another folder.") from error

    def newest_state(self) -> dict[str, Any]:
        """The state of the newest checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        found = [] if self.path is None else checkpoints(self.path / "checkpoints")
        if self.path is None or not found:
            raise CheckpointError(
                f"there is no checkpoint in {self.path} to resume from. Start without resume, or check the folder."
            )
        return load_checkpoint(found[-1])

    def forget_after(self, step: int) -> None:
        """Drop what a run that was stopped had logged and sampled after its last checkpoint."""
        if self.path is None:
            return
        metrics = self.path / "metrics.jsonl"
        if metrics.exists():
            kept = [line for line in metrics.read_text(errors="replace").splitlines() if _is_until(line, step)]
            write_atomic(metrics, "".join(f"{line}\n" for line in kept).encode())
        for sample in (self.path / "samples").glob("*.png"):
            if sample.stem.isdigit() and int(sample.stem) > step:
                sample.unlink()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        if self.path is not None:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def sample(self, step: int, columns: Mapping[str, Tensor]) -> None:
        """Save rows of pictures, and bring the gallery up to date."""
        if self.path is not None:
            sample_rows(columns).save(self.path / "samples" / f"{step:06d}.png")
            write_gallery(self.path)

    def checkpoint(
        self, step: int, state: dict[str, Any], products: Mapping[str, Pretrained], provenance: Provenance
    ) -> None:
        """Save the whole state, and the networks as they are to be used."""
        if self.path is not None:
            save_checkpoint(self.path / "checkpoints" / f"{step:06d}", state, keep=self.keep)
            for name, network in products.items():
                release(self.path / name, network, provenance)

    def finish(self) -> None:
        """Bring the gallery up to date."""
        if self.path is not None:
            write_gallery(self.path)


def _is_until(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        # A line torn by a kill belongs to no step.
        return False
