"""How near translations come to their targets: by name, over a data set."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imtrans.checks import one_of
from imtrans.colours import rgb_to_lab
from imtrans.errors import ArgumentError, ShapeError

PSNR_MOST = 100.0  # dB, of an identical picture, so that means stay finite
SSIM_WINDOW = 11
NETWORKS = {  # of each metric that judges with one: its package, and where its weights are from
    "lpips": ("torchvision", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "fid": (
        "torch_fidelity",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
}


class Metric(Protocol):
    """What is told of each batch, and knows the value of all in the end."""

    def add(self, fake: Tensor, target: Tensor) -> None:
        """Take in a batch of pictures ``(b, c, h, w)`` in [-1, 1] and their targets."""

    def result(self) -> dict[str, float]:
        """The value, or the values, each under its name."""


def l1(fake: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of each picture, scaled to [0, 1].

    Shape: ``(b, c, h, w)`` in [-1, 1], twice -> ``(b,)``.

    >>> l1(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    tensor([0.5000])
    """
    return (fake.float() - target.float()).abs().mean(dim=(1, 2, 3)) / 2


def psnr(fake: Tensor, target: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each picture in dB, at most 100.

    Shape: ``(b, c, h, w)`` in [-1, 1], twice -> ``(b,)``.

    >>> psnr(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).round(decimals=2)
    tensor([6.0200])
    """
    squares = ((fake.float() - target.float()) / 2).square().mean(dim=(1, 2, 3))
    return -10 * squares.clamp_min(10 ** (-PSNR_MOST / 10)).log10()


def ssim(fake: Tensor, target: Tensor) -> Tensor:
    """The structural similarity of each picture, at most 1, by torchmetrics (the extra ``metrics``).

    Shape: ``(b, c, h, w)`` in [-1, 1], twice, at least 11 pixels high and wide -> ``(b,)``.

    Raises:
        ArgumentError: torchmetrics is not installed.
        ShapeError: a picture smaller than the window, 11 pixels.

    Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
    """
    if min(fake.shape[-2:]) < SSIM_WINDOW:
        height, width = fake.shape[-2:]
        raise ShapeError(
            f"ssim: compares windows of {SSIM_WINDOW} pixels, and the pictures are {height}x{width}. Use larger ones, "
            "or other metrics."
        )
    measure = _torchmetrics("ssim", "functional.image").structural_similarity_index_measure
    values: Tensor = measure(_unit(fake), _unit(target), data_range=1.0, reduction="none")
    return values


class Mean:
    """The mean over all pictures of a value that each of them has.

    Args:
        name: of the value.
        score: from two batches to a value for each picture, ``(b,)``.
    """

    def __init__(self, name: str, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.score = name, score
        self._values: list[Tensor] = []

    def add(self, fake: Tensor, target: Tensor) -> None:
        """See `Metric`."""
        self._values.append(self.score(fake, target))

    def result(self) -> dict[str, float]:
        """See `Metric`."""
        return {self.name: torch.cat(self._values).mean().item()}


class LabHistograms:
    """How far the colours of all pictures together are those of their targets.

    For L, a and b each: the histograms over every pixel of the set, in bins of one unit of Lab, and the share that they
    have in common. 1 means the same colours equally often, wherever they are.

    Source: Isola et al. 2017, section 4.2.2 and table 5.
    """

    _LOWEST = (0, -110, -110)
    _BINS = 220

    def __init__(self) -> None:
        self._counts: list[Tensor] = []

    def add(self, fake: Tensor, target: Tensor) -> None:
        """See `Metric`."""
        if fake.shape[1] != 3:
            raise ShapeError(
                f"evaluate: 'histogram' compares colours, red, green and blue, and the pictures have {fake.shape[1]} "
                "channels. Leave it out of metrics."
            )
        self._counts.append(torch.stack([self._histograms(fake), self._histograms(target)]))

    def _histograms(self, images: Tensor) -> Tensor:
        lab = rgb_to_lab(images.clamp(-1, 1))
        each = [
            (lab[:, k] - low).long().clamp(0, self._BINS - 1).flatten().bincount(minlength=self._BINS)
            for k, low in enumerate(self._LOWEST)
        ]
        return torch.stack(each)

    def result(self) -> dict[str, float]:
        """See `Metric`: ``histogram_l``, ``histogram_a`` and ``histogram_b``, in [0, 1]."""
        counts = torch.stack(self._counts).sum(dim=0).double()
        fake, target = counts / counts.sum(dim=-1, keepdim=True)
        shared = torch.minimum(fake, target).sum(dim=-1).tolist()
        return dict(zip(("histogram_l", "histogram_a", "histogram_b"), shared, strict=True))


class Lpips:
    """The distance of pictures from their targets in the features of AlexNet, by torchmetrics.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
    """

    def __init__(self, device: torch.device) -> None:
        _weights("lpips")
        made = _torchmetrics("lpips", "image.lpip").LearnedPerceptualImagePatchSimilarity(net_type="alex")
        self._metric = made.to(device)

    def add(self, fake: Tensor, target: Tensor) -> None:
        """See `Metric`."""
        self._metric.update(fake.float().clamp(-1, 1), target.float().clamp(-1, 1))

    def result(self) -> dict[str, float]:
        """See `Metric`."""
        return {"lpips": self._metric.compute().item()}


class Fid:
    """The Fréchet distance between all pictures and all targets in the features of Inception, by torchmetrics.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".
    """

    def __init__(self, device: torch.device) -> None:
        path = _weights("fid")
        module = _torchmetrics("fid", "image.fid")
        made = module.FrechetInceptionDistance(normalize=True, feature_extractor_weights_path=str(path))
        self._metric = made.to(device)
        self._pictures = 0

    def add(self, fake: Tensor, target: Tensor) -> None:
        """See `Metric`."""
        self._metric.update(_unit(fake), real=False)
        self._metric.update(_unit(target), real=True)
        self._pictures += len(fake)

    def result(self) -> dict[str, float]:
        """See `Metric`."""
        if self._pictures < 2:
            raise ArgumentError("evaluate: 'fid' compares sets of pictures, and there is one. Leave it out of metrics.")
        return {"fid": self._metric.compute().item()}


METRICS: dict[str, Callable[[torch.device], Metric]] = {
    "l1": lambda device: Mean("l1", l1),
    "psnr": lambda device: Mean("psnr", psnr),
    "ssim": lambda device: Mean("ssim", ssim),
    "histogram": lambda device: LabHistograms(),
    "lpips": Lpips,
    "fid": Fid,
}


class Scores:
    """Several metrics of one set of pictures.

    Args:
        metrics: names, of ``"l1" | "psnr" | "ssim" | "histogram" | "lpips" | "fid"``.
        device: where the pictures are.

    Raises:
        ArgumentError: an unknown name, or none; a metric whose package or weights are not there. In `add`, ShapeError
            where pictures and targets do not fit together or do not suit a metric.
    """

    def __init__(self, metrics: Sequence[str], *, device: torch.device) -> None:
        if isinstance(metrics, str) or not metrics:
            raise ArgumentError(f"evaluate: metrics must be a sequence of names of {sorted(METRICS)}, got {metrics!r}.")
        names = [one_of("evaluate", "each of metrics", name, METRICS) for name in metrics]
        self._metrics = [METRICS[name](device) for name in dict.fromkeys(names)]

    def add(self, fake: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        if fake.shape != target.shape or fake.ndim != 4:
            raise ShapeError(
                f"evaluate: pictures {tuple(fake.shape)} and targets {tuple(target.shape)} must be (b, c, h, w), and "
                "the same."
            )
        for metric in self._metrics:
            metric.add(fake, target)

    def result(self) -> dict[str, float]:
        """All values, by name."""
        return {name: value for metric in self._metrics for name, value in metric.result().items()}


def _unit(images: Tensor) -> Tensor:
    return (images.float().clamp(-1, 1) + 1) / 2


def _torchmetrics(metric: str, module: str) -> Any:
    try:
        return importlib.import_module(f"torchmetrics.{module}")
    except ImportError as error:
        raise ArgumentError(
            f"evaluate: {metric!r} is computed by torchmetrics, which is not installed. pip install 'imtrans[metrics]',"
            f" or leave {metric!r} out of metrics."
        ) from error


def _weights(metric: str) -> Path:
    """The file with the weights of the network that judges; it is never fetched."""
    package, url = NETWORKS[metric]
    if importlib.util.find_spec(package) is None:
        raise ArgumentError(
            f"evaluate: {metric!r} judges with a network of {package.replace('_', '-')}, which is not installed. "
            f"pip install {package.replace('_', '-')}, or leave {metric!r} out of metrics."
        )
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        raise ArgumentError(
            f"evaluate: {metric!r} judges with a network whose weights are not there, and they are not fetched behind "
            f"your back. Save {url} as {path}, or leave {metric!r} out of metrics."
        )
    return path
