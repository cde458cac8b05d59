"""Which input positions an output position reads, in whole numbers: the arithmetic under `receptive_field`.

`Axis` follows one image axis through a network, `Layout` follows both through the shapes of its tensors.
Borders do not exist here: an image is endless. Channels are not told apart: all of them read what one reads.
The two axes are followed apart, which is exact as long as each map's spans are the same in every row and column;
where a deconvolution leaves positions that read nothing, a sum of branches is a bound.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, gcd, lcm, prod

Span = tuple[int, int] | None
"""The first and the last input position that are read, or None where nothing is."""

MAX_PERIOD = 1 << 16


class NoFixedFieldError(Exception):
    """An operation gives a map without a fixed receptive field; the text says what the operation does."""


@dataclass(frozen=True)
class Resampling:
    """One operation along one axis: position j of its result reads the positions ``reads(j)`` of its input.

    `step` is the input positions per result position: for every n that makes ``step * n`` whole, ``j + n``
    reads ``step * n`` further on than j.
    """

    step: Fraction
    reads: Callable[[int], Iterable[int]]


def window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Resampling:
    """Return the resampling of a convolution or a pooling."""
    return Resampling(Fraction(stride), lambda j: (j * stride - padding + dilation * tap for tap in range(kernel)))


def transposed_window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Resampling:
    """Return the resampling of a deconvolution; a kernel below the stride leaves some that read nothing."""

    def reads(j: int) -> Iterable[int]:
        taps = (j + padding - dilation * tap for tap in range(kernel))
        return (tap // stride for tap in taps if tap % stride == 0)

    return Resampling(Fraction(1, stride), reads)


def shifted(by: int) -> Resampling:
    """Return the resampling of a padding by `by` positions in front, or of a crop where `by` is negative."""
    return Resampling(Fraction(1), lambda j: (j - by,))


def every(stride: int, start: int) -> Resampling:
    """Return the resampling of the slice ``[start::stride]``."""
    return Resampling(Fraction(stride), lambda j: (start + j * stride,))


def nearest(step: Fraction, *, exact: bool = False) -> Resampling:
    """Return the resampling of nearest-neighbour interpolation (`exact`: sampled at the pixels' centres)."""
    shift = Fraction(1, 2) if exact else Fraction(0)
    return Resampling(step, lambda j: (floor((j + shift) * step),))


def area(step: Fraction) -> Resampling:
    """Return the resampling of an adaptive pooling: every input position that the new pixel touches."""
    return Resampling(step, lambda j: range(floor(j * step), ceil((j + 1) * step)))


def interpolated(step: Fraction, radius: int, *, antialias: bool = False) -> Resampling:
    """Return the resampling of linear (`radius` 1) or cubic (2) interpolation, corners not aligned.

    Both kernels are 0 at distance `radius`, and at 1 too: a sample right on a pixel reads that pixel only.
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


def _moved(span: Span, by: int) -> Span:
    return None if span is None else (span[0] + by, span[1] + by)


@dataclass(frozen=True)
class Axis:
    """What each position of a map reads along one axis of the input, in the smallest period that repeats.

    With P phases, position ``P * q + r`` reads the span ``phases[r]``, moved by ``shift * q``.
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
        return _moved(self.phases[phase], self.shift * periods)

    def through(self, resampling: Resampling) -> "Axis":
        """Return the axis of the map that `resampling` makes of this one."""
        step, old = resampling.step, len(self.phases)
        period = step.denominator * (old // gcd(old, step.numerator))
        phases = _phases(period, lambda j: _hull(map(self.at, resampling.reads(j))))
        return _smallest(int(self.stride * step * period), phases)

    def union(self, other: "Axis") -> "Axis":
        """Return the axis of a map whose positions read what the same positions of both maps read."""
        if self == other:
            return self
        if self.stride != other.stride:
            raise NoFixedFieldError(
                f"joins branches of different strides ({self.stride} and {other.stride} input pixels)"
            )
        period = lcm(len(self.phases), len(other.phases))
        phases = _phases(period, lambda j: _hull((self.at(j), other.at(j))))
        return _smallest(int(self.stride * period), phases)


def _phases(period: int, span: Callable[[int], Span]) -> list[Span]:
    if period > MAX_PERIOD:
        raise NoFixedFieldError(f"repeats only after {period} positions (sizes with common factors repeat sooner)")
    return [span(j) for j in range(period)]


def _smallest(shift: int, phases: list[Span]) -> Axis:
    total = len(phases)
    for period in range(1, total):
        if total % period or shift * period % total:
            continue
        by = shift * period // total
        if all(phases[r + period] == _moved(phases[r], by) for r in range(total - period)):
            return Axis(by, tuple(phases[:period]))
    return Axis(shift, tuple(phases))


@dataclass(frozen=True)
class Factor:
    """A part of a tensor's dimension: an image axis with its `name`, or anything else (no name)."""

    size: int
    name: str = ""
    axis: Axis = Axis()


Dim = tuple[Factor, ...]
"""The factors of a dimension, the slowest first; a nameless one can only come first, for a named one takes in
what varies faster (as pixel shuffle does)."""
Layout = tuple[Dim, ...]
"""Where a tensor's dimensions hold the image axes; each axis of a map stands in exactly one of them."""


def plain(size: int) -> Dim:
    """Return a dimension that holds no image axis."""
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
            axis = last.axis.through(nearest(Fraction(1, factor.size)))
            dim.append(Factor(last.size * factor.size, last.name, axis))
    return tuple(dim)


def _split(factor: Factor, major: int) -> tuple[Factor, Factor]:
    minor = factor.size // major
    if factor.name and minor > major:
        raise NoFixedFieldError(f"cuts the {factor.name} into {major} strips, whose size follows the image's")
    return Factor(major, factor.name, factor.axis.through(area(Fraction(minor)))), Factor(minor)


def regrouped(layout: Layout, shape: Sequence[int]) -> Layout:
    """Return the layout after a reshape to `shape`."""
    rest: list[Factor] = []
    for factor in (factor for dim in layout for factor in dim):
        if rest and not factor.name and not rest[-1].name:
            rest.append(Factor(rest.pop().size * factor.size))
        else:
            rest.append(factor)
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


def merged(layouts: Iterable[Layout], shape: Sequence[int]) -> Layout:
    """Return the layout of a tensor of `shape` computed position by position from broadcast operands."""
    dims = [plain(size) for size in shape]
    for layout in layouts:
        for k, dim in enumerate(layout, start=len(shape) - len(layout)):
            if prod(factor.size for factor in dim) == shape[k]:
                dims[k] = _merged_dim(dims[k], dim)
            elif names([dim]):
                raise NoFixedFieldError(f"spreads one position over the whole {names([dim])[0]}")
    return joined(dims)


def _merged_dim(one: Dim, other: Dim) -> Dim:
    if not (names([one]) and names([other])):
        return one if names([one]) else other
    if [(f.size, f.name) for f in one] != [(f.size, f.name) for f in other]:
        raise NoFixedFieldError("joins maps whose axes differ")
    return tuple(Factor(a.size, a.name, a.axis.union(b.axis)) for a, b in zip(one, other, strict=True))


def joined(dims: Iterable[Dim]) -> Layout:
    """Return `dims` as a layout if no image axis stands in two of them."""
    layout = tuple(dims)
    found = names(layout)
    if len(set(found)) != len(found):
        raise NoFixedFieldError("compares every position with every other")
    return layout


def respaced(dim: Dim, size: int, resampling: Resampling) -> Dim:
    """Return the dimension of the new `size` that `resampling` makes of `dim`."""
    if not names([dim]):
        return plain(size)
    if len(dim) > 1:
        raise NoFixedFieldError("runs over several axes that a reshape made one")
    return (Factor(size, dim[0].name, dim[0].axis.through(resampling)),)


def without_axes(layout: Layout, dims: Iterable[int]) -> None:
    """Refuse an operation that joins all positions along `dims`, if one of them holds an image axis."""
    found = names(layout[k] for k in dims)
    if found:
        raise NoFixedFieldError(f"joins positions along the whole {' and '.join(found)}")
