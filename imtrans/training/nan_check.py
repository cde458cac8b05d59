"""Where in a network values stopped being finite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.distributed.process_group import process_group

Step = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Found = list[str]


def non_finite_weight(method: nn.Module) -> str | None:
    """The name of the first parameter, or else running statistic, that holds NaN or infinity; or None."""
    named: list[tuple[str, Tensor]] = [*method.named_parameters()]
    # Other buffers may hold infinity for a reason, as a mask does.
    named += [each for each in method.named_buffers() if each[0].endswith(("running_mean", "running_var"))]
    if not named:
        return None
    # One tensor to read, however many parameters there are.
    finite = torch.stack([parameter.isfinite().all() for _, parameter in named]).tolist()
    return next((name for (name, _), fine in zip(named, finite, strict=True) if not fine), None)


def first_not_finite(method: nn.Module, step: Step, batch: dict[str, Tensor], *, gradients: bool = True) -> str | None:
    """Run `step` on `batch`, and tell in words where the first value appeared that is not finite; None if none did.

    All processes that share the step are told the same.

    Args:
        method: whose layers are watched.
        step: trains on a batch, and returns its losses.
        batch: of tensors.
        gradients: whether to watch them too; with scaled losses, infinite ones are no fault.
    """
    with _watched(method, gradients) as found:
        found += [f"the batch's {name}" for name, tensor in batch.items() if not _finite(tensor)]
        # All the same: other processes may share the step, and their part may be sound.
        losses = step(batch)
    found += [f"the loss {name}, and no layer" for name, loss in losses.items() if not _finite(loss)]
    if weight := non_finite_weight(method):
        found.append(f"the weight {weight}, as it was updated")
    return next((each for each in process_group().all_gather_object(next(iter(found), None)) if each), None)


@contextmanager
def _watched(method: nn.Module, gradients: bool) -> Iterator[Found]:
    found: Found = []
    handles: list[Any] = []
    for name, module in method.named_modules():
        # A layer with spectral norm has its parametrization as a child, and is a layer all the same.
        is_layer = all(child == "parametrizations" for child, _ in module.named_children())
        if is_layer and not isinstance(module, nn.Identity):
            layer = f"{name} ({type(module).__name__})"
            if gradients:
                handles.append(module.register_forward_pre_hook(_watch_gradients(layer, found)))
            handles.append(module.register_forward_hook(_watch_output(layer, found)))
    for name, parameter in method.named_parameters():
        if gradients and parameter.requires_grad:
            handles.append(parameter.register_hook(_recorder(f"the gradient of {name}", found)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _watch_output(layer: str, found: Found) -> Callable[..., None]:
    record = _recorder(f"the output of {layer}", found)

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in _tensors(output):
            record(tensor)

    return hook


def _watch_gradients(layer: str, found: Found) -> Callable[..., None]:
    """What a layer sends back is the gradient of its input."""
    record = _recorder(f"the gradient from {layer}", found)

    def hook(module: nn.Module, inputs: Any) -> None:
        for tensor in _tensors(inputs):
            if tensor.requires_grad:
                tensor.register_hook(record)

    return hook


def _recorder(what: str, found: Found) -> Callable[[Tensor], None]:
    def record(tensor: Tensor) -> None:
        if not found and not _finite(tensor):
            found.append(what)

    return record


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for entry in value for tensor in _tensors(entry)] if isinstance(value, (list, tuple)) else []


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
