"""Checks of a network's input images, and padding to sizes that the network can halve."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import uses_input_stats
from imtrans.nn.layers import KerasBatchNorm


def check_image(
    owner: str, x: Tensor, channels: int, network: nn.Module | None = None, *, conditional: bool = False
) -> None:
    """Raise a ShapeError or ArgumentError unless `x` is a non-empty batch of float images ``(b, channels, h, w)``.

    With a `network`, `x` must have the dtype of its weights, or one that autocast converts. `conditional` is for
    discriminators: the error for too few channels says that source and target are concatenated.
    """
    if not isinstance(x, Tensor):
        raise ArgumentError(
            f"{owner}: expects a tensor, got a {type(x).__name__}. For a NumPy array: torch.from_numpy(x)."
        )
    if x.ndim != 4 or x.shape[1] != channels:
        raise ShapeError(
            f"{owner}: expects images (b, {channels}, h, w), got a tensor of shape {tuple(x.shape)}. "
            f"{_shape_advice(x, channels, conditional=conditional)}"
        )
    if 0 in x.shape:
        raise ShapeError(f"{owner}: got an empty batch or image, shape {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ArgumentError(
            f"{owner}: expects float images in [-1, 1], got {x.dtype}. For uint8 pixels: x.float() / 127.5 - 1."
        )
    if network is not None and not torch.compiler.is_compiling():
        _check_dtype(owner, x, network)


def _shape_advice(x: Tensor, channels: int, *, conditional: bool) -> str:
    """Return the way out for an image of a wrong shape, by the most likely cause."""
    if x.ndim == 3 and x.shape[0] == channels:
        return "Add the batch axis with x[None]."
    if x.ndim in (3, 4) and x.shape[-1] == channels:
        return f"The channels come last: use x.permute({'2, 0, 1)[None]' if x.ndim == 3 else '0, 3, 1, 2)'}."
    if x.ndim != 4:
        return "Give a batch of images. x[None] adds the batch axis to (c, h, w), x[:, None] the channels to (b, h, w)."
    found = x.shape[1]
    built = f"build the network with in_channels={found}."
    if conditional and found < channels:
        return (
            "A conditional discriminator takes source and target together: "
            f"torch.cat([source, target], dim=1). For one image alone, {built}"
        )
    if found == 1:
        return f"For grey images, use x.expand(-1, {channels}, -1, -1), or {built}"
    return built.capitalize()


def _check_dtype(owner: str, x: Tensor, network: nn.Module) -> None:
    weights = next(network.parameters(), x).dtype
    if x.dtype == weights or not weights.is_floating_point:
        return
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if not autocast or torch.float64 in (x.dtype, weights):
        raise ArgumentError(
            f"{owner}: the images are {x.dtype}, the weights {weights}. Convert the images with x.to({weights}), "
            f"or the network with network.to({x.dtype})."
        )


def check_norm_values(owner: str, norm: nn.Module, batch: int, height: int, width: int) -> None:
    """Raise a ShapeError if a batch or instance norm would see a single value, and so return zeros."""
    values = height * width * (1 if isinstance(norm, nn.modules.instancenorm._InstanceNorm) else batch)
    if values == 1 and not isinstance(norm, (nn.GroupNorm, KerasBatchNorm)) and uses_input_stats(norm):
        raise ShapeError(
            f"{owner}: the image is so small that a {type(norm).__name__} inside would see a single value "
            f"(batch {batch}, {height}x{width} there) and return zeros. Use a larger image, or norm='group'."
        )


def round_up_to_multiple(size: int, multiple: int, minimum: int) -> int:
    """The smallest multiple of `multiple` that is at least `size` and at least `minimum`."""
    # In an export for any size, `size` is a symbol: `max` would decide for all sizes which one is larger.
    return (torch.sym_max(size, minimum) + multiple - 1) // multiple * multiple


def pad_to_fit(owner: str, x: Tensor, multiple: int, minimum: int, odd_sizes: str) -> Tensor:
    """Pad `x` at the right and bottom, by replication, to multiples of `multiple` of at least `minimum` pixels.

    With ``odd_sizes='error'``, raise a ShapeError if `x` would need padding. An export for any size cannot raise: it
    always pads, by 0 pixels for a size that fits.
    """
    h, w = x.shape[-2:]
    fit_h, fit_w = round_up_to_multiple(h, multiple, minimum), round_up_to_multiple(w, multiple, minimum)
    if not _has_symbols(h, w):
        if (h, w) == (fit_h, fit_w):
            return x
        if odd_sizes == "error":
            raise ShapeError(
                f"{owner}: height and width must be multiples of {multiple} and at least {minimum}, got {h}x{w} "
                f"(odd_sizes='error'). Use odd_sizes='pad', or pad to {fit_h}x{fit_w} and crop the output back."
            )
    return F.pad(x, (0, fit_w - w, 0, fit_h - h), mode="replicate")


def _has_symbols(*sizes: int) -> bool:
    return any(isinstance(size, torch.SymInt) for size in sizes)
