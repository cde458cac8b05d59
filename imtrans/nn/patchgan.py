"""The PatchGAN and pixel discriminators of pix2pix (Isola et al. 2017)."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from imtrans.checks import at_least, check_bool
from imtrans.errors import ArgumentError, ShapeError
from imtrans.hub.pretrained import Pretrained
from imtrans.nn.blocks import ConvNormAct
from imtrans.nn.init import init_weights
from imtrans.nn.inputs import check_image, check_norm_values
from imtrans.nn.layers import Act, Norm, act_from, has_shift, norm_from
from imtrans.receptive_fields.trace import receptive_field


class _SpectralNorm(parametrizations._SpectralNorm):
    """PyTorch's spectral norm without the power iteration on the meta device, where it is slow and useless."""

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)


class _ConvDiscriminator(Pretrained):
    """Base class of discriminators that are a stack of convolutions."""

    in_channels: int
    layers: nn.Sequential

    @property
    def receptive_field(self) -> int:
        """Height and width in pixels of the patch that one logit judges."""
        return cast(int, receptive_field(self.layers, in_channels=self.in_channels).size)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[-1]

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the output of each layer, after its activation; the logits are the last.

        Shape: ``(b, in_channels, h, w)`` -> for each layer ``(b, channels, h', w')``.
        """
        check_image(type(self).__name__, images, self.in_channels, self, conditional=True)
        self.check_size(type(self).__name__, images)
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps[1:]

    def check_size(self, owner: str, images: Tensor) -> None:
        """Raise a ShapeError if a layer would have an empty output, or if a norm would see a single value."""
        batch, _, height, width = images.shape
        for layer in cast(Iterable[ConvNormAct], self.layers):
            height, width = layer.out_size(height), layer.out_size(width)
            if min(height, width) < 1:
                raise ShapeError(
                    f"{owner}: an image of {images.shape[-2]}x{images.shape[-1]} is too small for "
                    f"{len(self.layers)} layers. Use larger images or fewer layers."
                )
            check_norm_values(owner, layer.norm, batch, height, width)


class PatchDiscriminator(_ConvDiscriminator):
    """The PatchGAN of pix2pix: each logit judges one of many overlapping patches of the image.

    It has `n_layers` 4x4 convolutions of stride 2, then two of stride 1. The first and the last have no norm, and there
    is no sigmoid. A conditional discriminator takes source and target, concatenated along the channels.

    ========  ==  ==  ==  ===  ===  ===
    n_layers   1   2   3    4    5    6
    patch     16  34  70  142  286  574
    ========  ==  ==  ==  ===  ===  ===

    The preset ``"tensorflow/patchgan"`` is the discriminator of the pix2pix tutorial of TensorFlow.

    Shape: ``(b, in_channels, h, w) -> (b, 1, h', w')``, raw logits; 30x30 for 256x256 with three layers.

    Args:
        in_channels: number of channels of source and target together; 3 for an unconditional discriminator.
        base_channels: width of the first layer; each further layer doubles it, up to 8 times.
        n_layers: number of convolutions of stride 2.
        norm: this and `act` are as in `imtrans.UNetGenerator`.
        padding: zeros on each side of the image and of each map, 0 to 3; pix2pixHD has 2.
        spectral_norm: whether to apply spectral norm to each convolution (Miyato et al. 2018).
        bias: whether the convolutions between the first and the last have a bias; None: only if the norm has no
            learned shift. The last always has one.
        first_bias: whether the first convolution has a bias.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or an image that is too small.

    Source: Isola et al. 2017, section 6.1.2.

    >>> import torch
    >>> discriminator = PatchDiscriminator(6, base_channels=8)
    >>> discriminator(torch.zeros(1, 6, 256, 256)).shape, discriminator.receptive_field
    (torch.Size([1, 1, 30, 30]), 70)
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tensorflow/patchgan": {"norm": "keras_batch", "act": "leaky_relu_0.3", "first_bias": False}
    }

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
        first_bias: bool = True,
    ) -> None:
        super().__init__()
        owner = "PatchDiscriminator"
        self.in_channels = at_least(owner, "in_channels", in_channels, 1)
        at_least(owner, "base_channels", base_channels, 1)
        at_least(owner, "n_layers", n_layers, 1, 16)
        at_least(owner, "padding", padding, 0, 3)
        check_bool(owner, "spectral_norm", spectral_norm)
        check_bool(owner, "bias", bias, unset=True)
        check_bool(owner, "first_bias", first_bias)
        make_norm, make_act = norm_from(owner, norm), act_from(owner, "act", act)
        widths = [in_channels, *(base_channels * min(2**i, 8) for i in range(n_layers + 1))]
        biased = not has_shift(make_norm(widths[-1])) if bias is None else bias
        bare: dict[str, Any] = {"kernel_size": 4, "padding": padding, "norm": nn.Identity, "bias": True}
        layers = [ConvNormAct(in_channels, base_channels, stride=2, act=make_act, **{**bare, "bias": first_bias})]
        for i in range(1, n_layers + 1):
            normed = {**bare, "stride": 2 if i < n_layers else 1, "norm": make_norm, "bias": biased}
            layers.append(ConvNormAct(widths[i], widths[i + 1], act=make_act, **normed))
        layers.append(ConvNormAct(widths[-1], 1, act=nn.Identity, **bare))
        self.layers = nn.Sequential(*layers)
        init_weights(self)
        if spectral_norm:
            _add_spectral_norm(layers)

    @classmethod
    def for_receptive_field(cls, size: int, in_channels: int = 6, **kwargs: Any) -> "PatchDiscriminator":
        """Make the discriminator with a receptive field of `size` x `size` pixels.

        `size` is 16, 34, 70, 142, 286, 574, ... The other arguments are as for the class, without `n_layers`.

        Raises:
            ArgumentError: no `n_layers` has this receptive field; the message names the nearest ones.

        >>> PatchDiscriminator.for_receptive_field(34, base_channels=8).config["n_layers"]
        2
        """
        if at_least(cls.__name__, "size", size, 1) == 1:
            raise ArgumentError(
                f"{cls.__name__}: the smallest receptive field is 16. For single pixels, use "
                f"PixelDiscriminator({in_channels})."
            )
        n_layers, patch, below = 1, 16, "1 (a PixelDiscriminator)"
        while patch < size:
            n_layers, patch, below = n_layers + 1, 2 * patch + 2, str(patch)  # 16, 34, 70, 142, ...
        if patch == size:
            return cls(in_channels, n_layers=n_layers, **kwargs)
        raise ArgumentError(
            f"{cls.__name__}: no n_layers gives a receptive field of {size}. The nearest are {below} and {patch}."
        )


