"""A network on a picture that is too large for it: overlapping tiles, put together without seams."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.errors import ArgumentError, ShapeError
from imtrans.receptive_fields.trace import receptive_field

_Batch = nn.modules.batchnorm._BatchNorm
_Instance = nn.modules.instancenorm._InstanceNorm
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tile:
    """A window of a picture, and how much each of its rows and columns counts in the whole."""

    rows: slice
    columns: slice
    row_weights: Tensor
    column_weights: Tensor
    multiple: int

    def cut(self, picture: Tensor) -> Tensor:
        """The window of `picture`, a view."""
        return picture[..., self.rows, self.columns]

    def weights(self) -> Tensor:
        """How much each pixel counts, ``(h, w)``."""
        return self.row_weights[:, None] * self.column_weights

    def weights_at(self, height: int, width: int) -> Tensor:
        """How much each position of a map counts that the network makes of the tile, ``(height, width)``."""
        rows, columns = (
            # The network has extended the tile to multiples of its stride before it halved it.
            F.adaptive_avg_pool1d(F.pad(w[None], (0, -len(w) % self.multiple), mode="replicate"), length)[0]
            for w, length in ((self.row_weights, height), (self.column_weights, width))
        )
        return rows[:, None] * columns


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: tiles of `size` pixels, each `step` after the one before.

    Where it is `exact`, the outer half of an overlap is cut off each tile; else tiles fade into one another.
    `multiple`, which divides both, is the one that the network extends a picture to.
    """

    size: int
    step: int
    exact: bool
    multiple: int = 1

    def windows(self, length: int) -> list[tuple[int, int]]:
        """First and last pixel (exclusive) of the tiles that cover `length` pixels.

        >>> Tiling(size=8, step=4, exact=True).windows(14)
        [(0, 8), (4, 12), (8, 14)]
        """
        count = 1 + max(0, -(-(length - self.size) // self.step))
        return [(i * self.step, min(i * self.step + self.size, length)) for i in range(count)]

    def weights(self, window: tuple[int, int], length: int) -> Tensor:
        """How much each pixel of a tile counts; with those of its neighbours it adds up to 1.

        >>> Tiling(size=8, step=4, exact=True).weights((4, 12), 14)
        tensor([0., 0., 1., 1., 1., 1., 0., 0.])
        """
        start, stop = window
        overlap = self.size - self.step
        place = torch.arange(overlap)
        # The outermost quarter of an overlap is left out: there a tile knows least of what surrounds it.
        fading = ((place + 0.5) / overlap * 2 - 0.5).clamp(0, 1)
        entering = (place >= overlap // 2).float() if self.exact else fading
        weights = torch.ones(stop - start)
        if start > 0:
            weights[:overlap] *= entering
        if stop < length:
            weights[-overlap:] *= 1 - entering
        return weights

    def tiles(self, height: int, width: int) -> list[Tile]:
        """The tiles of a picture, row by row."""
        rows, columns = (
            [(slice(*window), self.weights(window, length)) for window in self.windows(length)]
            for length in (height, width)
        )
        return [Tile(y, x, by_row, by_column, self.multiple) for y, by_row in rows for x, by_column in columns]


def plan_tiles(network: nn.Module, size: int, *, multiple: int, in_channels: int) -> Tiling:
    """Choose the overlap of tiles of `size` pixels, rounded up to a multiple of `multiple`.

    Tiles begin at multiples of `multiple`, the network's stride: every pixel meets the network in the phase that it
    has in the whole picture. If the receptive field reaches less than half a tile far, tiles overlap by twice its
    reach, and nothing is lost. If it reaches further, they overlap by half (or a little less).

    Raises:
        ArgumentError: there is no room for two strides in a tile.
    """
    asked, size = size, -(-size // multiple) * multiple
    try:
        field = receptive_field(network, in_channels=in_channels, input_size=size)
    except ArgumentError:  # attention: every pixel sees the whole picture
        reach = size
    else:
        sizes, offsets = _both(field.size), _both(field.offset)
        reach = max(max(-low, low + extent - 1) for extent, low in zip(sizes, offsets, strict=True)) + multiple
    step = (size - 2 * reach) // multiple * multiple
    if step >= multiple:
        return Tiling(size, step, exact=True, multiple=multiple)
    if size < 2 * multiple:
        raise ArgumentError(
            f"translate: tile={asked} leaves no overlap, because tiles of this network begin at multiples of "
            f"{multiple}. Use tile={2 * multiple} or more."
        )
    half = -(-size // (2 * multiple)) * multiple
    return Tiling(size, half, exact=False, multiple=multiple)


def _both(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def run_tiled(network: nn.Module, source: Tensor, tiling: Tiling, run: Run) -> Tensor:
    """Run `network`, through `run`, on tiles of `source`, and put their outputs together.

    Norms that take their statistics from the image get those of the whole picture: with statistics of its own, each
    tile would have its own contrast, and the seams would show. What a norm sees depends on the norms before it, so each
    has a pass over the tiles of its own, which stops there. Where the tiling is exact, so are the statistics, to
    rounding.

    Shape: ``(b, c, h, w) -> (b, c', h, w)``, on the device of `source`. Only one tile at a time goes through `run`.

    Raises:
        ShapeError: an output that has not the size of its tile.
    """
    tiles = tiling.tiles(*source.shape[-2:])
    live = [module for module in network.modules() if _is_live(module)] if len(tiles) > 1 else []
    known: dict[nn.Module, _Moments] = {}
    # One pass for all norms at once would leave two thirds of the error that tiles with statistics of their own make;
    # repeating it makes it worse, because the error grows from norm to norm.
    while found := _next_moments(source, tiles, run, [norm for norm in live if norm not in known], known):
        known |= found
    with _normalising_by(known):
        return _blend(source, tiles, run)


class _EnoughError(Exception):
    """Stops a tile at the norm whose statistics are being gathered."""


def _next_moments(
    source: Tensor, tiles: Sequence[Tile], run: Run, unknown: Sequence[nn.Module], known: "dict[nn.Module, _Moments]"
) -> "dict[nn.Module, _Moments]":
    """The statistics of the norm that tiles meet first among the `unknown`; none where they meet none."""
    found: dict[nn.Module, _Moments] = {}
    tile = tiles[0]

    def gather(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.setdefault(norm, _Moments()).add(args[0], tile.weights_at(*args[0].shape[-2:]))
        raise _EnoughError

    with _normalising_by(known), _hooked(norm.register_forward_pre_hook(gather) for norm in unknown):
        for tile in tiles if unknown else ():
            with suppress(_EnoughError):
                run(tile.cut(source))
            if not found:
                break
    return found


def _blend(source: Tensor, tiles: Sequence[Tile], run: Run) -> Tensor:
    blended = source.new_zeros(0)
    for tile in tiles:
        piece = tile.cut(source)
        output = run(piece).to(source.device, torch.float32)
        if output.shape[-2:] != piece.shape[-2:]:
            raise ShapeError(
                f"translate: tiles of {tuple(piece.shape[-2:])} pixels come out as {tuple(output.shape[-2:])}. tile= "
                "is for generators whose output has the size of their source."
            )
        if not blended.numel():
            blended = output.new_zeros(*output.shape[:2], *source.shape[-2:])
        tile.cut(blended).add_(output * tile.weights().to(source.device))
    return blended


def _is_live(module: nn.Module) -> bool:
    """Whether a norm takes its statistics from the image."""
    if isinstance(module, (_Batch, _Instance)):
        return module.training or not module.track_running_stats
    return isinstance(module, nn.GroupNorm)


@dataclass
class _Moments:
    """Sums over the positions of all tiles, by how much they count; ``(b, c)``, in double precision."""

    count: float = 0.0
    total: Any = 0.0
    squares: Any = 0.0

    def add(self, x: Tensor, weights: Tensor) -> None:
        x, weights = x.float(), weights.to(x.device)
        count = weights.sum()
        mean = (x * weights).sum(dim=(-2, -1), keepdim=True) / count
        # Squares are summed about the tile's mean: those of values far from zero would lose their digits.
        variance = ((x - mean).square() * weights).sum(dim=(-2, -1)) / count
        n, mean, variance = count.item(), mean[..., 0, 0].cpu().double(), variance.cpu().double()
        self.count += n
        self.total = self.total + n * mean
        self.squares = self.squares + n * (variance + mean.square())

    def of(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean and variance as `norm` shares them among samples and channels, ``(b, c)``."""
        mean, square = self.total / self.count, self.squares / self.count
        if isinstance(norm, _Batch):
            mean, square = (m.mean(dim=0, keepdim=True).expand_as(m) for m in (mean, square))
        elif isinstance(norm, nn.GroupNorm):
            size = norm.num_channels // norm.num_groups
            mean, square = (
                m.unflatten(1, (norm.num_groups, size)).mean(dim=2).repeat_interleave(size, dim=1)
                for m in (mean, square)
            )
        return mean, (square - mean.square()).clamp_min(0)


@contextmanager
def _normalising_by(statistics: dict[nn.Module, _Moments]) -> Iterator[None]:
    def normalise(norm: Any, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x = args[0]
        mean, variance = (m.flatten().to(x.device, torch.float32) for m in statistics[norm].of(norm))
        weight, bias = (None if p is None else p.float().repeat(len(x)) for p in (norm.weight, norm.bias))
        # Each sample's channels as channels of one: the statistics may differ from sample to sample.
        flat = x.float().reshape(1, -1, *x.shape[2:])
        return F.batch_norm(flat, mean, variance, weight, bias, eps=norm.eps).reshape(x.shape).to(x.dtype)

    with _hooked(norm.register_forward_hook(normalise) for norm in statistics):
        yield


@contextmanager
def _hooked(handles: Any) -> Iterator[None]:
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
