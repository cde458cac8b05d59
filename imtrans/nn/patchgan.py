"""Discriminators that judge an image patch by patch."""

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from imtrans.checks import at_least, check_bool
from imtrans.errors import ArgumentError, ShapeError
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.blocks import ConvNormAct
from imtrans.nn.init import init_weights
from imtrans.nn.layers import Act, Norm, act_from, check_image, check_norm_values, has_shift, norm_from
from imtrans.receptive_fields.trace import receptive_field


class _SpectralNorm(parametrizations._SpectralNorm):
    """PyTorch's, but it looks for no singular value on the meta device: there is none, and looking takes seconds."""

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)


class _ConvDiscriminator(Pretrained):
    """A stack of convolutions from images to a map of logits."""

    in_channels: int
    layers: nn.Sequential

    @property
    def receptive_field(self) -> int:
        """Height and width in pixels of the patch that one logit judges."""
        size = receptive_field(self.layers, in_channels=self.in_channels).size
        assert isinstance(size, int)
        return size

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[-1]

    def features(self, images: Tensor) -> list[Tensor]:
        """What each layer makes of the images, after its activation; the logits are the last.

        Shape: ``(b, in_channels, h, w)`` -> for each layer ``(b, channels, h', w')``.
        """
        owner = type(self).__name__
        check_image(owner, images, self.in_channels)
        self.check_size(owner, images)
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps[1:]

    def check_size(self, owner: str, images: Tensor) -> None:
        """Raise, in the name of `owner`, if the images are too small for the layers.

        Raises:
            ShapeError: nothing is left of them, or a norm would see a single value.
        """
        batch, _, height, width = images.shape
        for layer in cast(Iterable[ConvNormAct], self.layers):
            height, width = layer.out_size(height), layer.out_size(width)
            if min(height, width) < 1:
                raise ShapeError(
                    f"{owner}: an image of {images.shape[-2]}x{images.shape[-1]} is too small for "
                    f"{len(self.layers)} layers: nothing is left of it. Use larger images or fewer layers."
                )
            check_norm_values(owner, layer.norm, batch, height, width)


