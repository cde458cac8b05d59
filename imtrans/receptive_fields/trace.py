"""`receptive_field`: run a module on tensors without data and trace the input pixels that its output reads."""

from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from imtrans.checks import at_least
from imtrans.errors import ArgumentError
from imtrans.receptive_fields.op_rules import Call
from imtrans.receptive_fields.spans import Axis, Factor, Layout, NoFixedFieldError, names, plain

Stride = int | Fraction


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive field of one output position in input pixels; pairs (height, width) if the axes differ.

    Attributes:
        size: pixels from the first to the last that an output position reads; the maximum over all positions.
        stride: pixels from one output position to the next; a fraction below 1 if the module upsamples.
        offset: first pixel that output position 0 reads, or the first position that reads any; negative in the padding.
    """

    size: int | tuple[int, int]
    stride: Stride | tuple[Stride, Stride]
    offset: int | tuple[int, int]


def receptive_field(
    module: nn.Module, *, in_channels: int | None = None, input_size: int | tuple[int, int] = 4096
) -> ReceptiveField:
    """Return the receptive field of any `module` that maps ``(b, in_channels, h, w) -> (b, c, h', w')``.

    The forward pass runs once, on tensors without data, and is traced by tensor operation, not by layer. No weight is
    copied and no state changes.

    - The field is measured far from the borders. It includes the holes of dilated kernels, but not the statistics that
      a norm computes over the image.
    - It is the theoretical, not the effective, receptive field of Luo et al. 2016 (arXiv:1701.04128). The arithmetic
      of Araujo et al. 2019 (doi:10.23915/distill.00021), applied to each output phase, is exact for resampling too.
    - It is an upper bound if a deconvolution with a kernel below its stride is added to another map.

    Args:
        module: takes one image tensor and returns one.
        in_channels: number of input channels; None for the `in_channels` of the first (sub)module that has it, or 1.
        input_size: height and width of the input in pixels; it costs no memory. The field of a module that resizes to
            a fixed size depends on it.

    Raises:
        ArgumentError: the module cannot run on this input, does not return one map that depends on it, or has no fixed
            receptive field. Attention, a mean over the image, flattening, ``align_corners=True`` and branches of
            different strides have none; the message names the operation.

    >>> receptive_field(nn.Sequential(nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3)))
    ReceptiveField(size=8, stride=2, offset=-1)
    >>> receptive_field(nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1))
    ReceptiveField(size=2, stride=Fraction(1, 2), offset=-1)
    >>> receptive_field(nn.MaxPool2d((3, 1)))
    ReceptiveField(size=(3, 1), stride=(3, 1), offset=0)
    """
    try:
        output, layout = _run(module, in_channels, input_size, _Trace())
    except NoFixedFieldError as reason:
        raise ArgumentError(
            f"receptive_field: {type(module).__name__} has no fixed receptive field, because {reason}. "
            "Measure the part of the module before that."
        ) from None
    return _summary(type(module).__name__, output, layout)


def receptive_fields(
    module: nn.Module, parts: Mapping[str, nn.Module], *, in_channels: int | None = None, input_size: int = 4096
) -> dict[str, ReceptiveField | None]:
    """Return the receptive field of the output of each of the `parts` of a module, in pixels of the module's input.

    A part is None if it is not called, returns no map, or has no fixed receptive field: see `receptive_field`. The
    forward pass runs once. A part that is called several times counts the first time.

    Raises:
        ArgumentError: the module cannot run on this input.

    >>> layers = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2), nn.Conv2d(8, 8, 3), nn.Flatten())
    >>> fields = receptive_fields(layers, dict(layers.named_children()))
    >>> [field and field.size for field in fields.values()]
    [4, 8, None]
    """
    mode, found = _Trace(), dict.fromkeys(parts.values())

    def record(part: nn.Module, inputs: object, output: object) -> None:
        if found[part] is None:
            layout = mode.layouts.get(output, ()) if isinstance(output, Tensor) else ()
            with suppress(ArgumentError):
                found[part] = _summary(type(part).__name__, output, layout)

    hooks = [part.register_forward_hook(record) for part in found]
    try:
        # The parts before the operation that has no fixed receptive field have one.
        with suppress(NoFixedFieldError):
            _run(module, in_channels, input_size, mode)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[part] for name, part in parts.items()}


def _run(
    module: nn.Module, in_channels: int | None, input_size: int | tuple[int, int], mode: "_Trace"
) -> tuple[object, Layout]:
    """Trace `module` in `mode`. Raises a NoFixedFieldError, and an ArgumentError if it cannot run."""
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    for size in (height, width):
        at_least("receptive_field", "input_size", size, 1)
    shape = (1, _in_channels(module, in_channels), height, width)
    try:
        return _trace(module, shape, mode)
    except NoFixedFieldError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"receptive_field: {type(module).__name__} cannot run on an input of shape {shape} ("
            f"{type(error).__name__}: {error}). Pass the in_channels and the input_size that it takes."
        ) from error


def _in_channels(module: nn.Module, given: int | None) -> int:
    if given is not None:
        return at_least("receptive_field", "in_channels", given, 1)
    found = (getattr(part, "in_channels", None) for part in module.modules())
    return next((n for n in found if isinstance(n, int) and n > 0), 1)


def _trace(module: nn.Module, shape: tuple[int, int, int, int], mode: "_Trace | None" = None) -> tuple[object, Layout]:
    members = chain(module.named_parameters(), module.named_buffers())
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in members}
    dtypes = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    # Hooks of the older spectral_norm and weight_norm set plain attributes.
    attributes = [(part, dict(vars(part))) for part in module.modules()]
    mode = mode or _Trace()
    try:
        with torch.no_grad(), torch.device("meta"), _CircularAsReplicate(), mode:
            image = torch.empty(shape, dtype=next(dtypes, torch.float32))
            axes = (Factor(shape[2], "height"),), (Factor(shape[3], "width"),)
            mode.layouts[image] = (plain(shape[0]), plain(shape[1]), *axes)
            output = torch.func.functional_call(module, state, (image,))
    finally:
        for part, before in attributes:
            vars(part).clear()
            vars(part).update(before)
    return output, mode.layouts.get(output, ()) if isinstance(output, Tensor) else ()


def _summary(owner: str, output: object, layout: Layout) -> ReceptiveField:
    if not isinstance(output, Tensor) or output.ndim != 4:
        got = f"a {type(output).__name__}" if not isinstance(output, Tensor) else f"shape {tuple(output.shape)}"
        raise ArgumentError(
            f"receptive_field: {owner} returns {got}, not one map (b, c, h, w). "
            "Wrap it in a module that returns the map to measure."
        )
    axes = [factor.axis for dim in layout for factor in dim if factor.name]
    if not axes or not all(any(axis.phases) for axis in axes):
        raise ArgumentError(
            f"receptive_field: the output of {owner} does not depend on its input, so it has no receptive "
            "field. Measure a module whose output does."
        )
    if [[factor.name for factor in dim] for dim in layout[2:]] != [["height"], ["width"]]:
        raise ArgumentError(
            f"receptive_field: {owner} returns shape {tuple(output.shape)}, whose last two axes are not the "
            "height and width of its input. Wrap it in a module that returns (b, c, h, w)."
        )
    size, stride, offset = zip(*map(_axis_summary, axes), strict=True)
    return ReceptiveField(_one_or_both(size), _one_or_both(stride), _one_or_both(offset))


def _axis_summary(axis: Axis) -> tuple[int, Stride, int]:
    spans = [span for span in axis.phases if span]
    stride = int(axis.stride) if axis.stride.denominator == 1 else axis.stride
    return max(high - low + 1 for low, high in spans), stride, spans[0][0]


def _one_or_both(pair: tuple[Any, ...]) -> Any:
    return pair[0] if pair[0] == pair[1] else pair


class _CircularAsReplicate(TorchFunctionMode):
    """Replaces circular by replication padding: a single operation, which differs only at the borders."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.pad, torch._C._nn.pad) and "circular" in (*args[2:3], kwargs.get("mode")):
            args, kwargs = (*args[:2], "replicate"), {k: v for k, v in kwargs.items() if k in ("input", "pad")}
        return func(*args, **kwargs)


