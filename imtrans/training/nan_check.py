"""Non-finite values (NaN, infinity): which loss or weight has them, and in which layer they appeared first."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from imtrans.data.loader import Batch
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import TrainingError
from imtrans.methods.loss_scale import without_scale

Step = Callable[[Batch], dict[str, Tensor]]


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity. Waits for the device."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def non_finite_weight(method: nn.Module) -> str | None:
    """Return the name of the first parameter or running statistic that is not finite; None if all are."""
    named: list[tuple[str, Tensor]] = [*method.named_parameters()]
    # Other buffers may hold infinity on purpose, as a mask does.
    named += [each for each in method.named_buffers() if each[0].endswith(("running_mean", "running_var"))]
    named = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not named:
        return None
    # The largest absolute value of each, in one kernel for all on a CUDA device; NaN and infinity remain.
    largest = torch._foreach_norm([tensor for _, tensor in named], float("inf"))
    finite = torch.stack([each.float() for each in largest]).isfinite().tolist()  # waits once
    return next((name for (name, _), fine in zip(named, finite, strict=True) if not fine), None)


def non_finite_state(method: nn.Module, optimizers: Mapping[str, Optimizer]) -> str | None:
    """Return the name of a non-finite weight, or the fp16 optimizer whose gradients overflow; None if all is finite."""
    optimizer = without_scale(optimizers)
    return non_finite_weight(method) if optimizer is None else f"each gradient of the optimizer {optimizer}"


def non_finite_error(
    name: str, step: int, replay: Iterable[tuple[int, Step, Batch]], find: Callable[[Step, Batch], str | None]
) -> TrainingError:
    """Return the error for the loss or weight `name`, non-finite at `step`; it names the first layer that was.

    `replay` yields the number, step function and batch of each step after the last checkpoint, with its state restored;
    nothing without a checkpoint. `find` is `first_non_finite` with the other arguments bound.
    """
    cause, after = "Without a folder there is no checkpoint from which to search for the layer.", ""
    for number, run, batch in replay:
        after = ", and resume: the checkpoints are from before"
        # A non-finite gradient shows in the losses of the next step.
        if number + 1 < step:
            run(batch)
        elif found := find(run, batch):
            cause = f"First was {found}, at step {number}."
            break
        if number >= step:
            cause = "It did not happen again when the steps since the last checkpoint were repeated."
            break
    return TrainingError(
        f"{name} became NaN or infinite at step {step}. {cause} Check the data, lower the learning rate, or train in "
        f"fp32{after}."
    )


def first_non_finite(
    method: nn.Module, step: Step, batch: Batch, *, group: ProcessGroup, gradients: bool = True
) -> str | None:
    """Run `step` on `batch`; describe the first value that was not finite, or return None. All ranks return the same.

    Gradients of a scaled loss may overflow: ``gradients=False`` does not check them.
    """
    found: list[str] = [
        f"the batch's {name}" for name, value in batch.items() if not all(map(is_finite, _tensors(value)))
    ]
    hooks = [*_hooks(method, found, gradients)]
    try:
        # Even for such a batch: another rank may have a finite shard of it, and takes part in the collectives.
        losses = step(batch)
    finally:
        for hook in hooks:
            hook.remove()
    found += [f"the loss {name}, and no layer" for name, loss in losses.items() if not is_finite(loss)]
    if weight := non_finite_weight(method):
        found.append(f"the weight {weight}, as it was updated")
    return next((first for of_rank in group.all_gather_object(found) for first in of_rank), None)


def _hooks(method: nn.Module, found: list[str], gradients: bool) -> Iterator[RemovableHandle]:
    """Register hooks that append to `found` where the first non-finite value is; yield their handles."""
    for name, module in method.named_modules():
        # A layer with spectral norm has its parametrization as a child.
        children = {child for child, _ in module.named_children()}
        if children <= {"parametrizations"} and not isinstance(module, nn.Identity):
            layer = f"{name} ({type(module).__name__})"
            yield module.register_forward_hook(partial(_check_output, found, layer))
            if gradients:
                yield module.register_forward_pre_hook(partial(_check_input_gradients, found, layer))
    for name, parameter in method.named_parameters():
        if gradients and parameter.requires_grad:
            yield cast(Any, parameter).register_hook(partial(_check, found, f"the gradient of {name}"))


def _check_output(found: list[str], layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
    _check(found, f"the output of {layer}", output)


def _check_input_gradients(found: list[str], layer: str, module: nn.Module, inputs: Any) -> None:
    for tensor in _tensors(inputs):
        if tensor.requires_grad:
            tensor.register_hook(partial(_check, found, f"the gradient from {layer}"))


def _check(found: list[str], description: str, value: Any) -> None:
    if not found and not all(map(is_finite, _tensors(value))):
        found.append(description)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for entry in value for tensor in _tensors(entry)] if isinstance(value, (list, tuple)) else []
