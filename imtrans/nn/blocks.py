"""Building blocks of image-to-image networks."""

from collections import OrderedDict
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn

from imtrans.checks import at_least, check_bool, in_range, one_of
from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import uses_input_stats
from imtrans.nn.layers import (
    DOWNSAMPLE,
    PADDING_MODES,
    UPSAMPLE,
    Act,
    BlurPool,
    Norm,
    check_callable,
    has_shift,
    upsample_conv,
)
from imtrans.nn.skips import ConcatSkip, Skip


class ConvNormAct(nn.Sequential):
    """Convolution, then norm, then activation.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, ceil(h / stride), ceil(w / stride))`` with the default padding
    and an odd `kernel_size`; ``floor`` with an even one.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: height and width of the kernel.
        stride: stride of the convolution.
        padding: pixels on each side; None for ``(kernel_size - 1) // 2``.
        padding_mode: ``"zeros" | "reflect" | "replicate" | "circular"``.
        norm: callable ``channels -> module``; `torch.nn.Identity` for no norm.
        act: callable ``() -> module``.
        bias: whether the convolution has a bias; None: only if the norm has no learned shift.

    Raises:
        ArgumentError: an unknown padding mode, or a `norm` or `act` that is no callable, or already a module.
    """

    conv: nn.Conv2d
    norm: nn.Module
    act: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        padding_mode: str = "zeros",
        norm: Norm = nn.BatchNorm2d,
        act: Act = nn.ReLU,
        bias: bool | None = None,
    ) -> None:
        one_of("ConvNormAct", "padding_mode", padding_mode, PADDING_MODES)
        check_callable("ConvNormAct", "norm", norm, "channels")
        check_callable("ConvNormAct", "act", act)
        pad = (kernel_size - 1) // 2 if padding is None else padding
        made_norm = norm(out_channels)
        biased = not has_shift(made_norm) if bias is None else bias
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, pad, bias=biased, padding_mode=cast(Any, padding_mode)
        )
        super().__init__(OrderedDict(conv=conv, norm=made_norm, act=act()))

    def out_size(self, size: int) -> int:
        """Return the output height or width for an input of this `size`; below 1 if the input is too small."""
        return (size + 2 * cast(int, self.conv.padding[0]) - self.conv.kernel_size[0]) // self.conv.stride[0] + 1


def conv_stack(in_channels: int, out_channels: int, num_convs: int, **settings: Any) -> nn.Sequential:
    """Make `num_convs` `ConvNormAct` in sequence."""
    widths = [in_channels, *[out_channels] * num_convs]
    return nn.Sequential(*(ConvNormAct(*pair, **settings) for pair in pairwise(widths)))


