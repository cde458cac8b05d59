"""Learning rates and state of optimizers, on any device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from imtrans.methods.loss_scale import scaler_of

DEVICE_OPTIONS = ("fused", "foreach", "capturable")  # kept when a state is loaded


def learning_rates(optimizers: Mapping[str, Optimizer]) -> list[list[float]]:
    """Return the learning rate of each parameter group of each optimizer."""
    return [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers.values()]


def set_learning_rates(optimizers: Mapping[str, Optimizer], base: list[list[float]], factor: float) -> None:
    """Set each learning rate to `factor` times its value in `base`. Rates that are tensors are changed in place."""
    for optimizer, own in zip(optimizers.values(), base, strict=True):
        for group, rate in zip(optimizer.param_groups, own, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * rate)
            else:
                group["lr"] = factor * rate


def make_capturable(optimizers: Mapping[str, Optimizer], device: torch.device) -> str | None:
    """Move step counters and learning rates to the device, where a captured step reads them at each replay.

    Call it before the first step. Returns the reason if an optimizer cannot be captured, else None.
    """
    for name, optimizer in optimizers.items():
        if any("capturable" not in group for group in optimizer.param_groups):
            return f"the optimizer {name!r} ({type(optimizer).__name__}) has no option 'capturable'"
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
    return None


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state dict of an optimizer, with its scaler's under ``"scaler"``."""
    scaler = scaler_of(optimizer).state_dict()
    return optimizer.state_dict() | ({"scaler": scaler} if scaler else {})


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load what `state_of` returned, on the same device or another. ValueError: it is of other parameters."""
    groups: list[dict[str, Any]] = []
    if len(state["param_groups"]) != len(optimizer.param_groups):
        raise ValueError(f"{len(state['param_groups'])} parameter groups instead of {len(optimizer.param_groups)}.")
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        options = {name: own[name] for name in DEVICE_OPTIONS if name in own}
        rate = torch.as_tensor(saved["lr"]).to(own["lr"]) if isinstance(own["lr"], Tensor) else float(saved["lr"])
        groups.append({**saved, **options, "lr": rate})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, own_state in optimizer.state.items():
        for name, value in own_state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                # A fused kernel runs over the memory of both. A checkpoint keeps no memory format.
                own_state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if "scaler" in state:
        scaler_of(optimizer).load_state_dict(state["scaler"])
