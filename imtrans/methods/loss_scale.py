"""The loss scale of fp16: one scaler for each optimizer."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.optim import Optimizer

NO_SCALER = torch.amp.GradScaler(enabled=False)
SMALLEST_SCALE = 2.0**-16


def scale_losses(optimizers: Mapping[str, Optimizer], device: torch.device) -> None:
    """Attach a loss scaler to each optimizer, so that small gradients do not underflow in fp16."""
    for optimizer in optimizers.values():
        cast(Any, optimizer).scaler = torch.amp.GradScaler(device.type)


def scaler_of(optimizer: Optimizer) -> torch.amp.GradScaler:
    """Return the scaler that `scale_losses` attached; without one, a scaler that does nothing."""
    return getattr(optimizer, "scaler", NO_SCALER)


def without_scale(optimizers: Mapping[str, Optimizer]) -> str | None:
    """Return the name of an optimizer whose gradients overflow at every loss scale, or None. Waits for the device.

    The scale begins at 65536. It is halved at each overflow, and doubled after 2000 steps without one.
    """
    for name, optimizer in optimizers.items():
        if scaler_of(optimizer).get_scale() < SMALLEST_SCALE:
            return name
    return None
