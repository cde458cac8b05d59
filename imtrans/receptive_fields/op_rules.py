"""Rules of `receptive_field`: for each tensor operation, the layout of its result from the layouts of its operands."""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imtrans.receptive_fields import spans
from imtrans.receptive_fields.spans import Layout, NoFixedFieldError, Resampling, names, plain


class Call(NamedTuple):
    """A call of an operation: its arguments by name, and the layouts of all tensors that depend on the image."""

    func: Any
    args: dict[str, Any]
    tracked: list[Tensor]
    layouts: Mapping[Tensor, Layout]

    @property
    def name(self) -> str:
        """The operation's name without its in-place underscore and number of axes."""
        return re.sub(r"[123]d", "", self.func._schema.name.removeprefix("aten::").rstrip("_"))

    @property
    def image(self) -> Tensor:
        """The main operand."""
        return self.args["input" if "input" in self.args else "self"]

    def of(self, tensor: Tensor) -> Layout:
        """Return the layout of an operand."""
        return self.layouts[tensor] if tensor in self.layouts else tuple(map(plain, tensor.shape))

    def layout_of(self, made: Tensor) -> Layout:
        """Return the layout of the result `made`; raise a NoFixedFieldError if there is no rule for it."""
        if self.name in _FRESH:
            return tuple(map(plain, made.shape))
        rule = _RULES.get(self.name)
        if rule is None and torch.Tag.pointwise in self.func.tags:
            rule = _pointwise
        elif rule is None and "self" in self.args and ("dim" in self.args or "dims" in self.args):
            rule = _along
        elif rule is None:
            raise NoFixedFieldError("mixes positions in a way that no convolution, pooling or resampling does")
        alone = rule is not _pointwise and self.name not in _SYMMETRIC
        if alone and any(tensor is not self.image for tensor in self.tracked):
            raise NoFixedFieldError("takes its weights or its indices from the image")
        return rule(self, made)


Rule = Callable[[Call, Tensor], Layout]
_RULES: dict[str, Rule] = {}
_FRESH = {f"{kind}_like" for kind in ("empty", "zeros", "ones", "full", "rand", "randn", "randint")}
_FRESH |= {"new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"}
_SYMMETRIC = {"cat", "stack", "mm", "bmm", "addmm", "baddbmm"}


def _rule(operations: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operations.split(), rule))
        return rule

    return register


@_rule(
    "alias detach _to_copy lift_fresh fill zero bernoulli native_dropout rrelu_with_noise "
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_batch_norm_with_update _batch_norm_no_update channel_shuffle native_group_norm native_layer_norm"
)
def _same(call: Call, made: Tensor) -> Layout:
    return call.of(call.image) if made.shape == call.image.shape else tuple(map(plain, made.shape))


@_rule("expand repeat copy _prelu_kernel")
def _pointwise(call: Call, made: Tensor) -> Layout:
    operands = [call.args["src"]] if call.name == "copy" else call.tracked
    return spans.broadcast(map(call.of, operands), made.shape)


@_rule("view _unsafe_view _reshape_alias unsqueeze squeeze")
def _view(call: Call, made: Tensor) -> Layout:
    return spans.reshape(call.of(call.image), made.shape)


@_rule("permute")
def _permute(call: Call, made: Tensor) -> Layout:
    return tuple(call.of(call.image)[k] for k in call.args["dims"])


@_rule("transpose t")
def _transpose(call: Call, made: Tensor) -> Layout:
    layout = list(call.of(call.image))
    one, other = call.args.get("dim0", 0), call.args.get("dim1", -1)
    layout[one], layout[other] = layout[other], layout[one]
    return tuple(layout)


def _along(call: Call, made: Tensor) -> Layout:
    """Any operation along dimensions without an image axis: reduction, softmax, split, select."""
    given = call.args["dim"] if "dim" in call.args else call.args["dims"]
    count = call.image.ndim
    dims = {k % count for k in ([given] if isinstance(given, int) else given or range(count))}
    layout = call.of(call.image)
    spans.forbid_axes(layout, dims)
    if made.ndim == count - len(dims):
        return tuple(dim for k, dim in enumerate(layout) if k not in dims)
    return tuple(plain(made.shape[k]) if k in dims else dim for k, dim in enumerate(layout))


@_rule("index")
def _index(call: Call, made: Tensor) -> Layout:
    chosen = [(k, index) for k, index in enumerate(call.args["indices"]) if index is not None]
    layout = call.of(call.image)
    spans.forbid_axes(layout, [k for k, _ in chosen])
    if len(chosen) != 1 or chosen[0][1].ndim != 1:
        raise NoFixedFieldError("gathers along several axes at once")
    return tuple(plain(made.shape[k]) if k == chosen[0][0] else dim for k, dim in enumerate(layout))


@_rule("slice")
def _slice(call: Call, made: Tensor) -> Layout:
    dim, start, stop, step = (call.args[key] for key in ("dim", "start", "end", "step"))
    start = range(call.image.shape[dim])[start:stop:step].start
    return _resampled(call, made, [spans.window(1, step, -start)], first=dim)


@_rule("roll")
def _roll(call: Call, made: Tensor) -> Layout:
    if not call.args["dims"]:
        raise NoFixedFieldError("rolls the flattened image")
    layout = list(call.of(call.image))
    for dim, by in zip(call.args["dims"], call.args["shifts"], strict=True):
        layout[dim] = spans.resample(layout[dim], made.shape[dim], spans.window(1, padding=by))
    return tuple(layout)


@_rule("unfold")
def _unfold(call: Call, made: Tensor) -> Layout:
    size, step, dim = (call.args[key] for key in ("size", "step", "dimension"))
    return (*_resampled(call, made, [spans.window(size, step)], first=dim % call.image.ndim), plain(size))


