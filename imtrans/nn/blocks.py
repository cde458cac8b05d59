"""The blocks that image-to-image networks are built of."""

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn

from imtrans.checks import at_least, in_range, one_of
from imtrans.errors import ArgumentError, ShapeError
from imtrans.nn.layers import DOWNSAMPLE, PADDING_MODES, UPSAMPLE, Act, BlurPool, Norm, has_shift, upsample_conv
from imtrans.nn.skips import ConcatSkip, Skip


class ConvNormAct(nn.Sequential):
    """Convolution, then norm, then activation.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, ceil(h / stride), ceil(w / stride))`` for an odd
    `kernel_size` and the default padding; ``floor`` for an even one.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: height and width of the kernel.
        stride: of the convolution.
        padding: on each side; ``(kernel_size - 1) // 2`` if None.
        padding_mode: ``"zeros" | "reflect" | "replicate" | "circular"``.
        norm: makes the norm for a number of channels; `torch.nn.Identity` for none.
        act: makes the activation.
        bias: of the convolution; if None, it has one where the norm adds no shift of its own.

    Raises:
        ArgumentError: an unknown padding mode.
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
        pad = (kernel_size - 1) // 2 if padding is None else padding
        made_norm = norm(out_channels)
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            pad,
            bias=not has_shift(made_norm) if bias is None else bias,
            padding_mode=cast(Any, padding_mode),
        )
        super().__init__(OrderedDict(conv=conv, norm=made_norm, act=act()))
        self._window = kernel_size, stride, pad

    def out_size(self, size: int) -> int:
        """Height or width of the output for an input of that `size`; below 1 if the input is too small."""
        kernel_size, stride, padding = self._window
        return (size + 2 * padding - kernel_size) // stride + 1


class DownBlock(nn.Sequential):
    """Halve the image: one level of an encoder.

    ``"conv"`` is a 4x4 convolution of stride 2 (pix2pix); ``"pool"`` a 2x2 max pool and a 3x3 convolution
    (the 2015 U-Net); ``"blur"`` a 3x3 convolution and a low-pass of stride 2 (Zhang 2019). Norm and
    activation follow the convolution.

    Shape: ``(b, in_channels, h, w) -> (b, out_channels, floor(h / 2), floor(w / 2))``.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        downsample: ``"conv" | "pool" | "blur"``.
        num_convs: how many convolutions the level has; those after the first are 3x3.
        norm: as in `ConvNormAct`.
        act: as in `ConvNormAct`.
        bias: as in `ConvNormAct`.

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
        first = ConvNormAct(
            in_channels, out_channels, kernel_size=kernel_size, stride=stride, norm=norm, act=act, bias=bias
        )
        parts: dict[str, nn.Module] = {"pool": nn.MaxPool2d(2)} if downsample == "pool" else {}
        parts.update(first.named_children())
        if downsample == "blur":
            parts["blur"] = BlurPool(out_channels)
        for i in range(2, num_convs + 1):
            parts[f"conv{i}"] = ConvNormAct(out_channels, out_channels, norm=norm, act=act, bias=bias)
        super().__init__(OrderedDict(parts))


