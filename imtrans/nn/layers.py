"""Layers by name or by callable: norms, activations, resampling; and what an image must be to enter a network."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.errors import ArgumentError, ShapeError

Norm = Callable[[int], nn.Module]
Act = Callable[[], nn.Module]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
DOWNSAMPLE = ("conv", "pool", "blur")
UPSAMPLE = ("deconv", "nearest", "bilinear", "shuffle")


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm (Wu & He 2018) with 32 groups, or fewer so that a group has at least two channels.

    A group of one channel would normalise a 1x1 map to zero.
    """
    return nn.GroupNorm(math.gcd(32, channels // 2) if channels % 2 == 0 else 1, channels)


NORMS: dict[str, Norm] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "group": group_norm,
    "none": nn.Identity,
}

ACTS: dict[str, Act] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


def norm_from(owner: str, norm: str | Norm) -> Norm:
    """Return the callable ``channels -> module`` that `norm` names or is.

    Raises:
        ArgumentError: a name that is not one of `NORMS`, or neither a name nor a callable.
    """
    return norm if callable(norm) else NORMS[one_of(owner, "norm", norm, NORMS)]


def act_from(owner: str, argument: str, act: str | Act) -> Act:
    """Return the callable ``() -> module`` that `act` names or is.

    Raises:
        ArgumentError: a name that is not one of `ACTS`, or neither a name nor a callable.
    """
    return act if callable(act) else ACTS[one_of(owner, argument, act, ACTS)]


def has_shift(norm: nn.Module) -> bool:
    """Whether `norm` adds a learned shift, which makes the bias of the convolution before it redundant."""
    return getattr(norm, "bias", None) is not None


class BlurPool(nn.Module):
    """Halve an image after a 4x4 binomial low-pass, so that a shift of the input barely changes the output.

    Shape: ``(b, channels, h, w) -> (b, channels, floor(h / 2), floor(w / 2))``.
    Source: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again".
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", torch.empty(channels, 1, 4, 4))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the kernel anew, after its memory was moved off the meta device."""
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=self.kernel.device) / 8
        with torch.no_grad():
            self.kernel.copy_(torch.outer(taps, taps).expand_as(self.kernel))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernel.to(padded.dtype), stride=2, groups=self.channels)

    def extra_repr(self) -> str:
        """The channels, for ``print``."""
        return str(self.channels)


def upsample_conv(
    in_channels: int, out_channels: int, *, upsample: str = "deconv", kernel_size: int = 4, bias: bool = True
) -> nn.Module:
    """Make a module that doubles height and width with learned weights.

    ``"deconv"`` is a transposed convolution of `kernel_size`; ``"nearest"`` and ``"bilinear"`` resize and then
    convolve 3x3, which leaves no checkerboard (Odena et al. 2016); ``"shuffle"`` convolves 3x3 to four times
    the channels and rearranges them to pixels (Shi et al. 2016).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, 2 h, 2 w)``.

    Raises:
        ArgumentError: an unknown `upsample`.
    """
    one_of("upsample_conv", "upsample", upsample, UPSAMPLE)
    if upsample == "deconv":
        padding, odd = (kernel_size - 1) // 2, kernel_size % 2
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, 2, padding, output_padding=odd, bias=bias)
    if upsample == "shuffle":
        conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=bias)
        return nn.Sequential(conv, nn.PixelShuffle(2))
    resize = nn.Upsample(scale_factor=2.0, mode=upsample)
    return nn.Sequential(resize, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias))


def downsample() -> nn.AvgPool2d:
    """Halve an image by the mean over 3x3 pixels; at the border, over those that there are.

    Shape: ``(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))``.
    Source: Wang et al. 2018, the authors' code.
    """
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)


def check_image(owner: str, x: Tensor, channels: int) -> None:
    """Raise unless `x` is a batch of float images ``(b, channels, h, w)`` with at least one pixel.

    Raises:
        ShapeError: another number of axes or channels, or an empty image.
        ArgumentError: not a floating-point tensor.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ShapeError(
            f"{owner}: expects images (b, {channels}, h, w), got a tensor of shape {tuple(x.shape)}. "
            f"Add the batch axis with x[None], or build the network for {x.shape[-3] if x.ndim > 2 else '...'} "
            "channels."
        )
    if 0 in x.shape:
        raise ShapeError(f"{owner}: got an empty batch or image, shape {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ArgumentError(
            f"{owner}: expects float images in [-1, 1], got {x.dtype}. For uint8 pixels: x.float() / 127.5 - 1."
        )


def check_norm_values(owner: str, norm: nn.Module, batch: int, height: int, width: int) -> None:
    """Raise if `norm`, on a map of this size, would take its statistics from a single value (and give zeros).

    Raises:
        ShapeError: it would.
    """
    from_batch = isinstance(norm, nn.modules.batchnorm._BatchNorm) and (norm.training or not norm.track_running_stats)
    from_image = isinstance(norm, nn.modules.instancenorm._InstanceNorm) and (
        norm.training or not norm.track_running_stats
    )
    if (from_batch and batch * height * width == 1) or (from_image and height * width == 1):
        raise ShapeError(
            f"{owner}: the image is so small that a {type(norm).__name__} inside would see a single value "
            f"(batch {batch}, {height}x{width} there) and return zeros. Use a larger image, or norm='group'."
        )


def round_up_to_multiple(size: int, multiple: int, minimum: int) -> int:
    """The smallest multiple of `multiple` that is at least `size` and at least `minimum`."""
    return -(-max(size, minimum) // multiple) * multiple


def pad_to_fit(owner: str, x: Tensor, multiple: int, minimum: int, odd_sizes: str) -> Tensor:
    """Extend `x` at the right and the bottom by its edge pixels, to sizes that a network can halve.

    Shape: ``(b, c, h, w) -> (b, c, ceil(h / multiple) * multiple, ceil(w / multiple) * multiple)``.

    Raises:
        ShapeError: with ``odd_sizes='error'``, when the size does not fit as it is.
    """
    h, w = x.shape[-2:]
    fit_h, fit_w = round_up_to_multiple(h, multiple, minimum), round_up_to_multiple(w, multiple, minimum)
    if (h, w) == (fit_h, fit_w):
        return x
    if odd_sizes == "error":
        raise ShapeError(
            f"{owner}: height and width must be multiples of {multiple} and at least {minimum}, got {h}x{w} "
            f"(odd_sizes='error'). Use odd_sizes='pad', or pad to {fit_h}x{fit_w} and crop the output back."
        )
    return F.pad(x, (0, fit_w - w, 0, fit_h - h), mode="replicate")
