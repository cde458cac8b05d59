"""Norms and activations by name, and layers that change the size of an image."""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.checks import one_of
from imtrans.distributed.sync_batchnorm import SyncBatchNorm2d
from imtrans.errors import ArgumentError, short_repr
from imtrans.modes import uses_input_stats

Norm = Callable[[int], nn.Module]
Act = Callable[[], nn.Module]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
DOWNSAMPLE = ("conv", "pool", "blur")
UPSAMPLE = ("deconv", "nearest", "bilinear", "shuffle")
ODD_SIZES = ("pad", "error")


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm (Wu & He 2018) with up to 32 groups of at least 2 channels (1 would turn a 1x1 map into zeros)."""
    return nn.GroupNorm(math.gcd(32, channels // 2) if channels % 2 == 0 else 1, channels)


class KerasBatchNorm(nn.BatchNorm2d):
    """Batch norm with the defaults of Keras: epsilon 0.001, and momentum 0.99, which PyTorch calls 0.01.

    A single value for each channel becomes the shift, as in Keras; `torch.nn.BatchNorm2d` raises. `init_weights` sets
    the scales to 1. The running variance is the unbiased one, as in PyTorch and in TensorFlow's fused kernel; Keras 3
    averages the biased one.

    Shape: ``(b, channels, h, w) -> (b, channels, h, w)``.

    >>> KerasBatchNorm(2)(torch.ones(1, 2, 1, 1)).flatten().tolist()
    [0.0, 0.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if not uses_input_stats(self) or x.numel() != x.shape[1]:
            return super().forward(x)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                cast(Tensor, self.num_batches_tracked).add_(1)
                self.running_mean.lerp_(x.flatten().to(self.running_mean.dtype), cast(float, self.momentum))
                self.running_var.lerp_(torch.zeros_like(self.running_var), cast(float, self.momentum))
        # Not the shift alone: the gradients of input and scale are 0, and every parameter has one.
        return ((x - x) * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class SyncKerasBatchNorm(SyncBatchNorm2d, KerasBatchNorm):
    """`KerasBatchNorm` with statistics over all ranks in a distributed step."""

    computes_as = KerasBatchNorm


NORMS: dict[str, Norm] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "group": group_norm,
    "keras_batch": KerasBatchNorm,
    "none": nn.Identity,
}

ACTS: dict[str, Act] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "leaky_relu_0.3": lambda: nn.LeakyReLU(0.3, inplace=True),
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


_FOLD_FROM = 256  # positions of a batch's maps from which the folded kernel is faster: measured, see docs/speed.md
_FOLD_FROM_MAP = 64  # and positions of one map
_PLAIN_CONV = ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


class NearestConv(nn.Sequential):
    """Doubles height and width by repeating each pixel, then applies a 3x3 convolution.

    This is equal to a transposed 4x4 convolution of stride 2: repeating pixels is a transposed convolution with a 2x2
    kernel of ones, and two convolutions in a row are one. The 4x4 kernel is computed from the 3x3 weights in each call,
    so gradients reach them. It needs 16 instead of 36 products for each input pixel and pair of channels. Large maps
    take this way. Small maps, where reading the weights takes most of the time, are repeated and convolved. The choice
    depends on the shape of the input alone, and changes the result by rounding only.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, 2 h, 2 w)``.
    """

    _folded: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        resize = nn.Upsample(scale_factor=2.0, mode="nearest")
        super().__init__(resize, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias))
        self._frozen = False
        self.register_buffer("_folded", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if torch.compiler.is_compiling():
            batch = 1  # a compiled or exported network may be for any batch size
        large = height * width >= _FOLD_FROM_MAP and batch * height * width >= _FOLD_FROM
        if not large or not self._can_fold():
            return self[1](self[0](x))
        return F.conv_transpose2d(x, self._kernel(), cast(nn.Conv2d, self[1]).bias, stride=2, padding=1)

    def freeze(self) -> None:
        """Keep the 4x4 kernel of the next call that folds it; the weights must not change afterwards.

        Call it for inference only. A compiler does not keep the kernel: call the network once before.
        """
        self._frozen = True

    def folded(self) -> nn.Module:
        """Return a transposed convolution that computes the same; this module if it cannot be folded."""
        if not self._can_fold():
            return self
        conv = cast(nn.Conv2d, self[1])
        with torch.no_grad():
            kernel = fold_nearest(conv.weight).contiguous()
        up = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=False, device="meta")
        up.weight, up.bias = nn.Parameter(kernel), conv.bias
        return up.train(self.training)

    def _can_fold(self) -> bool:
        """Whether both layers are as they were made, and no hook waits for their calls."""
        resize, conv = self
        if type(resize) is not nn.Upsample or type(conv) is not nn.Conv2d:
            return False
        own = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        hooked = any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in self
        )
        return own == _PLAIN_CONV and resize.mode == "nearest" and not hooked

    def _kernel(self) -> Tensor:
        if self._folded is not None:
            return self._folded
        kernel = fold_nearest(cast(nn.Conv2d, self[1]).weight)
        if self._frozen and not torch.compiler.is_compiling():
            self._folded = kernel.detach().contiguous(memory_format=torch.channels_last)
        return kernel


def fold_nearest(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals repeating pixels and a 3x3 convolution.

    It is the flipped kernel, convolved with a 2x2 kernel of ones.

    Shape: ``(out_channels, in_channels, 3, 3) -> (in_channels, out_channels, 4, 4)``.

    >>> fold_nearest(torch.ones(1, 1, 3, 3))[0, 0].tolist()
    [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]]
    """
    eye = torch.eye(4, dtype=weight.dtype, device=weight.device)
    along = (eye[:, :3] + eye[:, 1:]).flip(1)  # adds neighbouring taps of one axis
    # One matrix product is several times as fast as sums of small slices, forward and backward.
    kernel = weight.flatten(2) @ torch.kron(along, along).T
    return kernel.unflatten(2, (4, 4)).transpose(0, 1)


def upsample_conv(
    in_channels: int, out_channels: int, *, upsample: str = "deconv", kernel_size: int = 4, bias: bool = True
) -> nn.Module:
    """Make a module that doubles height and width with learned weights.

    - ``"deconv"``: a transposed convolution of `kernel_size`.
    - ``"nearest"``, ``"bilinear"``: resize, then a 3x3 convolution; no checkerboard artifacts (Odena et al. 2016). See
      `NearestConv` for how the first is computed.
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
    if upsample == "nearest":
        return NearestConv(in_channels, out_channels, bias=bias)
    resize = nn.Upsample(scale_factor=2.0, mode=upsample)
    return nn.Sequential(resize, nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias))


def downsample() -> nn.AvgPool2d:
    """Make the 3x3 average pool of stride 2 that pix2pixHD downsamples images with; padding does not count.

    Shape: ``(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))``.
    Source: Wang et al. 2018, the authors' code.
    """
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
