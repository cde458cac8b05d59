"""Sliced Wasserstein distance of the patches of two sets of images, at each level of their Laplacian pyramids."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from imtrans.checks import at_least
from imtrans.errors import ArgumentError, ShapeError, counted

OWNER = "sliced_wasserstein"
PATCH = 7  # height and width of a patch
SMALLEST = 16  # shorter side of the images at the last level
KEPT = 2**15  # patches of a set and level that are kept
SCALE = 1000.0  # as in the paper's tables
MIN_STD = 1e-4  # a constant channel has only rounding errors
DIRECTIONS_AT_ONCE = 64


def sliced_wasserstein(
    fakes: Tensor | Iterable[Tensor],
    reals: Tensor | Iterable[Tensor],
    *,
    patches: int = 128,
    directions: int = 512,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the patches of two sets of images, from fine texture to layout. Needs no pretrained network.

    Each image becomes a Laplacian pyramid: at every level but the last, the difference between the image and its
    blurred copy; then the image at half its size, and so on while its shorter side has at least 16 pixels. From each
    level come patches of 7x7 pixels at random positions. They are the same in all images of a size, so that equal sets
    have the distance 0. Each set is normalised to mean 0 and standard deviation 1 in each channel and level. The
    distance of a level is the mean over random directions of the Wasserstein distance between the patches of both sets,
    projected on the direction; times 1000.

    Lower is better. Small sets have larger distances, so compare only values of the same `reals` and number of fakes.

    Args:
        fakes: images ``(b, c, h, w)`` in [-1, 1], or an iterable of such batches, which are compared as one set.
        reals: images of the other set, which may have another number of images.
        patches: patches of an image at each level. Of more than 32768 of a set and level, a random subset counts.
        directions: number of random directions.
        seed: seed of the positions and directions. The global random state is left unchanged.

    Returns:
        ``swd``, the mean over the levels, and the distance of each level: ``swd_1`` at full size, ``swd_2`` at half
        the size, and so on. Equal sets give 0. The order of images changes no value, unless only a subset counts.

    Raises:
        ShapeError: images that are no ``(b, c, h, w)``, have a side below 16 pixels, or differ in channels, or sets
            that differ in levels.
        ArgumentError: `patches` or `directions` below 1, a negative `seed`, or a set without images.

    Source: Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation", section 5.

    >>> images = torch.rand(4, 3, 32, 32)
    >>> sliced_wasserstein(images, images)
    {'swd': 0.0, 'swd_1': 0.0, 'swd_2': 0.0}
    """
    metric = SlicedWasserstein(patches=patches, directions=directions, seed=seed)
    for images, patch_set in ((fakes, metric.fakes), (reals, metric.reals)):
        for batch in [images] if isinstance(images, Tensor) else images:
            patch_set.add(batch)
    return metric.levels()


class SlicedWasserstein:
    """`sliced_wasserstein` of images that come in batches, as a metric of `imtrans.evaluation.metrics`."""

    def __init__(self, *, patches: int = 128, directions: int = 512, seed: int = 0) -> None:
        at_least(OWNER, "patches", patches, 1)
        self.directions = at_least(OWNER, "directions", directions, 1)
        self.seed = at_least(OWNER, "seed", seed, 0)
        self.fakes, self.reals = Patches(patches, seed), Patches(patches, seed)

    def add(self, fake: Tensor, target: Tensor) -> None:
        self.fakes.add(fake)
        self.reals.add(target)

    def result(self) -> dict[str, float]:
        return {"swd": self.levels()["swd"]}

    def levels(self) -> dict[str, float]:
        """Return what `sliced_wasserstein` returns."""
        fakes, reals = self.fakes.levels(), self.reals.levels()
        for name, levels in (("fakes", fakes), ("reals", reals)):
            if not levels or not len(levels[0]):
                raise ArgumentError(f"{OWNER}: {name} has no images.")
        shapes = [(len(levels), levels[0].shape[1]) for levels in (fakes, reals)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"{OWNER}: fakes have {counted(shapes[0][0], 'level')} and {counted(shapes[0][1], 'channel')}, "
                f"reals {shapes[1][0]} and {shapes[1][1]}. Both sets must have images of the same size and channels."
            )
        generator = torch.Generator().manual_seed(self.seed)
        directions = F.normalize(torch.randn(self.directions, fakes[0][0].numel(), generator=generator))
        distances = {
            f"swd_{2**level}": SCALE * _distance(_normalised(fake), _normalised(real), directions.to(fake.device))
            for level, (fake, real) in enumerate(zip(fakes, reals, strict=True))
        }
        return {"swd": sum(distances.values()) / len(distances), **distances}


