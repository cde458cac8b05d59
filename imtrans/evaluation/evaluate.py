"""Evaluation of generators: metrics of their outputs and the targets, over a data set."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isnan
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from imtrans.checks import at_least
from imtrans.colours import colour_space
from imtrans.data.loader import Batch, batches, check_columns, check_data, length_of, to_device
from imtrans.errors import DataError
from imtrans.evaluation.metrics import Scores, diversity
from imtrans.modes import DETERMINISTIC, MODES, running_as, unwrap
from imtrans.nn.noise import check_samples
from imtrans.runtime import fork_rng

Translate = Callable[[Batch], tuple[Tensor, Tensor] | None]
"""Maps a batch to outputs and targets ``(b, c, h, w)`` in [-1, 1]; to None if the batch has no targets."""


def evaluate(
    generator: nn.Module,
    data: Dataset[Batch],
    *,
    metrics: Sequence[str] = ("l1", "psnr", "ssim", "histogram"),
    mode: str | None = None,
    batch_size: int = 1,
    samples: int | None = None,
    seed: int = 0,
    segmenter: nn.Module | None = None,
    segmenter_layers: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Translate the sources of a data set, compare with the targets, and return the metrics by name, ready for JSON.

    Args:
        generator: maps ``(b, c, h, w)`` to ``(b, c', h, w)``; runs on its device, and is left unchanged. If its
            attribute `colours` is set, metrics are computed on RGB images.
        data: samples ``{"source": (c, h, w), "target": (c', h, w)}`` in [-1, 1], usually without augmentation.
        metrics: names from this list:

            - ``"l1"``, ``"psnr"``, ``"ssim"``: means over the images, scaled to [0, 1]; PSNR in dB, at most 100.
            - ``"ms_ssim"``, ``"gmsd"``, ``"ciede2000"``: means over the images, see `imtrans.evaluation.metrics`.
            - ``"histogram"``: ``histogram_l``, ``histogram_a`` and ``histogram_b``, the intersections of the colour
              histograms of all outputs and all targets; see `imtrans.evaluation.metrics.LabHistograms`.
            - ``"swd"``: sliced Wasserstein distance of patches, see `imtrans.sliced_wasserstein`.
            - ``"lpips"``, ``"fid"``: need torchvision or torch-fidelity, and network weights, which are not downloaded.
        mode: see `imtrans.modes.running_as`; None for the generator's `inference_mode`, or ``"eval"``.
        batch_size: the result depends on it in modes that normalise with the statistics of the batch.
        samples: number of outputs for each source, at least 2; adds ``"diversity"``, the mean L1 distance of each pair
            of outputs for one source, see `imtrans.evaluation.metrics.diversity`. The other metrics are of one output
            for each source, the same as without `samples`.
        seed: of the noise, and of dropout in the mode ``"paper"``. The global random state is left unchanged.
        segmenter: your own segmenter of real images; adds ``texture`` and ``layout``, see `imtrans.frechet_distance`.
        segmenter_layers: the `layers` of `imtrans.frechet_distance`, for a segmenter that is no `UNetGenerator`.

    Raises:
        ArgumentError: an unknown metric or mode, a `batch_size` below 1, `samples` below 2 or of a generator whose
            outputs are equal, or a missing package or weights of a metric.
        DataError: an empty data set, or samples without source and target.
        ShapeError: outputs and targets differ in shape, or a metric does not support their shape.

    >>> from imtrans import ProceduralFacades
    >>> scores = evaluate(nn.Identity(), ProceduralFacades(2, size=16, augment=False), metrics=("l1", "histogram"))
    >>> sorted(scores)
    ['histogram_a', 'histogram_b', 'histogram_l', 'l1']
    """
    at_least("evaluate", "batch_size", batch_size, 1)
    check_data("evaluate", "data", data)
    if length_of(data) == 0:
        raise DataError("evaluate: the data set is empty. Give it samples.")
    mode = getattr(unwrap(generator), "inference_mode", "eval") if mode is None else mode
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
    space = colour_space(unwrap(generator))
    if samples is not None:
        check_samples("evaluate", generator, mode, samples, minimum=2)
    distances: list[Tensor] = []

    def rgb(batch: Batch, image: Tensor) -> Tensor:
        return image if space is None else space.join(batch["source"], image)

    def translate(batch: Batch) -> tuple[Tensor, Tensor]:
        check_columns("evaluate", batch, ("source", "target"))
        fake = rgb(batch, generator(batch["source"]))
        if samples is not None:
            with fork_rng(device):  # the next batch draws as without samples
                others = [rgb(batch, generator(batch["source"])) for _ in range(samples - 1)]
            distances.append(diversity([fake, *others]))
        return fake, rgb(batch, batch["target"])

    scores = partial(Scores, metrics, device=device, segmenter=segmenter, segmenter_layers=segmenter_layers)
    result = _scores(generator, {"": translate}, batches(data, batch_size), device, mode, scores, seed)[""]
    return result if samples is None else {**result, "diversity": torch.cat(distances).mean().item()}


