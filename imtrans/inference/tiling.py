"""Tiled inference: run a network on overlapping tiles of a large image, and blend the outputs without seams."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import uses_input_stats
from imtrans.receptive_fields.trace import receptive_field

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tile:
    """A window of an image, with the blending weights of its rows and columns."""

    rows: slice
    columns: slice
    row_weights: Tensor
    column_weights: Tensor
    multiple: int

    def crop(self, image: Tensor) -> Tensor:
        """Return a view of the window."""
        return image[..., self.rows, self.columns]

    def weights(self) -> Tensor:
        """Return the blending weight of each pixel, ``(h, w)``."""
        return self.row_weights[:, None] * self.column_weights

    def weights_at(self, height: int, width: int) -> Tensor:
        """Return the weights at the resolution of a feature map, ``(height, width)``."""
        rows, columns = (
            # The network pads the tile to multiples of its stride before it downsamples.
            F.adaptive_avg_pool1d(F.pad(w[None], (0, -len(w) % self.multiple), mode="replicate"), length)[0]
            for w, length in ((self.row_weights, height), (self.column_weights, width))
        )
        return rows[:, None] * columns


@dataclass(frozen=True)
class Tiling:
    """A division of images into tiles of `size` pixels that begin every `step` pixels, both divisible by `multiple`.

    If `exact`, the middle of an overlap is a hard border between two tiles. Otherwise tiles fade into each other.
    """

    size: int
    step: int
    exact: bool
    multiple: int = 1

    def windows(self, length: int) -> list[tuple[int, int]]:
        """Return the first and last pixel (exclusive) of the tiles that cover `length` pixels.

        >>> Tiling(size=8, step=4, exact=True).windows(14)
        [(0, 8), (4, 12), (8, 14)]
        """
        count = 1 + max(0, -(-(length - self.size) // self.step))
        return [(i * self.step, min(i * self.step + self.size, length)) for i in range(count)]

    def weights(self, window: tuple[int, int], length: int) -> Tensor:
        """Return the blending weight of each pixel of a tile. The weights of overlapping tiles sum to 1.

        >>> Tiling(size=8, step=4, exact=True).weights((4, 12), 14)
        tensor([0., 0., 1., 1., 1., 1., 0., 0.])
        """
        start, stop = window
        overlap = self.size - self.step
        position = torch.arange(overlap)
        # The outer quarter of an overlap has weight 0: outputs near a tile's border lack context.
        linear = ((position + 0.5) / overlap * 2 - 0.5).clamp(0, 1)
        ramp = (position >= overlap // 2).float() if self.exact else linear
        weights = torch.ones(stop - start)
        if start > 0:
            weights[:overlap] *= ramp
        if stop < length:
            weights[-overlap:] *= 1 - ramp
        return weights

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of an image, row by row."""
        rows, columns = (
            [(slice(*window), self.weights(window, length)) for window in self.windows(length)]
            for length in (height, width)
        )
        return [Tile(y, x, by_row, by_column, self.multiple) for y, by_row in rows for x, by_column in columns]


