"""What is seen of a method while it trains: translations of held-out pictures, judged and shown."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from imtrans.data.loader import Batch, BatchLoader, length_of
from imtrans.distributed.process_group import process_group
from imtrans.errors import TrainingError
from imtrans.evaluation.evaluate import compare_modes
from imtrans.evaluation.metrics import Scores
from imtrans.hub.pretrained import Pretrained
from imtrans.methods.base import Method, sample_columns
from imtrans.modes import running_as
from imtrans.runtime import fork_rng


class Validator:
    """Compares translations with their targets, and keeps what was found last.

    Args:
        method: see `imtrans.methods.base.Method`.
        data: held-out samples, or None.
        shown: samples to show where there is no `data`.
        feed: makes batches of them.
        batch_size: of the batches.
        metrics: beside L1 and PSNR; see `imtrans.evaluation.evaluate.evaluate`.
        seed: of dropout, so that two comparisons differ in the weights alone.

    Raises:
        ArgumentError: a metric that there is not.
    """

    def __init__(
        self,
        method: nn.Module,
        data: Dataset[Batch] | None,
        *,
        shown: Dataset[Batch] | None,
        feed: BatchLoader,
        batch_size: int,
        metrics: Sequence[str],
        seed: int,
    ) -> None:
        self.method, self.data, self.shown = method, data, shown
        self.feed, self.batch_size, self.seed = feed, batch_size, seed
        self.metrics = tuple(metrics)
        if metrics:  # what is missing is told before the training, not after its first epochs
            Scores(metrics, device=feed.device)
        self.found: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise if there is nothing in the data.

        Raises:
            TrainingError: it is empty.
        """
        if self.data is not None and length_of(self.data) == 0:
            raise TrainingError("Trainer: val_data is empty. Give pairs to validate on, or None.")

    def validate(self) -> dict[str, Any] | None:
        """Compare in each mode; the best becomes that of the networks that are saved. None without data or pairs."""
        if self.data is None:
            return None
        paired = {
            translation.name: translation.output_and_target
            for translation in cast(Method, self.method).translations()
            if getattr(self.data, "paired", translation.paired)
        }
        batches = partial(self.feed.batches, self.data, self.batch_size)
        settings: dict[str, Any] = {"metrics": self.metrics, "seed": self.seed}
        found = process_group().run_on_rank0(
            lambda: compare_modes(self.method, paired, batches, self.feed.device, **settings)
        )
        if found is not None:
            self.take(found)
        return found

    def take(self, found: dict[str, Any] | None) -> None:
        """Take up what an earlier `validate` found."""
        self.found = found
        self._set_mode()

    def _set_mode(self) -> str:
        """Give the networks that are saved the mode in which they are shown."""
        mode: str = "batch_stats" if self.found is None else self.found["best"]
        for translation in cast(Method, self.method).translations():
            if isinstance(translation.network, Pretrained):
                translation.network.inference_mode = mode
        return mode

    def columns(self) -> dict[str, Tensor] | None:
        """The pictures of a sample row, as the networks that are saved make them; None without data."""
        data = self.shown if self.data is None else self.data
        if length_of(data) == 0:
            return None
        device = self.feed.device
        with fork_rng(device), running_as(self.method, self._set_mode()):
            torch.manual_seed(self.seed)
            few = default_collate([cast(Any, data)[i] for i in range(min(4, length_of(data)))])
            batch = {name: tensor.to(device) for name, tensor in few.items()}
            return sample_columns(cast(Method, self.method), batch)
