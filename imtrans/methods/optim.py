"""Optimizers of a method: Adam, and one optimizer step."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from imtrans.distributed.data_parallel import current_shard
from imtrans.methods.loss_scale import scaler_of


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