class PixelDiscriminator(_ConvDiscriminator):
    """The 1x1 PatchGAN of pix2pix: each logit judges a single pixel.

    Shape: ``(b, in_channels, h, w) -> (b, 1, h, w)``, raw logits.

    Args:
        in_channels: this, `norm`, `act` and `spectral_norm` are as in `imtrans.PatchDiscriminator`.
        base_channels: width of the first layer; the second has twice this width.
        bias: whether the second and the last convolution have a bias; None: only if the norm has no learned shift.
            The first always has one.

    Raises:
        ArgumentError: a value that is not allowed.
        ShapeError: in ``forward``, a wrong number of channels, or an image that is too small.

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
        spectral_norm: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        owner = "PixelDiscriminator"
        self.in_channels = at_least(owner, "in_channels", in_channels, 1)
        wide = 2 * at_least(owner, "base_channels", base_channels, 1)
        check_bool(owner, "spectral_norm", spectral_norm)
        check_bool(owner, "bias", bias, unset=True)
        make_norm, make_act = norm_from(owner, norm), act_from(owner, "act", act)
        biased = not has_shift(make_norm(wide)) if bias is None else bias
        layers = (
            ConvNormAct(in_channels, base_channels, kernel_size=1, norm=nn.Identity, act=make_act, bias=True),
            ConvNormAct(base_channels, wide, kernel_size=1, norm=make_norm, act=make_act, bias=biased),
            ConvNormAct(wide, 1, kernel_size=1, norm=nn.Identity, act=nn.Identity, bias=biased),
        )
        self.layers = nn.Sequential(*layers)
        init_weights(self)
        if spectral_norm:
            _add_spectral_norm(layers)


def _add_spectral_norm(layers: Iterable[ConvNormAct]) -> None:
    for layer in layers:
        parametrize.register_parametrization(layer.conv, "weight", _SpectralNorm(layer.conv.weight))
