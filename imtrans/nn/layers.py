"""Norms and activations by name, and layers that change the size of an image."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.errors import ArgumentError, short_repr

Norm = Callable[[int], nn.Module]
Act = Callable[[], nn.Module]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
DOWNSAMPLE = ("conv", "pool", "blur")
UPSAMPLE = ("deconv", "nearest", "bilinear", "shuffle")
ODD_SIZES = ("pad", "error")


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm (Wu & He 2018) with up to 32 groups of at least 2 channels (1 would turn a 1x1 map into zeros)."""
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
    """Return the callable ``channels -> module`` for a name in `NORMS`; a callable is returned unchanged."""
    check_no_instance(owner, "norm", norm, "channels")
    return norm if callable(norm) else NORMS[one_of(owner, "norm", norm, NORMS)]


def act_from(owner: str, argument: str, act: str | Act) -> Act:
    """Return the callable ``() -> module`` for a name in `ACTS`; a callable is returned unchanged."""
    check_no_instance(owner, argument, act)
    return act if callable(act) else ACTS[one_of(owner, argument, act, ACTS)]


def check_no_instance(owner: str, argument: str, value: object, parameters: str = "") -> None:
    """Raise an ArgumentError if `value` is a module, and not a callable that makes one from `parameters`."""
    if isinstance(value, nn.Module):
        made = type(value).__name__
        raise ArgumentError(
            f"{owner}: {argument} must be a callable that makes a module for each layer, got an instance of {made}. "
            f"Pass the class, {argument}={made}, or a function: {argument}=lambda"
            f"{f' {parameters}' if parameters else ''}: {made}({f'{parameters}, ...' if parameters else '...'})."
        )


def check_callable(owner: str, argument: str, value: object, parameters: str = "") -> None:
    """Raise an ArgumentError unless `value` is a callable that makes a module from `parameters`."""
    check_no_instance(owner, argument, value, parameters)
    if not callable(value):
        raise ArgumentError(
            f"{owner}: {argument} must be a callable ({parameters}) -> module, got {short_repr(value)}. "
            "Only networks take names; pass a class, such as torch.nn.Identity."
        )


def has_shift(norm: nn.Module) -> bool:
    """Whether `norm` has a learned shift, which makes the bias of the convolution before it redundant."""
    return getattr(norm, "bias", None) is not None


class BlurPool(nn.Module):
    """Anti-aliased downsampling: a 4x4 binomial low-pass of stride 2.

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
        """Fill the kernel; needed again after a move off the meta device."""
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=self.kernel.device) / 8
        with torch.no_grad():
            self.kernel.copy_(torch.outer(taps, taps).expand_as(self.kernel))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernel.to(padded.dtype), stride=2, groups=self.channels)

    def extra_repr(self) -> str:
        return str(self.channels)


def upsample_conv(
    in_channels: int, out_channels: int, *, upsample: str = "deconv", kernel_size: int = 4, bias: bool = True
) -> nn.Module:
    """Make a module that doubles height and width with learned weights.

    - ``"deconv"``: a transposed convolution of `kernel_size`.
    - ``"nearest"``, ``"bilinear"``: resize, then a 3x3 convolution; no checkerboard artifacts (Odena et al. 2016).
    - ``"shuffle"``: a 3x3 convolution to four times the channels, then a pixel shuffle (Shi et al. 2016).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, 2 h, 2 w)``.

    Raises:
        ArgumentError: an unknown `upsample`.
    """
    one_of("upsample_conv", "upsample", upsample, UPSAMPLE)
    if upsample == "deconv":
        padding, odd = (kernel_size - 1) // 2, kernel_size % 2
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, 2, padding, output_padding=odd, bias=bias)
    if upsample == "shuffle":
        return nn.Sequential(nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=bias), nn.PixelShuffle(2))
    resize = nn.Upsample(scale_factor=2.0, mode=upsample)
    return nn.Sequential(resize, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias))


def downsample() -> nn.AvgPool2d:
    """Make the 3x3 average pool of stride 2 that pix2pixHD downsamples images with; padding does not count.

    Shape: ``(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))``.
    Source: Wang et al. 2018, the authors' code.
    """
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