class PatchDiscriminator(_ConvDiscriminator):
    """The PatchGAN of pix2pix: each logit judges one patch of the image, overlapping with its neighbours.

    `n_layers` 4x4 convolutions of stride 2, then two of stride 1; no norm on the first and the last, no sigmoid
    at the end. A conditional discriminator takes source and target concatenated.

    ========  ==  ==  ==  ===  ===  ===
    n_layers   1   2   3    4    5    6
    patch     16  34  70  142  286  574
    ========  ==  ==  ==  ===  ===  ===

    Shape: ``(b, in_channels, h, w) -> (b, 1, h', w')``, raw logits; 30x30 for 256x256 with three layers.

    Args:
        in_channels: of source and target together; 3 for an unconditional one.
        base_channels: width of the first layer; it doubles layer by layer, up to 8 times.
        n_layers: convolutions of stride 2.
        norm: ``"batch" | "instance" | "group" | "none"``, or a callable ``channels -> module``.
        act: a name (``"leaky_relu"`` has slope 0.2), or a callable ``() -> module``.
        padding: zeros around the image and around each map, 0 to 3 on each side; pix2pixHD has 2.
        spectral_norm: whether to divide each convolution's weights by their largest singular value
            (Miyato et al. 2018).
        bias: of the convolutions between the first and the last; if None, they have one where the norm has no
            shift of its own. The first and the last always have one.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, an image of another number of channels, or too small.

    Source: Isola et al. 2017, section 6.1.2.

    >>> import torch
    >>> discriminator = PatchDiscriminator(6, base_channels=8)
    >>> discriminator(torch.zeros(1, 6, 256, 256)).shape, discriminator.receptive_field
    (torch.Size([1, 1, 30, 30]), 70)
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        base_channels: int = 64,
        n_layers: int = 3,
        norm: str | Norm = "batch",
        act: str | Act = "leaky_relu",
        padding: int = 1,
        spectral_norm: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        owner = "PatchDiscriminator"
        self.in_channels = at_least(owner, "in_channels", in_channels, 1)
        at_least(owner, "base_channels", base_channels, 1)
        at_least(owner, "n_layers", n_layers, 1, 16)
        at_least(owner, "padding", padding, 0, 3)
        check_bool(owner, "spectral_norm", spectral_norm)
        check_bool(owner, "bias", bias, unset=True)
        make_norm, make_act = norm_from(owner, norm), act_from(owner, "act", act)
        widths = [in_channels, *(base_channels * min(2**i, 8) for i in range(n_layers + 1))]
        biased = not has_shift(make_norm(widths[-1])) if bias is None else bias
        layers = [
            ConvNormAct(
                widths[i],
                widths[i + 1],
                kernel_size=4,
                padding=padding,
                stride=2 if i < n_layers else 1,
                norm=nn.Identity if i == 0 else make_norm,
                act=make_act,
                bias=True if i == 0 else biased,
            )
            for i in range(n_layers + 1)
        ]
        layers.append(
            ConvNormAct(widths[-1], 1, kernel_size=4, padding=padding, norm=nn.Identity, act=nn.Identity, bias=True)
        )
        self.layers = nn.Sequential(*layers)
        init_weights(self)
        if spectral_norm:
            for layer in layers:
                parametrize.register_parametrization(layer.conv, "weight", _SpectralNorm(layer.conv.weight))

    @classmethod
    def for_receptive_field(cls, size: int, in_channels: int = 6, **kwargs: Any) -> "PatchDiscriminator":
        """Make the discriminator whose logits judge patches of `size` x `size` pixels.

        Args:
            size: 16, 34, 70, 142, 286, 574, ...
            in_channels: as for the class.
            **kwargs: further arguments of the class, `n_layers` excepted.

        Raises:
            ArgumentError: no stack has that receptive field; the message names the nearest that do.

        >>> PatchDiscriminator.for_receptive_field(34, base_channels=8).config["n_layers"]
        2
        """
        at_least(cls.__name__, "size", size, 1)
        n_layers, below, patch = 1, 1, _patch(1)
        while patch < size:
            n_layers, below, patch = n_layers + 1, patch, _patch(n_layers + 1)
        if patch == size:
            return cls(in_channels, n_layers=n_layers, **kwargs)
        pixel = " (a receptive field of 1 is PixelDiscriminator)" if below == 1 else ""
        raise ArgumentError(
            f"{cls.__name__}: no stack of its layers has a receptive field of {size}; the nearest are {below} "
            f"and {patch}{pixel}."
        )


def _patch(n_layers: int) -> int:
    """A 4x4 convolution of stride 1 adds 3 strides' worth of pixels; one of stride 2 also doubles the stride."""
    return 9 * 2**n_layers - 2


class PixelDiscriminator(_ConvDiscriminator):
    """The 1x1 PatchGAN of pix2pix: each logit judges one pixel by its colours alone.

    Shape: ``(b, in_channels, h, w) -> (b, 1, h, w)``, raw logits.

    Args:
        in_channels: of source and target together; 3 for an unconditional one.
        base_channels: width of the first layer; the second has twice as many.
        norm: ``"batch" | "instance" | "group" | "none"``, or a callable ``channels -> module``.
        act: a name (``"leaky_relu"`` has slope 0.2), or a callable ``() -> module``.
        bias: of the second and the last convolution; if None, they have one where the norm has no shift of its
            own. The first always has one.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, an image of another number of channels, or too small.

    Source: Isola et al. 2017, section 6.1.2.

    >>> PixelDiscriminator(6).receptive_field
    1
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        base_channels: int = 64,
        norm: str | Norm = "batch",
        act: str | Act = "leaky_relu",
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        owner = "PixelDiscriminator"
        self.in_channels = at_least(owner, "in_channels", in_channels, 1)
        wide = 2 * at_least(owner, "base_channels", base_channels, 1)
        check_bool(owner, "bias", bias, unset=True)
        make_norm, make_act = norm_from(owner, norm), act_from(owner, "act", act)
        biased = not has_shift(make_norm(wide)) if bias is None else bias
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, base_channels, kernel_size=1, norm=nn.Identity, act=make_act, bias=True),
            ConvNormAct(base_channels, wide, kernel_size=1, norm=make_norm, act=make_act, bias=biased),
            ConvNormAct(wide, 1, kernel_size=1, norm=nn.Identity, act=nn.Identity, bias=biased),
        )
        init_weights(self)
