"""Metrics of generated images and their targets, by name, over a data set.

torchmetrics computes PSNR, SSIM, MS-SSIM, LPIPS and FID. Its import is slow, so it is imported when first used.
L1 of each image, GMSD, CIEDE2000 and Lab histograms are computed here: torchmetrics has none of them.
"""

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.colours import ciede2000, luminance, rgb_to_lab
from imtrans.errors import ArgumentError, ShapeError, counted
from imtrans.evaluation.frechet_distance import FrechetDistance
from imtrans.evaluation.sliced_wasserstein import SlicedWasserstein
from imtrans.evaluation.spectrum import Grid

MAX_PSNR = 100.0  # dB, for equal images, so that means stay finite
SSIM_WINDOW = 11
GMSD_CONSTANT = 170 / 255**2  # of the paper, for luminance in [0, 1]
LAB_BINS = 220
LAB_LOWEST = {"histogram_l": 0, "histogram_a": -110, "histogram_b": -110}
NETWORKS = {  # metrics computed with a pretrained network: its package and the address of its weights
    "lpips": ("torchvision", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "fid": (
        "torch_fidelity",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
}


class Metric(Protocol):
    """A metric: `add` a batch of images and targets ``(b, c, h, w)`` in [-1, 1]; `result` returns values by name."""

    def add(self, fake: Tensor, target: Tensor) -> None: ...
    def result(self) -> dict[str, float]: ...


def l1(fake: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each image pair, for images scaled to [0, 1].

    Shape: two tensors ``(b, c, h, w)`` in [-1, 1] -> ``(b,)``.
    """
    return (fake.float() - target.float()).abs().mean(dim=(1, 2, 3)) / 2


def psnr(fake: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image pair in dB, at most 100.

    Shape: two tensors ``(b, c, h, w)`` in [-1, 1] -> ``(b,)``.

    >>> psnr(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).round(decimals=2)
    tensor([6.0200])
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(fake.float(), target.float(), data_range=2.0, reduction="none", dim=(1, 2, 3))
    return values.clamp_max(MAX_PSNR)


def ssim(fake: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image pair, at most 1.

    Shape: two tensors ``(b, c, h, w)`` in [-1, 1] -> ``(b,)``.

    Raises:
        ShapeError: height or width is below 11 pixels.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check_size("ssim", fake, SSIM_WINDOW, "the size of its window")
    values = structural_similarity_index_measure(_unit(fake), _unit(target), data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def ms_ssim(fake: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image pair at five scales, at most 1.

    Shape: two tensors ``(b, c, h, w)`` in [-1, 1] -> ``(b,)``.

    Raises:
        ShapeError: height or width is below 176 pixels.

    Source: Wang et al. 2003, "Multi-Scale Structural Similarity for Image Quality Assessment".
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    _check_size("ms_ssim", fake, 16 * SSIM_WINDOW, "the size of its window at the coarsest scale")
    return multiscale_structural_similarity_index_measure(_unit(fake), _unit(target), data_range=1.0, reduction="none")


def gmsd(fake: Tensor, target: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation of each image pair: 0 for equal images, lower is better.

    It compares how steep the luminance is at each position, and returns the standard deviation of this similarity.

    Shape: two tensors ``(b, c, h, w)`` in [-1, 1] with 1 or 3 channels -> ``(b,)``.

    Raises:
        ShapeError: height or width is below 4 pixels, or images that are neither grey nor RGB.

    Source: Xue et al. 2014, "Gradient Magnitude Similarity Deviation"; the luminance is `imtrans.colours.luminance`.
    """
    _check_size("gmsd", fake, 4, "for a map of 2x2 values")
    if fake.shape[1] not in (1, 3):
        raise ShapeError(
            f"evaluate: 'gmsd' needs grey or RGB images, got images with {counted(fake.shape[1], 'channel')}. Remove "
            "it from metrics."
        )
    one, other = (_gradient(_unit(images)) for images in (fake, target))
    similarity = (2 * one * other + GMSD_CONSTANT) / (one.square() + other.square() + GMSD_CONSTANT)
    return similarity.std(dim=(-2, -1), correction=0)


def _gradient(images: Tensor) -> Tensor:
    """Return the gradient magnitude of the luminance at half the size, ``(b, h / 2, w / 2)``."""
    grey = luminance(images) if images.shape[1] == 3 else images
    prewitt = images.new_tensor([[1, 0, -1]] * 3) / 3
    kernels = torch.stack([prewitt, prewitt.T])[:, None]
    return torch.linalg.vector_norm(F.conv2d(F.avg_pool2d(grey, 2), kernels, padding=1), dim=1)


def colour_difference(fake: Tensor, target: Tensor) -> Tensor:
    """Mean colour difference of the pixels of each image pair, see `imtrans.colours.ciede2000`; lower is better.

    Shape: two RGB tensors ``(b, 3, h, w)`` in [-1, 1] -> ``(b,)``.

    Raises:
        ShapeError: the images are not RGB.
    """
    _check_rgb("ciede2000", fake)
    lab, other = (rgb_to_lab(images.clamp(-1, 1)) for images in (fake, target))
    return ciede2000(lab, other).mean(dim=(-2, -1))


def diversity(samples: Sequence[Tensor]) -> Tensor:
    """Mean L1 distance of each pair of `samples` of the same sources, for images scaled to [0, 1]; 0 if all are equal.

    Shape: two or more tensors ``(b, c, h, w)`` in [-1, 1] -> ``(b,)``.

    >>> diversity([torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)])
    tensor([0.3333])
    """
    return torch.stack([l1(one, other) for one, other in combinations(samples, 2)]).mean(dim=0)


class Mean:
    """Mean over all images of `score`, which maps images and targets to one value for each image, ``(b,)``."""

    def __init__(self, name: str, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.score = name, score
        self._values: list[Tensor] = []

    def add(self, fake: Tensor, target: Tensor) -> None:
        self._values.append(self.score(fake, target))

    def result(self) -> dict[str, float]:
        return {self.name: torch.cat(self._values).mean().item()}


class LabHistograms:
    """Intersection of the colour histograms of all images and all targets, for L, a and b, each in [0, 1].

    A histogram counts the pixels of the whole set in bins of one Lab unit. The result 1 means that each colour is
    equally frequent in both sets, at any position. `add` raises ShapeError if the images are not RGB.

    Source: Isola et al. 2017, section 4.2.2 and table 5.
    """

    def __init__(self) -> None:
        self._counts: list[Tensor] = []

    def add(self, fake: Tensor, target: Tensor) -> None:
        _check_rgb("histogram", fake)
        self._counts.append(torch.stack([self._histograms(fake), self._histograms(target)]))

    def _histograms(self, images: Tensor) -> Tensor:
        lab = rgb_to_lab(images.clamp(-1, 1))
        bins = [(lab[:, k] - low).long().clamp(0, LAB_BINS - 1) for k, low in enumerate(LAB_LOWEST.values())]
        return torch.stack([index.flatten().bincount(minlength=LAB_BINS) for index in bins])

    def result(self) -> dict[str, float]:
        counts = torch.stack(self._counts).sum(dim=0).double()
        fake, target = counts / counts.sum(dim=-1, keepdim=True)
        return dict(zip(LAB_LOWEST, torch.minimum(fake, target).sum(dim=-1).tolist(), strict=True))


class Lpips:
    """Distance of images and targets in the features of AlexNet.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
    """

    def __init__(self, device: torch.device) -> None:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        _weights("lpips")
        self._metric = LearnedPerceptualImagePatchSimilarity(net_type="alex").to(device)

    def add(self, fake: Tensor, target: Tensor) -> None:
        self._metric.update(fake.float().clamp(-1, 1), target.float().clamp(-1, 1))

    def result(self) -> dict[str, float]:
        return {"lpips": self._metric.compute().item()}


class Fid:
    """Fréchet distance of all images and all targets in the features of Inception.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
    """

    def __init__(self, device: torch.device) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        weights = str(_weights("fid"))
        self._metric = FrechetInceptionDistance(normalize=True, feature_extractor_weights_path=weights).to(device)

    def add(self, fake: Tensor, target: Tensor) -> None:
        self._metric.update(_unit(fake), real=False)
        self._metric.update(_unit(target), real=True)

    def result(self) -> dict[str, float]:
        if self._metric.real_features_num_samples < 2:
            raise ArgumentError("evaluate: 'fid' needs at least 2 images, got 1. Remove it from metrics.")
        return {"fid": self._metric.compute().item()}


METRICS: dict[str, Callable[[torch.device], Metric]] = {
    "l1": lambda device: Mean("l1", l1),
    "psnr": lambda device: Mean("psnr", psnr),
    "ssim": lambda device: Mean("ssim", ssim),
    "ms_ssim": lambda device: Mean("ms_ssim", ms_ssim),
    "gmsd": lambda device: Mean("gmsd", gmsd),
    "ciede2000": lambda device: Mean("ciede2000", colour_difference),
    "histogram": lambda device: LabHistograms(),
    "grid": lambda device: Grid(),
    "swd": lambda device: SlicedWasserstein(),
    "lpips": Lpips,
    "fid": Fid,
}


class Scores:
    """Several metrics, keys of `METRICS`, over one set of images on `device`.

    Args:
        metrics: the names.
        device: device of the images.
        segmenter: adds the distances of `imtrans.evaluation.frechet_distance`, in `segmenter_layers` of this network.
        segmenter_layers: see `imtrans.evaluation.frechet_distance`.
        optional: metrics that are left out if they do not support the shape of the images.

    Raises:
        ArgumentError: `metrics` is empty or has an unknown name, or the package or weights of a metric are missing.
            `add` raises ShapeError if the shapes of images and targets differ, or a metric does not support them.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        device: torch.device,
        segmenter: nn.Module | None = None,
        segmenter_layers: Mapping[str, str] | None = None,
        optional: Collection[str] = (),
    ) -> None:
        if isinstance(metrics, str) or not metrics:
            raise ArgumentError(
                f"evaluate: metrics must be a non-empty sequence of names from {sorted(METRICS)}, got {metrics!r}."
            )
        names = [one_of("evaluate", f"metrics[{i}]", name, METRICS) for i, name in enumerate(metrics)]
        self._metrics = {name: METRICS[name](device) for name in dict.fromkeys(names)}
        if segmenter is not None:
            self._metrics["segmenter"] = FrechetDistance(segmenter, layers=segmenter_layers)
        self._optional = optional

    def add(self, fake: Tensor, target: Tensor) -> None:
        if fake.shape != target.shape or fake.ndim != 4:
            raise ShapeError(
                f"evaluate: images and targets must have the same shape (b, c, h, w), got {tuple(fake.shape)} and "
                f"{tuple(target.shape)}."
            )
        for name, metric in list(self._metrics.items()):
            try:
                metric.add(fake, target)
            except ShapeError:
                if name not in self._optional:
                    raise
                del self._metrics[name]

    def result(self) -> dict[str, float]:
        return {name: value for metric in self._metrics.values() for name, value in metric.result().items()}


def _check_size(metric: str, images: Tensor, smallest: int, reason: str) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise ShapeError(
            f"{metric}: height and width must be at least {smallest}, {reason}, got {height}x{width}. Use larger "
            "images, or other metrics."
        )


def _check_rgb(metric: str, images: Tensor) -> None:
    if images.shape[1] != 3:
        raise ShapeError(
            f"evaluate: {metric!r} needs RGB images, got images with {counted(images.shape[1], 'channel')}. "
            "Remove it from metrics."
        )


def _unit(images: Tensor) -> Tensor:
    return (images.float().clamp(-1, 1) + 1) / 2


def _weights(metric: str) -> Path:
    """Return the file with the network weights of `metric`. It is never downloaded."""
    module, url = NETWORKS[metric]
    package = module.replace("_", "-")
    if importlib.util.find_spec(module) is None:
        raise ArgumentError(
            f"evaluate: {metric!r} needs {package}, which is not installed. pip install {package}, or remove "
            f"{metric!r} from metrics."
        )
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        raise ArgumentError(
            f"evaluate: {metric!r} needs network weights that are not on this machine; imtrans does not download them. "
            f"Save {url} as {path}, or remove {metric!r} from metrics."
        )
    return path