class _Trace(TorchDispatchMode):
    """Records the layout of every tensor that depends on the image, operation by operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layouts: MutableMapping[Tensor, Layout] = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.is_meta for tensor in tensors) and not func._schema.is_mutable:
            # A module may hold tensors that are neither parameters nor buffers.
            args, kwargs = tree_map(_to_meta, (args, kwargs))
        tracked = [tensor for tensor in tensors if tensor in self.layouts]
        result = func(*args, **kwargs)
        if tracked:
            call = Call(func, _bound(func, args, kwargs), tracked, self.layouts)
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            if not made and func._schema.is_mutable:
                raise NoFixedFieldError(f"{func} writes into tensors that it does not return")
            for tensor in made:
                self._record(call, tensor)
        return result

    def _record(self, call: Call, made: Tensor) -> None:
        try:
            layout = call.layout_of(made)
            if call.func._schema.is_mutable and made._is_view() and call.of(made) != layout:
                raise NoFixedFieldError("writes into a part of another tensor")
        except NoFixedFieldError as reason:
            raise NoFixedFieldError(f"{call.func} {reason}") from None
        if names(layout):
            self.layouts[made] = layout
        else:
            self.layouts.pop(made, None)


def _to_meta(leaf: object) -> object:
    return leaf.to("meta") if isinstance(leaf, Tensor) and not leaf.is_meta else leaf


def _bound(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call by name, defaults included."""
    defaults = {parameter.name: parameter.default_value for parameter in func._schema.arguments}
    return defaults | dict(zip(defaults, args, strict=False)) | kwargs