class UpBlock(nn.Module):
    """Double the image and take in a skip: one level of a decoder.

    Up-convolution, norm, dropout, merge with the skip, activation: the order of pix2pix.

    Shape: ``(b, in_channels, h, w), (b, skip_channels, 2 h, 2 w) -> (b, out_channels', 2 h, 2 w)``, where
    ``out_channels'`` is the attribute `out_channels`: what the merge gives, `out_channels` without a skip or
    with more than one convolution.

    Args:
        in_channels: of the input.
        out_channels: of the up-convolution.
        skip_channels: of the skip; 0 for a block that is called without one.
        skip: makes the merge module from ``(channels, skip_channels)``; it is called with the features and
            the skip, and has an attribute ``out_channels``.
        upsample: ``"deconv" | "nearest" | "bilinear" | "shuffle"``, see `imtrans.nn.layers.upsample_conv`.
        kernel_size: of a ``"deconv"``.
        num_convs: 1 for the up-convolution alone; n > 1 for n more 3x3 convolutions after the merge.
        norm: as in `ConvNormAct`.
        act: as in `ConvNormAct`.
        dropout: probability that a value is dropped.
        bias: as in `ConvNormAct`.

    Raises:
        ArgumentError: an unknown `upsample`, a `dropout` outside [0, 1], `num_convs` below 1, or a merge
            module that does not tell its ``out_channels``.

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
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        one_of("UpBlock", "upsample", upsample, UPSAMPLE)
        in_range("UpBlock", "dropout", dropout, 0.0, 1.0)
        at_least("UpBlock", "num_convs", num_convs, 1)
        made_norm = norm(out_channels)
        biased = not has_shift(made_norm) if bias is None else bias
        self.up = upsample_conv(in_channels, out_channels, upsample=upsample, kernel_size=kernel_size, bias=biased)
        self.norm = made_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.merge = skip(out_channels, skip_channels) if skip_channels else None
        self.act = act()
        merged = out_channels if self.merge is None else _out_channels_of(self.merge)
        self.out_channels = merged if num_convs == 1 else out_channels
        widths = [merged, *[out_channels] * num_convs]
        self.convs = nn.Sequential(
            *(
                ConvNormAct(widths[i], widths[i + 1], norm=norm, act=act, bias=bias)
                for i in range(num_convs if num_convs > 1 else 0)
            )
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.dropout(self.norm(self.up(x)))
        if (self.merge is None) != (skip is None):
            wants = "no skip (skip_channels=0)" if self.merge is None else "a skip"
            raise ShapeError(
                f"UpBlock: was built for {wants}, and was called {'without' if skip is None else 'with'} one."
            )
        if self.merge is not None:
            x = self.merge(x, skip)
        return self.convs(self.act(x))


def cancelled_biases(network: nn.Module) -> list[nn.Parameter]:
    """The biases in `network` that an instance norm subtracts again with the mean of each image.

    They have no effect, and their gradients are what rounding leaves of zero; Adam makes full steps of that, and other
    ones on each machine.

    >>> len(cancelled_biases(ConvNormAct(3, 8, norm=nn.InstanceNorm2d))), len(cancelled_biases(ConvNormAct(3, 8)))
    (1, 0)
    """
    found = []
    for module in network.modules():
        norm, conv = getattr(module, "norm", None), getattr(module, "conv", getattr(module, "up", None))
        if isinstance(norm, nn.modules.instancenorm._InstanceNorm) and not norm.track_running_stats:
            # The four pixels that a shuffle makes of one have biases of their own, which no norm cancels.
            last = conv[-1] if isinstance(conv, nn.Sequential) else conv
            if isinstance(bias := getattr(last, "bias", None), nn.Parameter):
                found.append(bias)
    return found


def _out_channels_of(merge: nn.Module) -> int:
    out_channels = getattr(merge, "out_channels", None)
    if not isinstance(out_channels, int):
        raise ArgumentError(
            f"UpBlock: the merge module {type(merge).__name__} must tell the number of its output channels in "
            f"an attribute out_channels, got {out_channels!r}. Set it in its __init__."
        )
    return out_channels


class ResidualBlock(nn.Module):
    """Add two 3x3 convolutions' output to the input, with no activation after the sum.

    Shape: ``(b, channels, h, w) -> (b, channels, h, w)``.

    Args:
        channels: of input and output.
        norm: as in `ConvNormAct`.
        act: as in `ConvNormAct`, between the two convolutions.
        dropout: probability that a value is dropped, between the two.
        padding_mode: as in `ConvNormAct`.
        bias: as in `ConvNormAct`.

    Raises:
        ArgumentError: an unknown padding mode, or a `dropout` outside [0, 1].

    Source: He et al. 2016; Johnson et al. 2016, supplementary material.
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

        def conv(act: Act) -> ConvNormAct:
            return ConvNormAct(channels, channels, padding_mode=padding_mode, norm=norm, act=act, bias=bias)

        drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        super().__init__()
        self.conv1 = conv(act)
        self.dropout = drop
        self.conv2 = conv(nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.dropout(self.conv1(x)))