def compare_modes(
    network: nn.Module,
    translations: Mapping[str, Translate],
    data: Callable[[], Iterable[Batch]],
    device: torch.device,
    *,
    metrics: Sequence[str] = (),
    seed: int = 0,
    candidates: Sequence[str] = DETERMINISTIC,
    segmenter: nn.Module | None = None,
    segmenter_layers: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Compare translations with their targets in each mode of `imtrans.modes.running_as`, and choose the best.

    The best mode is the candidate with the lowest sliced Wasserstein distance. L1 decides between equal ones, and
    where there is no such distance, because an image has a side below 16 pixels. With several translations, their mean
    counts. NaN is never better than a number.

    Args:
        network: its mode is set; usually a whole method.
        translations: functions from a batch to outputs and targets, by name.
        data: makes the batches, once for each mode.
        device: device that the batches are moved to.
        metrics: further metrics of `evaluate`, besides L1, PSNR and the sliced Wasserstein distance.
        seed: seed of dropout, the same for each mode. The global random state is left unchanged.
        candidates: modes that the best one is chosen from. By default not ``"paper"``, whose outputs are random.
        segmenter: see `evaluate`.
        segmenter_layers: see `evaluate`.

    Returns:
        ``{mode: {"l1": ..., "psnr": ..., "swd": ..., ...}, "best": mode}``, with the values of `evaluate`. With several
        translations, each value's name begins with the translation's: ``"to_target_l1"``. None if no translation has
        targets.
    """
    optional = [name for name in ("swd",) if name not in metrics]
    scores = partial(
        Scores, ("l1", "psnr", "swd", *metrics),
        device=device, segmenter=segmenter, segmenter_layers=segmenter_layers, optional=optional,
    )  # fmt: skip
    results: dict[str, Any] = {}
    ranks: dict[str, list[tuple[bool, float]]] = {}
    for mode in MODES:
        found = _scores(network, translations, data(), device, mode, scores, seed)
        if not found:
            return None
        deciding = [name for name in ("swd", "l1") if all(name in values for values in found.values())]
        means = [mean(values[name] for values in found.values()) for name in deciding]
        # NaN is neither more nor less than another number: `min` would keep one that comes first.
        ranks[mode] = [(isnan(value), value) for value in means]
        results[mode] = {
            metric if len(translations) == 1 else f"{name}_{metric}": value
            for name, values in found.items()
            for metric, value in values.items()
        }
    return {**results, "best": min(candidates, key=lambda mode: ranks[mode])}


@torch.no_grad()
def _scores(
    network: nn.Module,
    translations: Mapping[str, Translate],
    data: Iterable[Batch],
    device: torch.device,
    mode: str,
    make_scores: Callable[[], Scores],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Score each translation; leave out those that have no targets."""
    scores = {name: make_scores() for name in translations}
    with fork_rng(device), running_as(network, mode):
        torch.manual_seed(seed)
        for batch in data:
            moved = to_device(batch, device)
            for name in list(scores):
                if (pair := translations[name](moved)) is None:
                    del scores[name]
                else:
                    scores[name].add(*pair)
            if not scores:
                break
    return {name: each.result() for name, each in scores.items()}
