"""The noise z of a conditional GAN: one vector for each image, spread over its pixels."""

import torch
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import has_dropout, unwrap


def noise_channels(network: nn.Module) -> int:
    """Return the attribute `noise_channels` of a network, the length of its noise; 0 if it takes none."""
    count = getattr(unwrap(network), "noise_channels", 0)
    return count if isinstance(count, int) else 0


def check_samples(owner: str, network: nn.Module, mode: str, samples: int, *, minimum: int = 1) -> None:
    """Raise an ArgumentError unless `samples` outputs of `network` in `mode` differ, and there are `minimum` or more.

    Outputs differ by noise in every mode of `imtrans.modes.running_as`, and by dropout in ``"paper"``.
    """
    at_least(owner, "samples", samples, minimum)
    if not any(map(noise_channels, network.modules())) and not (mode == "paper" and has_dropout(network)):
        raise ArgumentError(
            f"{owner}: samples={samples} would give equal outputs: {type(unwrap(network)).__name__} takes no noise, "
            f"and no dropout is active with mode={mode!r}. Use UNetGenerator(noise_channels=8), or mode='paper' with a "
            "generator that has dropout, or leave samples out."
        )


def draw_noise(source: Tensor, channels: int) -> Tensor:
    """Draw noise from N(0, 1) for each image of `source`, from PyTorch's global generator of its device.

    A training run seeds that generator, keeps its state in checkpoints and records it in CUDA graphs.

    Shape: ``(b, c, h, w) -> (b, channels)``.
    """
    return torch.randn(source.shape[0], channels, device=source.device, dtype=source.dtype)


def check_noise(owner: str, noise: Tensor | None, source: Tensor, channels: int) -> Tensor | None:
    """Return `noise`, drawn if it is None, in the dtype of `source`; None for a network without noise.

    Raises:
        ArgumentError: noise for a network without noise, or noise that is no tensor.
        ShapeError: noise that is not ``(b, channels)``.
    """
    if noise is None:
        return draw_noise(source, channels) if channels else None
    if channels == 0:
        raise ArgumentError(
            f"{owner}: takes no noise (noise_channels=0), but noise was given. Leave it out, or build the network with "
            "noise_channels=8."
        )
    if not isinstance(noise, Tensor):
        raise ArgumentError(
            f"{owner}: noise must be a tensor (b, {channels}), got a {type(noise).__name__}. For a NumPy array: "
            "torch.from_numpy(x)."
        )
    if noise.shape != (source.shape[0], channels):  # a length would be a constant in an exported graph
        raise ShapeError(
            f"{owner}: expects noise ({len(source)}, {channels}), a vector for each image, got a tensor of shape "
            f"{tuple(noise.shape)}. For example torch.randn({len(source)}, {channels})."
        )
    return noise.to(source.dtype)


def append_noise(x: Tensor, noise: Tensor | None) -> Tensor:
    """Append noise as further channels, each of one value in all positions; None appends nothing.

    Shape: ``(b, c, h, w), (b, n) -> (b, c + n, h, w)``.
    """
    if noise is None:
        return x
    return torch.cat([x, noise[:, :, None, None].to(x.dtype).expand(-1, -1, *x.shape[-2:])], dim=1)
