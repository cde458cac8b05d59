"""Integer arithmetic of receptive fields: the span of input positions that each output position reads.

`Axis` holds these spans along one image axis, `Layout` places both axes in the dimensions of a tensor. Images have no
borders here, and all channels of a map read the same span. Height and width are independent; this is exact if all rows
and all columns read the same spans.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import ceil, floor, gcd, lcm, prod
from typing import NamedTuple

Span = tuple[int, int] | None
"""First and last input position that is read; None if there is none."""

MAX_PERIOD = 1 << 16


class NoFixedFieldError(Exception):
    """The result of an operation has no fixed receptive field; the text says what the operation does."""


class Resampling(NamedTuple):
    """An operation along one axis: output position j reads the input positions ``reads(j)``.

    `step` is the number of input positions per output position. For every n with a whole ``step * n``, ``reads(j + n)``
    is ``reads(j)`` shifted by ``step * n``.
    """

    step: Fraction
    reads: Callable[[int], Iterable[int]]


def window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Resampling:
    """Return the resampling of a convolution, a pooling, or (`kernel` 1) a slice, a padding or a crop."""
    return Resampling(Fraction(stride), lambda j: (j * stride - padding + dilation * tap for tap in range(kernel)))


def transposed_window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Resampling:
    """Return the resampling of a deconvolution; with a kernel below the stride, some positions read nothing."""

    def reads(j: int) -> Iterable[int]:
        taps = (j + padding - dilation * tap for tap in range(kernel))
        return (tap // stride for tap in taps if tap % stride == 0)

    return Resampling(Fraction(1, stride), reads)


def nearest(step: Fraction, *, exact: bool = False) -> Resampling:
    """Return the resampling of nearest-neighbour interpolation; `exact` samples at pixel centres."""
    offset = Fraction(1, 2) if exact else Fraction(0)
    return Resampling(step, lambda j: (floor((j + offset) * step),))


def area(step: Fraction) -> Resampling:
    """Return the resampling of adaptive pooling: every input position that the output pixel overlaps."""
    return Resampling(step, lambda j: range(floor(j * step), ceil((j + 1) * step)))


def interpolated(step: Fraction, radius: int, *, antialias: bool = False) -> Resampling:
    """Return the resampling of linear (`radius` 1) or cubic (2) interpolation without aligned corners.

    Both kernels are 0 at the distances 1 and `radius`: a sample exactly on a pixel reads only this pixel.
    """
    unit = max(step, Fraction(1)) if antialias else Fraction(1)

    def reads(j: int) -> Iterable[int]:
        centre = (j + Fraction(1, 2)) * step - Fraction(1, 2)
        near = range(ceil(centre - radius * unit), floor(centre + radius * unit) + 1)
        return (i for i in near if abs(i - centre) not in (unit, radius * unit))

    return Resampling(step, reads)


def _hull(spans: Iterable[Span]) -> Span:
    known = [span for span in spans if span is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _shifted(span: Span, by: int) -> Span:
    return None if span is None else (span[0] + by, span[1] + by)


class Axis(NamedTuple):
    """Spans that the positions of a map read along one input axis; `phases` is the smallest period.

    With P phases, position ``P * q + r`` reads the span ``phases[r]`` shifted by ``shift * q``.
    """

    shift: int = 1
    phases: tuple[Span, ...] = ((0, 0),)

    @property
    def stride(self) -> Fraction:
        """Input positions per position of the map."""
        return Fraction(self.shift, len(self.phases))

    def at(self, position: int) -> Span:
        """Return the span that `position` reads."""
        periods, phase = divmod(position, len(self.phases))
        return _shifted(self.phases[phase], self.shift * periods)

    def resample(self, resampling: Resampling) -> "Axis":
        """Return the axis after `resampling`."""
        step, old = resampling.step, len(self.phases)
        period = step.denominator * (old // gcd(old, step.numerator))
        return _periodic(self.stride * step, period, lambda j: _hull(map(self.at, resampling.reads(j))))

    def union(self, other: "Axis") -> "Axis":
        """Return the axis whose positions read the spans of both axes."""
        if self == other:
            return self
        if self.stride != other.stride:
            strides = f"{self.stride} and {other.stride}"
            raise NoFixedFieldError(f"joins branches of different strides ({strides} input pixels)")
        period = lcm(len(self.phases), len(other.phases))
        return _periodic(self.stride, period, lambda j: _hull((self.at(j), other.at(j))))


def _periodic(stride: Fraction, total: int, span: Callable[[int], Span]) -> Axis:
    """Return the axis whose position j reads ``span(j)``, which repeats after `total` positions or sooner."""
    if total > MAX_PERIOD:
        raise NoFixedFieldError(f"repeats only after {total} positions (sizes with common factors repeat sooner)")
    phases = [span(j) for j in range(total)]
    for period in range(1, total):
        by = stride * period
        if total % period or by.denominator > 1:
            continue
        if all(phases[r + period] == _shifted(phases[r], int(by)) for r in range(total - period)):
            return Axis(int(by), tuple(phases[:period]))
    return Axis(int(stride * total), tuple(phases))


class Factor(NamedTuple):
    """A factor of a tensor's dimension: an image axis with its `name`, or anything else with no name."""

    size: int
    name: str = ""
    axis: Axis = Axis()


