"""Non-finite values (NaN, infinity): which loss or weight has them, and in which layer they appeared first."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import TrainingError
from imtrans.methods.optim import without_scale

Step = Callable[[dict[str, Tensor]], dict[str, Tensor]]
NEVER = 2**62


class FirstNonFinite:
    """Keeps, on the device, the step at which each loss was NaN or infinite first. Only `first` waits."""

    def __init__(self) -> None:
        self._steps: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the losses of `step`."""
        for name, loss in losses.items():
            found = torch.where(loss.isfinite(), NEVER, step)
            self._steps[name] = found.minimum(self._steps[name]) if name in self._steps else found

    def first(self) -> tuple[str, int] | None:
        """Return the name of the first non-finite loss, and its step; None if all are finite."""
        steps = {name: int(step) for name, step in self._steps.items()}
        name = min(steps, key=lambda name: steps[name], default=None)
        return None if name is None or steps[name] == NEVER else (name, steps[name])


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity. Waits for the device."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def non_finite_weight(method: nn.Module) -> str | None:
    """Return the name of the first parameter or running statistic that is not finite; None if all are."""
    named: list[tuple[str, Tensor]] = [*method.named_parameters()]
    # Other buffers may hold infinity on purpose, as a mask does.
    named += [each for each in method.named_buffers() if each[0].endswith(("running_mean", "running_var"))]
    if not named:
        return None
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named]).tolist()  # waits once
    return next((name for (name, _), fine in zip(named, finite, strict=True) if not fine), None)


def non_finite_state(method: nn.Module, optimizers: Mapping[str, Optimizer]) -> str | None:
    """Return the name of a non-finite weight, or the fp16 optimizer whose gradients overflow; None if all is finite."""
    optimizer = without_scale(optimizers)
    return non_finite_weight(method) if optimizer is None else f"each gradient of the optimizer {optimizer}"


def non_finite_error(
    name: str,
    step: int,
    replay: Iterable[tuple[int, Step, dict[str, Tensor]]],
    *,
    method: nn.Module,
    gradients: bool,
    group: ProcessGroup,
) -> TrainingError:
    """Return the error for the loss or weight `name`, non-finite at `step`; it names the first layer that was.

    `replay` yields the number, step function and batch of each step after the last checkpoint, with its state restored;
    nothing without a checkpoint. The other arguments are as for `first_non_finite`.
    """
    cause = "Without a folder there is no checkpoint from which to search for the layer."
    for number, run, batch in replay:
        # A non-finite gradient shows in the losses of the next step.
        if number + 1 < step:
            run(batch)
        elif found := first_non_finite(method, run, batch, gradients=gradients, group=group):
            cause = f"First was {found}, at step {number}."
            break
        if number >= step:
            cause = "It did not happen again when the steps since the last checkpoint were repeated."
            break
    return TrainingError(
        f"{name} became NaN or infinite at step {step}. {cause} The checkpoints are from before. Check the data, lower "
        "the learning rate, or train in fp32, and resume."
    )


def first_non_finite(
    method: nn.Module, step: Step, batch: dict[str, Tensor], *, group: ProcessGroup, gradients: bool = True
) -> str | None:
    """Run `step` on `batch`; describe the first value that was not finite, or return None. All ranks return the same.

    Args:
        method: module whose layers are checked.
        step: trains on a batch and returns its losses.
        batch: a batch; only its tensors are checked.
        group: processes that share the step.
        gradients: whether to check gradients; with a scaled loss, they may overflow.
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
    first = found[0] if found else None
    return next((each for each in group.all_gather_object(first) if each), None)


def _hooks(method: nn.Module, found: list[str], gradients: bool) -> Iterator[RemovableHandle]:
    """Register hooks that append to `found` where the first non-finite value is; yield their handles."""
    for name, module in method.named_modules():
        if _is_layer(module):
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


def _is_layer(module: nn.Module) -> bool:
    # A layer with spectral norm has its parametrization as a child.
    return not isinstance(module, nn.Identity) and {name for name, _ in module.named_children()} <= {"parametrizations"}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for entry in value for tensor in _tensors(entry)] if isinstance(value, (list, tuple)) else []
