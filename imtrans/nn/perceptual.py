"""The perceptual loss: distance of images in the features of a trained network (Johnson et al. 2016; pix2pixHD)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.checks import check_bool, in_range
from imtrans.errors import ArgumentError, ShapeError, counted, did_you_mean, join_names, short_repr

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG19_WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
VGG19_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
VGG19_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def vgg19() -> nn.Sequential:
    """Make the convolutional part of VGG19, with layers ``conv1_1``, ``relu1_1``, ... ``relu5_4``, ``pool5``.

    The weights are random; `imtrans.convert.load_vgg19` reads trained ones from a file. A layer has the index that it
    has in torchvision's ``features``.

    Shape: ``(b, 3, h, w) -> (b, 512, h / 32, w / 32)``, RGB images in [0, 1], normalised with the mean and standard
    deviation of ImageNet.

    Source: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks", table 1, column E.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for block, widths in enumerate(VGG19_WIDTHS, start=1):
        for number, width in enumerate(widths, start=1):
            layers[f"conv{block}_{number}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"relu{block}_{number}"] = nn.ReLU()
            channels = width
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def perceptual_loss(
    network: nn.Module,
    layers: Sequence[str] = VGG19_LAYERS,
    weights: Sequence[float] | None = None,
    *,
    normalize: bool = True,
) -> "PerceptualLoss":
    """Make the loss ``sum over layers (weight * L1(features of fake, features of target))``, a `PerceptualLoss`.

    The defaults are the layers and weights of pix2pixHD for `vgg19`.

    Args:
        network: a trained feature network; runs in evaluation mode and is not trained.
        layers: names of the layers of `network`, as in ``network.named_modules()``.
        weights: weight of each layer; None for the weights of pix2pixHD with its layers, otherwise 1.
        normalize: whether to scale images from [-1, 1] to the mean and standard deviation of ImageNet. The authors'
            code of pix2pixHD passes images in [-1, 1] as they are.

    Raises:
        ArgumentError: an unknown layer, a negative weight, or another number of weights than layers.

    Source: Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer"; Wang et al. 2018, section 3.5.

    >>> network = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU()))
    >>> loss = perceptual_loss(network, ["conv", "relu"], [1.0, 0.5])
    >>> loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    tensor(0.)
    """
    return PerceptualLoss(network, layers, weights, normalize=normalize)


class PerceptualLoss(nn.Module):
    """Weighted L1 distance of the features of two images; see `perceptual_loss` for the arguments.

    The feature network is moved with the loss, but is no part of its parameters and of its state dict: checkpoints do
    not grow by it, and no optimizer trains it.

    Shape: ``(b, c, h, w), (b, c, h, w)`` in [-1, 1] -> scalar. With `normalize`, ``c`` is 3, or 1 for grey images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, layers: Sequence[str], weights: Sequence[float] | None, *, normalize: bool
    ) -> None:
        super().__init__()
        owner = "perceptual_loss"
        if isinstance(layers, str) or not layers:
            raise ArgumentError(f"{owner}: layers must be names of layers, got {short_repr(layers)}.")
        if not isinstance(network, nn.Module):
            raise ArgumentError(f"{owner}: network must be an nn.Module, got {short_repr(network)}.")
        if weights is None:
            weights = VGG19_WEIGHTS if tuple(layers) == VGG19_LAYERS else [1.0] * len(layers)
        if len(weights) != len(layers):
            raise ArgumentError(
                f"{owner}: got {counted(len(weights), 'weight')} for {counted(len(layers), 'layer')}. Give one for "
                "each."
            )
        known = dict(network.named_modules())
        for name in layers:
            if name not in known:
                raise ArgumentError(
                    f"{owner}: {type(network).__name__} has no layer {name!r}.{did_you_mean(name, known)} "
                    "See network.named_modules() for the names."
                )
        self.layers = tuple(layers)
        self.weights = tuple(in_range(owner, "each of weights", weight, 0.0) for weight in weights)
        check_bool(owner, "normalize", normalize)
        self.normalize = normalize
        # In a tuple, where nn.Module does not look for parameters.
        self._network = (_until(network, self.layers).eval().requires_grad_(False),)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, fake: Tensor, target: Tensor) -> Tensor:
        if fake.shape != target.shape:
            raise ShapeError(
                f"perceptual_loss: fake {tuple(fake.shape)} and target {tuple(target.shape)} must have the same shape."
            )
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(fake)
        terms = [w * F.l1_loss(f, t) for w, f, t in zip(self.weights, found, wanted, strict=True)]
        return torch.stack(terms).sum()

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the output of each of `layers`, in fp32, for images ``(b, c, h, w)`` in [-1, 1]."""
        if self.normalize:
            if images.ndim != 4 or images.shape[1] not in (1, 3):
                raise ShapeError(
                    f"perceptual_loss: expects RGB or grey images (b, 3, h, w) or (b, 1, h, w), got a tensor of shape "
                    f"{tuple(images.shape)}. For other channels, use a network of your own and normalize=False."
                )
            images = ((images + 1) / 2 - self.mean) / self.std
        network, outputs, versions = self._network[0], dict[str, Any](), dict[str, int]()

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name], versions[name] = output, _version(output)

        with ExitStack() as hooks:
            for name, module in network.named_modules():
                if name in self.layers:
                    hooks.enter_context(module.register_forward_hook(partial(keep, name)))
            network(images)
        if bad := [name for name in self.layers if not isinstance(outputs.get(name), Tensor)]:
            raise ArgumentError(f"perceptual_loss: {join_names(bad)} did not run, or did not return a tensor.")
        if bad := [name for name in self.layers if _version(outputs[name]) != versions[name]]:
            raise ArgumentError(
                f"perceptual_loss: the output of {join_names(bad)} is changed in place by a later layer. Choose that "
                "layer, or build the network with inplace=False."
            )
        return [outputs[name].float() for name in self.layers]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PerceptualLoss":
        cast(Any, self._network[0])._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        terms = ", ".join(f"{name}: {weight:g}" for name, weight in zip(self.layers, self.weights, strict=True))
        return f"{type(self._network[0]).__name__}, {terms}"


def _version(output: Any) -> int:
    """Return the number of changes in place of a tensor, which PyTorch does not count in inference mode."""
    return 0 if not isinstance(output, Tensor) or output.is_inference() else output._version


def _until(network: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return `network` without the children of an nn.Sequential that none of `layers` needs."""
    if type(network) is not nn.Sequential or "" in layers:
        return network
    children = [name for name, _ in network.named_children()]
    return network[: 1 + max(children.index(name.partition(".")[0]) for name in layers)]