class DownBlock(nn.Sequential):
    """Encoder level that halves height and width. Norm and activation follow each convolution, as in `ConvNormAct`.

    - ``"conv"``: a 4x4 convolution of stride 2 (pix2pix).
    - ``"pool"``: a 2x2 max pool, then a 3x3 convolution (U-Net 2015).
    - ``"blur"``: a 3x3 convolution, then `imtrans.nn.layers.BlurPool` (Zhang 2019).

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, floor(h / 2), floor(w / 2))``.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        downsample: ``"conv" | "pool" | "blur"``.
        num_convs: number of convolutions; all after the first are 3x3.

    Raises:
        ArgumentError: an unknown `downsample`, or `num_convs` below 1.

    >>> import torch
    >>> DownBlock(3, 8, norm=nn.InstanceNorm2d)(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        downsample: str = "conv",
        num_convs: int = 1,
        norm: Norm = nn.BatchNorm2d,
        act: Act = nn.ReLU,
        bias: bool | None = None,
    ) -> None:
        one_of("DownBlock", "downsample", downsample, DOWNSAMPLE)
        at_least("DownBlock", "num_convs", num_convs, 1)
        kernel_size, stride = (4, 2) if downsample == "conv" else (3, 1)
        settings: dict[str, Any] = {"norm": norm, "act": act, "bias": bias}
        first = ConvNormAct(in_channels, out_channels, kernel_size=kernel_size, stride=stride, **settings)
        parts: dict[str, nn.Module] = {"pool": nn.MaxPool2d(2)} if downsample == "pool" else {}
        parts.update(first.named_children())
        if downsample == "blur":
            parts["blur"] = BlurPool(out_channels)
        for i in range(2, num_convs + 1):
            parts[f"conv{i}"] = ConvNormAct(out_channels, out_channels, **settings)
        super().__init__(OrderedDict(parts))


class UpBlock(nn.Module):
    """Decoder level that doubles height and width and merges a skip.

    Up-convolution, norm, dropout, merge, activation: the order of pix2pix. With `act_before_merge` the activation comes
    before the merge, so that it does not apply to the skip. `norm`, `act` and `bias` are as in `ConvNormAct`.

    Shape: ``(b, in_channels, h, w), (b, skip_channels, 2 h, 2 w) -> (b, c, 2 h, 2 w)``, where ``c`` is the attribute
    `out_channels`: the channels of the merge, or the argument if there is no skip or more than one convolution.

    Args:
        in_channels: number of input channels.
        out_channels: number of channels of the up-convolution.
        skip_channels: number of channels of the skip; 0 for a block without one.
        skip: callable ``(channels, skip_channels) -> merge module``. The module is called with the features and the
            skip, and has an attribute ``out_channels``.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``, see `imtrans.nn.layers.upsample_conv`.
        kernel_size: kernel of ``"deconv"``.
        num_convs: 1 for the up-convolution alone; n > 1 for n more 3x3 convolutions after the merge.
        dropout: dropout probability.
        act_before_merge: whether the activation comes before the merge, as in the TensorFlow tutorial.

    Raises:
        ArgumentError: an unknown `upsample`, a `dropout` outside [0, 1], `num_convs` below 1, or a merge module
            without an int ``out_channels``.

    >>> import torch
    >>> block = UpBlock(8, 4, skip_channels=4)
    >>> block(torch.zeros(1, 8, 8, 8), torch.zeros(1, 4, 16, 16)).shape, block.out_channels
    (torch.Size([1, 8, 16, 16]), 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        skip_channels: int = 0,
        skip: Skip = ConcatSkip,
        upsample: str = "deconv",
        kernel_size: int = 4,
        num_convs: int = 1,
        norm: Norm = nn.BatchNorm2d,
        act: Act = nn.ReLU,
        dropout: float = 0.0,
        act_before_merge: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        one_of("UpBlock", "upsample", upsample, UPSAMPLE)
        in_range("UpBlock", "dropout", dropout, 0.0, 1.0)
        at_least("UpBlock", "num_convs", num_convs, 1)
        check_callable("UpBlock", "skip", skip, "channels, skip_channels")
        check_callable("UpBlock", "norm", norm, "channels")
        check_callable("UpBlock", "act", act)
        check_bool("UpBlock", "act_before_merge", act_before_merge)
        made_norm = norm(out_channels)
        biased = not has_shift(made_norm) if bias is None else bias
        self.up = upsample_conv(in_channels, out_channels, upsample=upsample, kernel_size=kernel_size, bias=biased)
        self.norm = made_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.merge = skip(out_channels, skip_channels) if skip_channels else None
        self.act = act()
        self.act_before_merge = act_before_merge
        merged = int(out_channels) if self.merge is None else getattr(self.merge, "out_channels", None)
        if not isinstance(merged, int):
            raise ArgumentError(
                f"UpBlock: the merge module {type(self.merge).__name__} must have its number of output channels as an "
                f"int attribute out_channels, got {merged!r}. Set it in its __init__."
            )
        self.out_channels = merged if num_convs == 1 else out_channels
        self.convs = conv_stack(merged, out_channels, num_convs if num_convs > 1 else 0, norm=norm, act=act, bias=bias)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.dropout(self.norm(self.up(x)))
        if (self.merge is None) != (skip is None):
            built = "without a skip (skip_channels=0)" if self.merge is None else "with a skip"
            raise ShapeError(f"UpBlock: built {built}, but called {'without' if skip is None else 'with'} one.")
        if self.act_before_merge:
            x = self.act(x)
        if self.merge is not None:
            x = self.merge(x, skip)
        return self.convs(x if self.act_before_merge else self.act(x))


class ResidualBlock(nn.Module):
    """Residual block of two 3x3 convolutions, without an activation after the sum.

    The activation and a dropout of this probability are between the two. Other arguments are as in `ConvNormAct`.

    Shape: ``(b, channels, h, w) -> (b, channels, h, w)``.

    Raises:
        ArgumentError: an unknown padding mode, or a `dropout` outside [0, 1].

    Source: He et al. 2016, "Deep Residual Learning"; Johnson et al. 2016, supplementary material.
    """

    def __init__(
        self,
        channels: int,
        *,
        norm: Norm = nn.InstanceNorm2d,
        act: Act = nn.ReLU,
        dropout: float = 0.0,
        padding_mode: str = "reflect",
        bias: bool | None = None,
    ) -> None:
        in_range("ResidualBlock", "dropout", dropout, 0.0, 1.0)
        settings: dict[str, Any] = {"padding_mode": padding_mode, "norm": norm, "bias": bias}
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, act=act, **settings)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = ConvNormAct(channels, channels, act=nn.Identity, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.dropout(self.conv1(x)))


def cancelled_biases(network: nn.Module) -> list[nn.Parameter]:
    """Return the biases in `network` that an instance norm cancels by subtracting the mean of each image.

    They have no effect, and their gradients are rounding noise. Adam would turn this noise into full steps that differ
    from machine to machine.

    >>> len(cancelled_biases(ConvNormAct(3, 8, norm=nn.InstanceNorm2d))), len(cancelled_biases(ConvNormAct(3, 8)))
    (1, 0)
    """
    found = []
    for module in network.modules():
        norm, conv = getattr(module, "norm", None), getattr(module, "conv", getattr(module, "up", None))
        if isinstance(norm, nn.modules.instancenorm._InstanceNorm) and uses_input_stats(norm, training=False):
            # A shuffle gives its four pixels different biases, which no norm cancels: it ends in no convolution.
            last = conv[-1] if isinstance(conv, nn.Sequential) else conv
            if isinstance(bias := getattr(last, "bias", None), nn.Parameter):
                found.append(bias)
    return found