class Patches:
    """Patches of a set of images. Memory does not grow after 65536 patches.

    The choice of positions and patches depends on `seed`, not on the images.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.channels = count, seed, 0
        self._found: list[list[Tensor]] = []  # for each level; a random key for each patch says which are kept
        self._keys: list[list[Tensor]] = []
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, images: Tensor) -> None:
        """Add the patches of images ``(b, c, h, w)``."""
        if images.ndim != 4 or min(images.shape[-2:]) < SMALLEST:
            raise ShapeError(
                f"{OWNER}: images must be (b, c, h, w) with sides of at least {SMALLEST} pixels, got "
                f"{tuple(images.shape)}. Use larger images, or another metric."
            )
        if self.channels not in (0, images.shape[1]):
            raise ShapeError(
                f"{OWNER}: images with {counted(images.shape[1], 'channel')} follow images with {self.channels}. "
                "All images of a set must have the same number."
            )
        self.channels = images.shape[1]
        keys = torch.rand(images.shape[0], self.count, generator=self._generator).flatten()
        for level, picture in enumerate(laplacian_pyramid(images.detach().float())):
            if level == len(self._found):
                self._found.append([])
                self._keys.append([])
            self._found[level].append(self._cut(picture, level))
            self._keys[level].append(keys)
            if sum(map(len, self._keys[level])) > 2 * KEPT:
                self._join(level)

    def levels(self) -> list[Tensor]:
        """Return the patches of each level, ``(n, c, 7, 7)``."""
        return [self._join(level) for level in range(len(self._found))]

    def _join(self, level: int) -> Tensor:
        keys, found = torch.cat(self._keys[level]), torch.cat(self._found[level])
        if len(keys) > KEPT:
            keys, chosen = keys.topk(KEPT)
            found = found[chosen.to(found.device)]
        self._keys[level], self._found[level] = [keys], [found]
        return found

    def _cut(self, picture: Tensor, level: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + level)
        height, width = (side - PATCH + 1 for side in picture.shape[-2:])
        rows = torch.randint(height, (self.count,), generator=generator).to(picture.device)
        columns = torch.randint(width, (self.count,), generator=generator).to(picture.device)
        patches = picture.unfold(2, PATCH, 1).unfold(3, PATCH, 1)[:, :, rows, columns]
        return rearrange(patches, "b c n h w -> (b n) c h w")


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Split images into bands of detail, from the finest to the coarsest, and the image that is left.

    Each level has half the height and width of the one before; the last one's shorter side has 16 to 31 pixels.

    Source: Burt and Adelson 1983, "The Laplacian Pyramid as a Compact Image Code".
    """
    levels = []
    while min(images.shape[-2:]) > 2 * SMALLEST - 2:  # its half has at least SMALLEST pixels
        smaller = _blur(images)[..., ::2, ::2]
        larger = torch.zeros_like(images)
        larger[..., ::2, ::2] = smaller
        levels.append(images - 4 * _blur(larger))
        images = smaller
    return [*levels, images]


def _blur(images: Tensor) -> Tensor:
    """Blur with the binomial filter of 5x5 pixels."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    channels = images.shape[1]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def _normalised(patches: Tensor) -> Tensor:
    std, mean = torch.std_mean(patches, dim=(0, 2, 3), keepdim=True, correction=0)
    return rearrange((patches - mean) / std.clamp_min(MIN_STD), "n c h w -> n (c h w)")


def _distance(one: Tensor, other: Tensor, directions: Tensor) -> float:
    """Mean over the directions of the Wasserstein distance between the projections of two sets ``(n, d)``."""
    counts = len(one), len(other)
    # In one dimension it is the mean distance of equal quantiles. Between these steps, both quantiles are constant.
    steps = torch.cat([torch.arange(n + 1) * m for n, m in (counts, counts[::-1])]).unique().to(one.device)
    weights = steps.diff() / (counts[0] * counts[1])
    ranks = [steps[:-1].div(m, rounding_mode="floor") for m in counts[::-1]]
    total = 0.0
    for some in directions.split(DIRECTIONS_AT_ONCE):
        one_sorted, other_sorted = _sorted(some @ one.T), _sorted(some @ other.T)
        gaps = (one_sorted[:, ranks[0]] - other_sorted[:, ranks[1]]).abs()
        total += (gaps @ weights).sum().item()
    return total / len(directions)


def _sorted(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # NumPy sorts about five times as fast
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
