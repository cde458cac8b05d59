"""Optimizers of a method: Adam, one optimizer step, the loss scale of fp16, learning rates and state."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from imtrans.distributed.data_parallel import current_shard

NO_SCALER = torch.amp.GradScaler(enabled=False)
SMALLEST_SCALE = 2.0**-16
DEVICE_OPTIONS = ("fused", "foreach", "capturable")  # kept when a state is loaded


def adam(parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> Adam:
    """Make an Adam optimizer, with one fused kernel a step where the parameters allow it."""
    own = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in own)
    return Adam(own, lr=lr, betas=betas, fused=fused)


def step(optimizer: Optimizer, loss: Tensor) -> None:
    """Clear the gradients, backpropagate `loss` to the optimizer's own parameters, and take one optimizer step.

    In a distributed step, `loss` is the mean over the samples of this rank. The gradients are summed over the ranks, to
    the gradient of the mean over the whole batch: see `imtrans.distributed.data_parallel`. In fp16 the loss is scaled.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    scaler, shard = scaler_of(optimizer), current_shard()
    if shard is not None:
        loss = shard.weight * loss
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward(inputs=parameters)
    if shard is not None:
        # Before the scaler looks for overflow: all ranks then skip a step that overflowed on one of them.
        shard.all_reduce_gradients([p.grad for p in parameters if p.grad is not None])
    scaler.step(optimizer)
    scaler.update()
    # Autocast caches casts of the weights for its whole region. The casts of the old weights must not be used again.
    torch.clear_autocast_cache()


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
    if "scaler" in state:
        scaler_of(optimizer).load_state_dict(state["scaler"])