@_rule("cat")
def _cat(call: Call, made: Tensor) -> Layout:
    dim = call.args["dim"] % made.ndim
    before, layouts = 0, []
    for piece in (piece for piece in call.args["tensors"] if piece.ndim == made.ndim):
        layout, size = list(call.of(piece)), piece.shape[dim]
        # Narrow pieces next to the image are padding, and borders do not count.
        if not names([layout[dim]]) or size * 4 >= made.shape[dim] * 3:
            layout[dim] = spans.resample(layout[dim], made.shape[dim], spans.window(1, padding=before))
            layouts.append(tuple(layout))
        before += size
    if not any(map(names, layouts)):
        raise NoFixedFieldError("puts pieces of the image side by side")
    return spans.broadcast(layouts, made.shape)


@_rule("stack")
def _stack(call: Call, made: Tensor) -> Layout:
    dim = call.args["dim"] % made.ndim
    pieces = [list(call.of(piece)) for piece in call.args["tensors"]]
    return spans.broadcast([(*p[:dim], plain(made.shape[dim]), *p[dim:]) for p in pieces], made.shape)


@_rule("mm bmm addmm baddbmm")
def _matmul(call: Call, made: Tensor) -> Layout:
    *bias, one, other = (call.of(operand) for operand in call.args.values() if isinstance(operand, Tensor))
    spans.forbid_axes(one, [-1])
    spans.forbid_axes(other, [-2])
    batch = spans.broadcast([one[:-2], other[:-2]], made.shape[:-2])
    product = spans.check_layout((*batch, one[-2], other[-1]))
    return spans.broadcast([product, *bias], made.shape)


def _resampled(
    call: Call, made: Tensor, by: Sequence[Resampling], *, first: int | None = None, mixed: int | None = None
) -> Layout:
    """Resample the last dimensions (or those from `first` on) and mix all positions of the dimension `mixed`."""
    layout = list(call.of(call.image))
    if mixed is not None:
        spans.forbid_axes(tuple(layout), [mixed])
        layout[mixed] = plain(made.shape[mixed])
    for dim, resampling in enumerate(by, start=-len(by) if first is None else first):
        layout[dim] = spans.resample(layout[dim], made.shape[dim], resampling)
    return tuple(layout)


def _each(value: int | Sequence[int], count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _num_axes(call: Call) -> int:
    found = re.search(r"([123])d", call.func._schema.name)
    return int(found[1]) if found else 2


@_rule("convolution")
def _convolution(call: Call, made: Tensor) -> Layout:
    kernel = call.args["weight"].shape[2:]
    stride, padding, dilation = (_each(call.args[key], len(kernel)) for key in ("stride", "padding", "dilation"))
    make = spans.transposed_window if call.args["transposed"] else spans.window
    return _resampled(call, made, list(map(make, kernel, stride, padding, dilation)), mixed=-len(kernel) - 1)


@_rule("max_pool_with_indices avg_pool")
def _pool(call: Call, made: Tensor) -> Layout:
    count = _num_axes(call)
    kernel = _each(call.args["kernel_size"], count)
    stride = _each(call.args["stride"] or kernel, count)
    padding, dilation = _each(call.args["padding"], count), _each(call.args.get("dilation", 1), count)
    return _resampled(call, made, list(map(spans.window, kernel, stride, padding, dilation)))


@_rule("constant_pad_nd reflection_pad replication_pad")
def _pad(call: Call, made: Tensor) -> Layout:
    pads = call.args["pad" if "pad" in call.args else "padding"]
    return _resampled(call, made, [spans.window(1, padding=front) for front in pads[-2::-2]])


def _steps(call: Call, made: Tensor) -> list[Fraction]:
    """Return the input positions per output position: from the given scale, else from the sizes."""
    count = _num_axes(call)
    scales = [value for key, value in call.args.items() if key.startswith("scales")] or [None] * count
    sizes = zip(call.image.shape[-count:], made.shape[-count:], scales, strict=True)
    return [Fraction(a, b) if s is None else Fraction(1 / s).limit_denominator(4096) for a, b, s in sizes]


@_rule("_adaptive_avg_pool adaptive_max_pool")
def _adaptive_pool(call: Call, made: Tensor) -> Layout:
    steps = _steps(call, made)
    if any(made.shape[k] == 1 < call.image.shape[k] for k in range(-len(steps), 0)):
        raise NoFixedFieldError("reads the whole image")
    return _resampled(call, made, list(map(spans.area, steps)))


@_rule(
    "upsample_nearest _upsample_nearest_exact upsample_linear upsample_bilinear upsample_trilinear "
    "upsample_bicubic _upsample_bilinear_aa _upsample_bicubic_aa"
)
def _upsample(call: Call, made: Tensor) -> Layout:
    if call.args.get("align_corners"):
        raise NoFixedFieldError("aligns the corners, so that its stride depends on the size of the image")
    steps = _steps(call, made)
    if "nearest" in call.name:
        return _resampled(call, made, [spans.nearest(step, exact="exact" in call.name) for step in steps])
    radius, antialias = 2 if "cubic" in call.name else 1, call.name.endswith("_aa")
    return _resampled(call, made, [spans.interpolated(step, radius, antialias=antialias) for step in steps])


@_rule("pixel_shuffle pixel_unshuffle")
def _pixel_shuffle(call: Call, made: Tensor) -> Layout:
    factor = call.args.get("upscale_factor")
    by = spans.nearest(Fraction(1, factor)) if factor else spans.area(Fraction(call.args["downscale_factor"]))
    return _resampled(call, made, [by] * 2, mixed=-3)
