"""Validation during training: metrics on held-out samples, and the sample grid."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from imtrans.data.loader import Batch, BatchLoader, collate, length_of, to_device
from imtrans.distributed.process_group import ProcessGroup
from imtrans.evaluation.evaluate import compare_modes
from imtrans.evaluation.metrics import Scores
from imtrans.hub.pretrained import Pretrained
from imtrans.methods.base import Method, Translation, sample_columns
from imtrans.modes import DETERMINISTIC, running_as, unwrap
from imtrans.runtime import fork_rng

SAMPLES = 4  # rows of a sample grid


class Validator:
    """Compares outputs with targets, chooses the `inference_mode` of the networks, and makes the sample images.

    Args:
        data: held-out samples; None to validate nothing.
        train_data: samples to show if there is no `data`.
        loader: makes batches of `data`.
        seed: seed of dropout, so that results differ by the weights alone.
        group: rank 0 computes the metrics.

    The other arguments are as for `imtrans.training.trainer.Trainer`.

    Raises:
        ArgumentError: an unknown metric, one whose package is missing, or a segmenter without the layers.
    """

    def __init__(
        self,
        method: nn.Module,
        data: Dataset[Batch] | None,
        train_data: Dataset[Batch] | None,
        loader: BatchLoader,
        *,
        batch_size: int,
        metrics: Sequence[str],
        seed: int,
        group: ProcessGroup,
        segmenter: nn.Module | None = None,
        segmenter_layers: Mapping[str, str] | None = None,
    ) -> None:
        self.method, self.data, self.samples = method, data, train_data if data is None else data
        self.loader, self.batch_size, self.seed, self.group = loader, batch_size, seed, group
        self.metrics = tuple(metrics)
        self.segmenter: dict[str, Any] = {"segmenter": segmenter, "segmenter_layers": segmenter_layers}
        # A missing package is an error now, not after the first epochs.
        Scores(metrics or ("l1",), device=loader.device, **self.segmenter)
        self.result: dict[str, Any] | None = None
        networks = [translation.network for translation in cast(Method, method).translations()]
        asked = any(getattr(each, "inference_mode", None) == "paper" for each in map(unwrap, networks))
        self.candidates = ("paper",) if asked else DETERMINISTIC

    @property
    def translations(self) -> list[Translation]:
        """The translations that `data` has pairs for."""
        every = [] if self.data is None else cast(Method, self.method).translations()
        return [each for each in every if getattr(self.data, "paired", each.paired)]

    def validate(self) -> dict[str, Any] | None:
        """Compare outputs with targets in each mode: see `imtrans.evaluation.evaluate.compare_modes`.

        The best mode, by the sliced Wasserstein distance, becomes the `inference_mode` of the networks. It is one of
        the two without dropout; networks whose `inference_mode` was ``"paper"`` before the run keep that. Returns None
        without data or without pairs.
        """
        if self.data is None:
            return None
        pairs = {translation.name: translation.output_and_target for translation in self.translations}
        batches = partial(self.loader.batches, self.data, self.batch_size)
        compare = partial(compare_modes, self.method, pairs, batches, self.loader.device)
        result = self.group.run_on_rank0(
            lambda: compare(metrics=self.metrics, seed=self.seed, candidates=self.candidates, **self.segmenter)
        )
        if result is not None:
            self.load(result)
        return result

    def load(self, result: dict[str, Any] | None) -> None:
        """Keep a result of `validate`, and give the networks its best mode."""
        self.result = result
        self.set_inference_mode()

    def mean_l1(self) -> float:
        """Return the mean L1 of the last result, over the translations, in the best mode."""
        scores = {} if self.result is None else self.result[self.result["best"]]
        return mean([value for name, value in scores.items() if name == "l1" or name.endswith("_l1")])

    def set_inference_mode(self) -> str:
        """Set the `inference_mode` of the networks to the best mode, and return it.

        Without a result it is ``"batch_stats"``, or ``"paper"`` for networks that had that mode before the run.
        """
        mode: str = self.candidates[-1] if self.result is None else self.result["best"]
        for translation in cast(Method, self.method).translations():
            if isinstance(network := unwrap(translation.network), Pretrained):
                network.inference_mode = mode
        return mode

    def sample_images(self) -> dict[str, Tensor] | None:
        """Return the columns of the sample grid, ``(b, c, h, w)`` each, in the best mode; None without data."""
        count = min(SAMPLES, length_of(self.samples))
        if count == 0:
            return None
        device = self.loader.device
        with fork_rng(device), running_as(self.method, self.set_inference_mode()):
            torch.manual_seed(self.seed)
            samples = [cast(Any, self.samples)[i] for i in range(count)]
            shapes = [{k: v.shape for k, v in sample.items() if isinstance(v, Tensor)} for sample in samples]
            # A grid has images of one size.
            batch = collate([s for s, shape in zip(samples, shapes, strict=True) if shape == shapes[0]])
            return sample_columns(cast(Method, self.method), to_device(batch, device))