Dim = tuple[Factor, ...]
"""The factors of a dimension, the slowest first. Only the first can be nameless: an image axis absorbs faster ones."""
Layout = tuple[Dim, ...]
"""The factors of each dimension of a tensor; each image axis is in exactly one dimension."""


def plain(size: int) -> Dim:
    """Return a dimension without an image axis."""
    return (Factor(size),) if size != 1 else ()


def names(dims: Iterable[Dim]) -> list[str]:
    """Return the names of the image axes in `dims`."""
    return [factor.name for dim in dims for factor in dim if factor.name]


def _tidy(factors: Iterable[Factor]) -> Dim:
    dim: list[Factor] = []
    for factor in factors:
        if factor.name or not dim:
            dim.append(factor)
        else:
            last = dim.pop()
            axis = last.axis.resample(nearest(Fraction(1, factor.size)))
            dim.append(Factor(last.size * factor.size, last.name, axis))
    return tuple(dim)


def _split(factor: Factor, major: int) -> tuple[Factor, Factor]:
    minor = factor.size // major
    if factor.name and minor > major:
        raise NoFixedFieldError(f"cuts the {factor.name} into {major} strips, whose size follows the image's")
    return Factor(major, factor.name, factor.axis.resample(area(Fraction(minor)))), Factor(minor)


def reshape(layout: Layout, shape: Sequence[int]) -> Layout:
    """Return the layout after a reshape to `shape`."""
    rest: list[Factor] = []
    for factor in (factor for dim in layout for factor in dim):
        plain_pair = rest and not factor.name and not rest[-1].name
        rest.append(Factor(rest.pop().size * factor.size) if plain_pair else factor)
    rest.reverse()
    dims: list[list[Factor]] = []
    for size in shape:
        dims.append([rest.pop()] if size == 1 and rest and rest[-1].size == 1 else [])
        while size > 1:
            factor = rest.pop()
            if size % factor.size and factor.size % size:
                raise NoFixedFieldError("reshapes the image across its rows")
            if size % factor.size:
                factor, minor = _split(factor, size)
                rest.append(minor)
            dims[-1].append(factor)
            size //= factor.size
    if rest and dims:
        dims[-1].extend(reversed(rest))
    return tuple(map(_tidy, dims))


def broadcast(layouts: Iterable[Layout], shape: Sequence[int]) -> Layout:
    """Return the layout of a pointwise operation whose operands broadcast to `shape`."""
    dims = [plain(size) for size in shape]
    for layout in layouts:
        for k, dim in enumerate(layout, start=len(shape) - len(layout)):
            if prod(factor.size for factor in dim) == shape[k]:
                dims[k] = _broadcast_dim(dims[k], dim)
            elif names([dim]):
                raise NoFixedFieldError(f"spreads one position over the whole {names([dim])[0]}")
    return check_layout(dims)


def _broadcast_dim(one: Dim, other: Dim) -> Dim:
    if not (names([one]) and names([other])):
        return one if names([one]) else other
    if [(f.size, f.name) for f in one] != [(f.size, f.name) for f in other]:
        raise NoFixedFieldError("joins maps whose axes differ")
    return tuple(Factor(a.size, a.name, a.axis.union(b.axis)) for a, b in zip(one, other, strict=True))


def check_layout(dims: Iterable[Dim]) -> Layout:
    """Return `dims` as a layout; refuse an image axis in two of them."""
    layout = tuple(dims)
    found = names(layout)
    if len(set(found)) != len(found):
        raise NoFixedFieldError("compares every position with every other")
    return layout


def resample(dim: Dim, size: int, resampling: Resampling) -> Dim:
    """Return the dimension after `resampling`, with its new `size`."""
    if not names([dim]):
        return plain(size)
    if len(dim) > 1:
        raise NoFixedFieldError("runs over several axes that a reshape made one")
    return (Factor(size, dim[0].name, dim[0].axis.resample(resampling)),)


def forbid_axes(layout: Layout, dims: Iterable[int]) -> None:
    """Refuse an operation that mixes all positions along `dims` if one of them has an image axis."""
    found = names(layout[k] for k in dims)
    if found:
        raise NoFixedFieldError(f"joins positions along the whole {' and '.join(found)}")
