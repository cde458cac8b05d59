"""Loss scale of fp16 training: one `torch.amp.GradScaler` for each optimizer."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.optim import Optimizer

SMALLEST_SCALE = 2.0**-16


def scale_losses(optimizers: Mapping[str, Optimizer], device: torch.device) -> None:
    """Attach a scaler to each optimizer, so that small gradients do not underflow in fp16."""
    for optimizer in optimizers.values():
        cast(Any, optimizer).scaler = torch.amp.GradScaler(device.type)


def scaler_of(optimizer: Optimizer) -> torch.amp.GradScaler | None:
    """Return the scaler that `scale_losses` attached; None without one."""
    return getattr(optimizer, "scaler", None)


def without_scale(optimizers: Mapping[str, Optimizer]) -> str | None:
    """Return the name of an optimizer whose gradients overflow at every loss scale, or None. Waits for the device.

    The scale begins at 65536. It is halved at each overflow, and doubled after 2000 steps without one.
    """
    for name, optimizer in optimizers.items():
        if (scaler := scaler_of(optimizer)) is not None and scaler.get_scale() < SMALLEST_SCALE:
            return name
    return None
