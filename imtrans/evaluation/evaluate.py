"""Evaluation of generators: metrics of their outputs and the targets, over a data set."""

from collections.abc import Callable, Iterable, Sequence
from math import isnan
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from imtrans.checks import at_least
from imtrans.colours import join_lab
from imtrans.data.loader import Batch, batches, length_of
from imtrans.errors import DataError
from imtrans.evaluation.metrics import Scores
from imtrans.modes import MODES, running_as
from imtrans.runtime import fork_rng

Preview = Callable[[Batch], dict[str, Tensor]]


def evaluate(
    generator: nn.Module,
    data: Dataset[Batch],
    *,
    metrics: Sequence[str] = ("l1", "psnr", "ssim", "histogram"),
    mode: str | None = None,
    batch_size: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Translate the sources of a data set, and compare the results with the targets.

    Args:
        generator: maps ``(b, c, h, w)`` to ``(b, c', h, w)``. It runs on the device of its weights and is left
            unchanged. If its attribute `colours` is ``"lab"``, metrics are computed on RGB images, which the sources
            make with outputs and with targets.
        data: samples ``{"source": (c, h, w), "target": (c', h, w)}`` in [-1, 1], usually without augmentation.
        metrics: names from this list:

            - ``"l1"``, ``"psnr"``, ``"ssim"``: means over the images, scaled to [0, 1]; PSNR in dB, at most 100.
            - ``"histogram"``: ``histogram_l``, ``histogram_a`` and ``histogram_b``, the intersections of the colour
              histograms of all outputs and all targets; see `imtrans.evaluation.metrics.LabHistograms`.
            - ``"lpips"``, ``"fid"``: need torchvision or torch-fidelity, and network weights, which are not downloaded.
        mode: see `imtrans.modes.running_as`; None for the generator's `inference_mode`, or ``"eval"``.
        batch_size: the result depends on it in modes that normalise with the statistics of the batch.
        seed: of dropout in the mode ``"paper"``. The global random state is left unchanged.

    Returns:
        The values by name, ready for JSON.

    Raises:
        ArgumentError: an unknown metric or mode, a `batch_size` below 1, or a missing package or weights of a metric.
        DataError: an empty data set.
        ShapeError: outputs and targets differ in shape, or a metric does not support their shape.

    >>> from imtrans import ProceduralFacades
    >>> scores = evaluate(nn.Identity(), ProceduralFacades(2, size=16, augment=False), metrics=("l1", "histogram"))
    >>> sorted(scores)
    ['histogram_a', 'histogram_b', 'histogram_l', 'l1']
    """
    at_least("evaluate", "batch_size", batch_size, 1)
    if length_of(data) == 0:
        raise DataError("evaluate: the data set is empty. Give it samples.")
    used = getattr(generator, "inference_mode", "eval") if mode is None else mode
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))

    def preview(batch: Batch) -> dict[str, Tensor]:
        columns = {"fake": generator(batch["source"]), "target": batch["target"]}
        if getattr(generator, "colours", None) == "lab":
            return {name: join_lab(batch["source"], ab) for name, ab in columns.items()}
        return columns

    found = _scores(generator, preview, batches(data, batch_size), device, mode=used, metrics=metrics, seed=seed)
    return cast(dict[str, float], found)


def compare_modes(
    network: nn.Module,
    preview: Preview,
    data: Callable[[], Iterable[Batch]],
    device: torch.device,
    *,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any] | None:
    """Compare translations with their targets in each mode of `imtrans.modes.running_as`.

    Args:
        network: whose mode is set, a whole method as a rule.
        preview: from a batch to columns of pictures ``(b, c, h, w)`` in [-1, 1].
        data: makes the batches, once for each mode.
        device: that the batches are moved to.
        metrics: further ones of `evaluate`, beside L1 and PSNR.
        seed: of dropout, the same for each mode; the caller's random state is left alone.

    Returns:
        ``{mode: {"l1": ..., "psnr": ..., ...}, "best": mode}``, with the values of `evaluate`; the best has the lowest
        L1; one that is NaN is never the best of several. None if the columns lack ``"fake"`` or ``"target"``.
    """
    wanted = ("l1", "psnr", *metrics)
    results: dict[str, Any] = {}
    for mode in MODES:
        found = _scores(network, preview, data(), device, mode=mode, metrics=wanted, seed=seed)
        if found is None:
            return None
        results[mode] = found
    # NaN is neither more nor less than another number: `min` would keep one that comes first.
    return {**results, "best": min(MODES, key=lambda mode: (isnan(results[mode]["l1"]), results[mode]["l1"]))}


@torch.no_grad()
def _scores(
    network: nn.Module,
    preview: Preview,
    data: Iterable[Batch],
    device: torch.device,
    *,
    mode: str,
    metrics: Sequence[str],
    seed: int,
) -> dict[str, float] | None:
    scores = Scores(metrics, device=device)
    with fork_rng(device), running_as(network, mode):
        torch.manual_seed(seed)
        for batch in data:
            columns = preview({name: tensor.to(device) for name, tensor in batch.items()})
            if "fake" not in columns or "target" not in columns:
                return None
            scores.add(columns["fake"], columns["target"])
    return scores.result()