def plan_tiles(network: nn.Module, size: int, *, multiple: int, in_channels: int) -> Tiling:
    """Choose the overlap of tiles of `size` pixels, rounded up to a multiple of `multiple`.

    Tiles begin at multiples of `multiple`, the network's stride, so that strided layers sample the same pixels as in
    the whole image. If twice the radius of the receptive field fits in a tile, tiles overlap by that much and the
    result is exact. Otherwise they overlap by half or slightly less. A tile shorter than two strides is an error.
    """
    requested, size = size, -(-size // multiple) * multiple
    try:
        field = receptive_field(network, in_channels=in_channels, input_size=size)
    except ArgumentError:  # attention: each output pixel depends on the whole image
        radius = size
    else:
        sizes, offsets = (both if isinstance(both, tuple) else (both, both) for both in (field.size, field.offset))
        radius = max(max(-low, low + extent - 1) for extent, low in zip(sizes, offsets, strict=True)) + multiple
    step = (size - 2 * radius) // multiple * multiple
    if step >= multiple:
        return Tiling(size, step, exact=True, multiple=multiple)
    if size < 2 * multiple:
        raise ArgumentError(
            f"translate: tile={requested} leaves no overlap: tiles of this network begin at multiples of {multiple}. "
            f"Use tile={2 * multiple} or more."
        )
    return Tiling(size, -(-size // (2 * multiple)) * multiple, exact=False, multiple=multiple)


def run_tiled(network: nn.Module, source: Tensor, tiling: Tiling, run: Run) -> Tensor:
    """Run `network`, through `run`, on tiles of `source`, and blend the outputs.

    Norms that take their statistics from the image take them from the whole image: with its own statistics, each tile
    would have another contrast. The input of a norm depends on the norms before it, so the statistics of each norm take
    one pass over the tiles, which stops there. They are exact, up to rounding, if the tiling is.

    Shape: ``(b, c, h, w) -> (b, c', h, w)``, on the device of `source`. `run` gets one tile at a time.
    """
    tiles = tiling.tiles(*source.shape[-2:])
    remaining = [module for module in network.modules() if uses_input_stats(module)] if len(tiles) > 1 else []
    known: dict[nn.Module, _Moments] = {}
    # One pass for all norms at once removes only a third of the error of separate statistics. Repeating that pass
    # makes it worse, because the error grows from norm to norm.
    while remaining and (found := _next_moments(source, tiles, run, remaining, known)):
        known |= found
        remaining = [norm for norm in remaining if norm not in known]
    with _normalize_with(known):
        return _blend(source, tiles, run)


class _StopError(Exception):
    """Ends the forward pass of a tile at the norm whose statistics are computed."""


def _next_moments(
    source: Tensor, tiles: Sequence[Tile], run: Run, unknown: Sequence[nn.Module], known: dict[nn.Module, "_Moments"]
) -> dict[nn.Module, "_Moments"]:
    """Return the statistics of the `unknown` norm that runs first, or nothing if none runs."""
    found: dict[nn.Module, _Moments] = {}
    tile = tiles[0]

    def collect(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.setdefault(norm, _Moments()).add(args[0], tile.weights_at(*args[0].shape[-2:]))
        raise _StopError

    with _normalize_with(known), ExitStack() as hooks:
        for norm in unknown:
            hooks.enter_context(norm.register_forward_pre_hook(collect))
        for tile in tiles:
            with suppress(_StopError):
                run(tile.crop(source))
            if not found:
                break
    return found


def _blend(source: Tensor, tiles: Sequence[Tile], run: Run) -> Tensor:
    blended = source.new_zeros(0)
    for tile in tiles:
        crop = tile.crop(source)
        output = run(crop).to(source.device, torch.float32)
        if output.shape[-2:] != crop.shape[-2:]:
            raise ShapeError(
                f"translate: tile= needs a generator that keeps height and width, got an output of "
                f"{tuple(output.shape[-2:])} for a tile of {tuple(crop.shape[-2:])}. Use tile=None."
            )
        if not blended.numel():
            blended = output.new_zeros(*output.shape[:2], *source.shape[-2:])
        tile.crop(blended).add_(output * tile.weights().to(source.device))
    return blended


@dataclass
class _Moments:
    """Weighted sums over the pixels of all tiles, ``(b, c)``, in double precision."""

    count: float = 0.0
    total: Any = 0.0
    squares: Any = 0.0

    def add(self, x: Tensor, weights: Tensor) -> None:
        x, weights = x.float(), weights.to(x.device)
        count = weights.sum()
        mean = (x * weights).sum(dim=(-2, -1), keepdim=True) / count
        # Squares of deviations from the tile's mean: squares of large values would lose precision.
        variance = ((x - mean).square() * weights).sum(dim=(-2, -1)) / count
        n, mean, variance = count.item(), mean[..., 0, 0].cpu().double(), variance.cpu().double()
        self.count += n
        self.total += n * mean
        self.squares += n * (variance + mean.square())

    def of(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Return mean and variance, ``(b, c)``, averaged over the samples or channels that `norm` averages over."""
        mean, square = self.total / self.count, self.squares / self.count
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            mean, square = (m.mean(dim=0, keepdim=True).expand_as(m) for m in (mean, square))
        elif isinstance(norm, nn.GroupNorm):
            size = norm.num_channels // norm.num_groups
            mean, square = (
                m.unflatten(1, (norm.num_groups, size)).mean(dim=2).repeat_interleave(size, dim=1)
                for m in (mean, square)
            )
        return mean, (square - mean.square()).clamp_min(0)


@contextmanager
def _normalize_with(statistics: dict[nn.Module, _Moments]) -> Iterator[None]:
    def normalize(norm: Any, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x = args[0]
        mean, variance = (m.flatten().to(x.device, torch.float32) for m in statistics[norm].of(norm))
        weight, bias = (None if p is None else p.float().repeat(len(x)) for p in (norm.weight, norm.bias))
        # The statistics of samples may differ: all samples become channels of one.
        flat = x.float().reshape(1, -1, *x.shape[2:])
        return F.batch_norm(flat, mean, variance, weight, bias, eps=norm.eps).reshape(x.shape).to(x.dtype)

    with ExitStack() as hooks:
        for norm in statistics:
            hooks.enter_context(norm.register_forward_hook(normalize))
        yield
