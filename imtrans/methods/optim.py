"""What happens to optimizers: how they are made, a step down a loss, learning rates, the scale of "
"fp16, their state."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from imtrans.distributed.data_parallel import current_shard

# How this machine computes a step, not what it computes: a state that is loaded does not change it.
OF_THE_MACHINE = ("fused", "foreach", "capturable")
LEAST_SCALE = 2.0**-16


def adam(parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> Adam:
    """Adam, in one fused kernel a step where the parameters allow it."""
    own = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in own)
    return Adam(own, lr=lr, betas=betas, fused=fused)


def step(optimizer: Optimizer, loss: Tensor) -> None:
    """Take one step down `loss`, with gradients for the optimizer's own parameters and no others.

    In a step that several processes shard, `loss` is the mean over the samples of this one, and the gradients are
    those of the mean over the whole batch: see `imtrans.batch_shard`.

    A trainer in fp16 has given the optimizer a scaler, see `scale_losses`; it is used here.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    scaler, shard = scaler_of(optimizer), current_shard()
    if shard is not None:
        loss = shard.weight * loss
    optimizer.zero_grad(set_to_none=True)
    (loss if scaler is None else scaler.scale(loss)).backward(inputs=parameters)
    if shard is not None:
        # Before the scaler looks at them: all processes leave out a step that overflowed in one of them.
        shard.all_reduce_gradients([p.grad for p in parameters if p.grad is not None])
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    # Autocast keeps its casts of the weights for the whole region: those of the old weights must go.
    torch.clear_autocast_cache()


def scale_losses(optimizers: Mapping[str, Optimizer], device: torch.device) -> None:
    """Give each optimizer a scaler of its own, so that small gradients survive in fp16."""
    for optimizer in optimizers.values():
        cast(Any, optimizer).scaler = torch.amp.GradScaler(device.type)


def scaler_of(optimizer: Optimizer) -> torch.amp.GradScaler | None:
    """The scaler that `scale_losses` gave."""
    return getattr(optimizer, "scaler", None)


def without_scale(optimizers: Mapping[str, Optimizer]) -> str | None:
    """The optimizer whose gradients overflow however small the scale of its loss, or None; this waits for the device.

    A scale begins at 65536, is halved at each overflow, and doubled after 2000 steps in which there was none.
    """
    for name, optimizer in optimizers.items():
        if (scaler := scaler_of(optimizer)) is not None and scaler.get_scale() < LEAST_SCALE:
            return name
    return None


def make_capturable(optimizers: Mapping[str, Optimizer], device: torch.device) -> str | None:
    """Move counters and learning rates to the device, where a recorded step reads them each time it is replayed.

    To be called before the first step. Returns why it cannot be done, or None.
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
    """The learning rate of each group of each optimizer."""
    return [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers.values()]


def set_learning_rates(optimizers: Mapping[str, Optimizer], base: list[list[float]], factor: float) -> None:
    """Set each learning rate to `factor` times that of `base`; one that is a tensor stays the same tensor."""
    for optimizer, own in zip(optimizers.values(), base, strict=True):
        for group, rate in zip(optimizer.param_groups, own, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(factor * rate)
            else:
                group["lr"] = factor * rate


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's state, and that of its scaler."""
    scaler = scaler_of(optimizer)
    return {**optimizer.state_dict(), **({} if scaler is None else {"scaler": scaler.state_dict()})}


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put back what `state_of` gave, on this machine or another.

    Raises:
        ValueError: it is the state of other parameters.
    """
    groups: list[dict[str, Any]] = []
    if len(state["param_groups"]) != len(optimizer.param_groups):
        raise ValueError(f"{len(state['param_groups'])} parameter groups instead of {len(optimizer.param_groups)}.")
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        machine = {name: own[name] for name in OF_THE_MACHINE if name in own}
        rate = torch.as_tensor(saved["lr"]).to(own["lr"]) if isinstance(own["lr"], Tensor) else float(saved["lr"])
        groups.append({**saved, **machine, "lr": rate})
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    scaler = scaler_of(optimizer)
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])
