"""Merge modules of a U-Net decoder: they combine its features with the skip from the encoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.errors import ArgumentError, counted


class ConcatSkip(nn.Module):
    """Concatenate the skip and the decoder's features, in this order, as in U-Net.

    Shape: ``(b, channels, h, w), (b, skip_channels, h, w) -> (b, skip_channels + channels, h, w)``.
    """

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.out_channels = channels + skip_channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([skip, x], dim=1)


class AddSkip(nn.Module):
    """Add the skip to the decoder's features, as in LinkNet.

    Shape: ``(b, channels, h, w), (b, channels, h, w) -> (b, channels, h, w)``.

    Raises:
        ArgumentError: different numbers of channels.
    """

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        if channels != skip_channels:
            raise ArgumentError(
                f"AddSkip: cannot add {counted(skip_channels, 'skip channel')} to {channels}. Use equal widths, or "
                "ConcatSkip."
            )
        self.out_channels = channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return x + skip


class GatedSkip(nn.Module):
    """Multiply the skip by an additive attention gate, one value a pixel, then concatenate.

    ``gate = sigmoid(w(relu(a(skip) + b(x))))``, where `a`, `b` and `w` are 1x1 convolutions.

    Shape: ``(b, channels, h, w), (b, skip_channels, h, w) -> (b, skip_channels + channels, h, w)``.

    Source: Oktay et al. 2018, "Attention U-Net", equations 1 and 2.
    """

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        hidden = max(skip_channels // 2, 1)
        self.from_skip = nn.Conv2d(skip_channels, hidden, 1, bias=False)
        self.from_decoder = nn.Conv2d(channels, hidden, 1)
        self.gate = nn.Conv2d(hidden, 1, 1)
        self.out_channels = channels + skip_channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(F.relu(self.from_skip(skip) + self.from_decoder(x))))
        return torch.cat([skip * gate, x], dim=1)


class NoSkip(nn.Module):
    """Ignore the skip: the encoder-decoder of the pix2pix ablation.

    Shape: ``(b, channels, h, w), (b, skip_channels, h, w) -> (b, channels, h, w)``.
    """

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return x


Skip = Callable[[int, int], nn.Module]
SKIPS: dict[str, Skip] = {"concat": ConcatSkip, "add": AddSkip, "gate": GatedSkip, "none": NoSkip}
