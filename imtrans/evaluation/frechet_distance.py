"""Fréchet distance of the features of two sets of images, in layers of a network such as your own segmenter."""

from collections.abc import Iterable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from imtrans.errors import ArgumentError, ShapeError, counted, join_names
from imtrans.modes import running_as, unwrap
from imtrans.nn.unet import UNetGenerator

OWNER = "frechet_distance"


def frechet_distance(
    fakes: Tensor | Iterable[Tensor],
    reals: Tensor | Iterable[Tensor],
    network: nn.Module,
    *,
    layers: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Compare two sets of images by the features of a network that was trained on real ones, for example to segment.

    The features at one position of one image are one sample. The distance of a layer is the Fréchet distance between
    the normal distributions with the mean and covariance of each set's samples. It is measured in units of the
    network: compare only values of the same network and the same `reals`. Lower is better, and equal sets give 0.

    Args:
        fakes: images ``(b, c, h, w)`` in [-1, 1], or an iterable of such batches, which are compared as one set.
        reals: images of the other set, which may have another number of images.
        network: maps images to anything; runs in eval mode, on its device, and is left unchanged.
        layers: module names in `network`, as in ``network.named_modules()``, by the names of the distances. Their
            outputs are ``(b, c, ...)``. None for a `UNetGenerator`: ``texture``, the middle level of its encoder (in
            the 2015 U-Net, positions 4 pixels apart that see 32 pixels), and ``layout``, the innermost level.

    Returns:
        The distance of each layer, by name.

    Raises:
        ArgumentError: `layers` names no module or one that does not run, is missing for a network that is no
            `UNetGenerator`, or a set has fewer than two samples.
        ShapeError: the output of a layer is no tensor ``(b, c, ...)``.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium".

    >>> segmenter = UNetGenerator.preset("unet_2015", 3, 2, base_channels=2, depth=2)
    >>> images = torch.rand(4, 3, 16, 16)
    >>> sorted(frechet_distance(images, -images, segmenter))
    ['layout', 'texture']
    """
    metric = FrechetDistance(network, layers=layers)
    for images, moments in ((fakes, metric.fakes), (reals, metric.reals)):
        for batch in [images] if isinstance(images, Tensor) else images:
            metric.collect(batch, moments)
    return metric.result()


class FrechetDistance:
    """`frechet_distance` of images that come in batches, as a metric of `imtrans.evaluation.metrics`."""

    def __init__(self, network: nn.Module, *, layers: Mapping[str, str] | None = None) -> None:
        self.network, self.layers = network, _layers(network) if layers is None else dict(layers)
        modules = dict(network.named_modules())
        if unknown := [name for name in self.layers.values() if name not in modules]:
            raise ArgumentError(
                f"{OWNER}: layers names modules that the network lacks: {join_names(unknown)}. Use names from its "
                "named_modules()."
            )
        if not self.layers:
            raise ArgumentError(f"{OWNER}: layers is empty. Name at least one module.")
        self._modules = {name: modules[layer] for name, layer in self.layers.items()}
        self.fakes, self.reals = ({name: Moments() for name in self.layers} for _ in range(2))

    def add(self, fake: Tensor, target: Tensor) -> None:
        self.collect(fake, self.fakes)
        self.collect(target, self.reals)

    @torch.no_grad()
    def collect(self, images: Tensor, moments: Mapping[str, "Moments"]) -> None:
        """Add the features of a batch to the moments of each layer."""
        outputs: dict[str, object] = {}
        hooks = [
            module.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
            for name, module in self._modules.items()
        ]
        weight = next(self.network.parameters(), images)
        try:
            with running_as(self.network, "eval"):
                self.network(images.to(weight.device, weight.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        for name, layer in self.layers.items():
            features = outputs.get(name)
            if name not in outputs:
                raise ArgumentError(f"{OWNER}: the module {layer!r} does not run. Choose another for layers.")
            if not isinstance(features, Tensor) or features.ndim < 2:
                shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise ShapeError(
                    f"{OWNER}: the output of {layer!r} is {shape}. It must be a tensor (b, c, ...), for example of a "
                    "convolution."
                )
            moments[name].add(rearrange(features, "b c ... -> (b ...) c"))

    def result(self) -> dict[str, float]:
        return {name: distance_of_moments(self.fakes[name], self.reals[name]) for name in self.layers}


class Moments:
    """Mean and covariance of samples that come in batches, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._products = torch.zeros(0)

    def add(self, samples: Tensor) -> None:
        """Add samples ``(n, c)``."""
        samples = samples.detach().to("cpu" if samples.device.type == "mps" else samples.device, torch.float64)
        if self.count == 0:
            self._origin = samples[:1]  # near the mean, so that the difference below loses no digits
            self._sum, self._products = samples.new_zeros(samples.shape[1]), samples.new_zeros([samples.shape[1]] * 2)
        samples = samples - self._origin
        self.count += len(samples)
        self._sum += samples.sum(dim=0)
        self._products += samples.T @ samples

    def mean(self) -> Tensor:
        """Mean of each channel, ``(c,)``."""
        return self._origin[0] + self._sum / self.count

    def covariance(self) -> Tensor:
        """Unbiased covariance, ``(c, c)``."""
        return (self._products - torch.outer(self._sum, self._sum) / self.count) / (self.count - 1)


def distance_of_moments(one: Moments, other: Moments) -> float:
    """Return the Fréchet distance (squared 2-Wasserstein distance) of two normal distributions.

    It is NaN if a sample is not finite.

    Source: Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions".
    """
    for name, moments in (("fakes", one), ("reals", other)):
        if moments.count < 2:
            raise ArgumentError(
                f"{OWNER}: {name} has {counted(moments.count, 'sample')}, and at least 2 are needed. Add images."
            )
    means, covariances = (one.mean(), other.mean()), (one.covariance(), other.covariance())
    if not all(tensor.isfinite().all() for tensor in (*means, *covariances)):
        return float("nan")  # `eigh` would raise an error
    # The trace of sqrt(A B) is the one of sqrt(sqrt(A) B sqrt(A)), which is symmetric.
    values, vectors = torch.linalg.eigh(covariances[0])
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    distance = (means[0] - means[1]).square().sum() + sum(each.trace() for each in covariances) - 2 * mixed
    return max(distance.item(), 0.0)


def _layers(network: nn.Module) -> dict[str, str]:
    unet = unwrap(network)
    if not isinstance(unet, UNetGenerator):
        raise ArgumentError(
            f"{OWNER}: layers=None needs a UNetGenerator, got a {type(unet).__name__}. Name the layers, for example "
            "layers={'texture': 'layer1', 'layout': 'layer4'}."
        )
    names = {module: name for name, module in network.named_modules()}
    return {"texture": names[unet.encoder[(unet.depth - 1) // 2]], "layout": names[unet.encoder[-1]]}
