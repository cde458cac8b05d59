"""Sources computed from photos: edges, holes, lower resolution, blur, compression, noise, grey and Lab."""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from imtrans.checks import at_least, in_range, one_of
from imtrans.colours import LAB, RGBA, luminance
from imtrans.data.images import to_image, to_tensor
from imtrans.errors import ArgumentError, ShapeError, short_repr

Strength = float | tuple[float, float]
"""A number, or the bounds ``(low, high)`` that it is drawn from."""
HOLES = ("centre", "squares", "strokes")


class Derivation(ABC):
    """Base class of derivations: each computes a source from a photo, the target.

    A derivation is a frozen dataclass of its settings. `draw` is the only random part and runs on the host; `apply`
    runs on the training device and computes each photo alone. Called with a photo, it gives the source of a validation
    sample:

    >>> Grey()(torch.ones(3, 8, 8)).shape
    torch.Size([1, 8, 8])
    """

    channels: ClassVar[int | None] = 3  # of the source; None if only `apply` knows
    on_cpu: ClassVar[bool] = False  # whether `apply` needs its photos on the CPU

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        """Draw the parameters of one source, floats of 24 bits, always the same number of them.

        Without `vary`, a strength is the middle of its bounds.
        """
        return []

    @abstractmethod
    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        """Compute sources.

        Shape: photos ``(b, 3, h, w)`` in [-1, 1] and parameters ``(b, n)`` -> ``(b, channels, h, w)`` in [-1, 1].
        """

    def pair(self, photos: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Compute sources and targets; the targets are the photos unless overridden."""
        return self.apply(photos, params), photos

    def __call__(self, photo: Tensor, *, seed: int = 0) -> Tensor:
        """Return the source of a photo, with strengths in the middle of their bounds.

        Shape: ``(3, h, w)`` in [-1, 1] -> ``(channels, h, w)`` in [-1, 1]; another shape raises a ShapeError.
        """
        owner = type(self).__name__
        if photo.ndim != 3 or photo.shape[0] != 3:
            raise ShapeError(f"{owner}: expects a photo (3, h, w) in [-1, 1], got {tuple(photo.shape)}.")
        rng = np.random.default_rng(at_least(owner, "seed", seed, 0))
        params = torch.tensor([self.draw(rng, vary=False)], device=photo.device)
        return self.apply(photo[None], params)[0]


@dataclass(frozen=True)
class Grey(Derivation):
    """The photo in grey, one channel: its `imtrans.colours.luminance`."""

    channels = 1

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        return luminance(photos)

    def __str__(self) -> str:
        return "grey to RGB"


@dataclass(frozen=True)
class Lab(Derivation):
    """Lightness as source and colours as target, in CIE Lab; see `imtrans.colours.split_lab`."""

    channels = 1

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        return self.pair(photos, params)[0]

    def pair(self, photos: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return LAB.split(photos)

    def __str__(self) -> str:
        return "grey to colour"


@dataclass(frozen=True)
class Edges(Derivation):
    """A line drawing: Canny edges of the photo, one pixel wide, black (-1) on white (1), one channel.

    The photo in grey is blurred, and an edge is a maximum of its gradient along the gradient. An edge is kept from a
    contrast of `threshold` on, and an edge of 0.4 of that where it continues a kept one for up to 16 pixels.

    Args:
        threshold: contrast of the weakest edge, from 0 to 1: the height of a step in a photo from 0 to 1. High
            thresholds leave few lines, as a quick drawing by hand has.
        sigma: standard deviation of the blur in pixels, from 0.5 to 5. A high one leaves out texture.

    Raises:
        ArgumentError: a number or bounds outside these ranges.

    Source: Canny 1986, "A Computational Approach to Edge Detection".
    """

    threshold: Strength = (0.03, 0.15)
    sigma: Strength = (0.6, 1.4)
    channels = 1

    def __post_init__(self) -> None:
        _bounds(self, "threshold", 0.0, 1.0)
        _bounds(self, "sigma", 0.5, 5.0)

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        return [_strength(rng, bounds, vary) for bounds in (self.threshold, self.sigma)]

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        threshold, weights = params[:, 0, None, None, None], _gaussian(params[:, 1], _most(self.sigma))
        near = F.pad(_blurred(luminance(photos), weights), (1, 1, 1, 1), "replicate")
        # The difference of both neighbours of a step is the two weights in the middle, times its contrast.
        middle = len(weights) // 2
        scale = 1 / (2 * (weights[middle] + weights[middle + 1]))
        right, down = scale * _difference(near, 0, 1), scale * _difference(near, 1, 0)
        size = (right**2 + down**2).sqrt()
        padded = F.pad(size, (1, 1, 1, 1))

        def is_peak(dy: int, dx: int) -> Tensor:
            # Of two equal neighbours across an edge, only one is a peak.
            return (size > _shifted(padded, dy, dx)) & (size >= _shifted(padded, -dy, -dx))

        flat, steep = down.abs() < math.tan(math.pi / 8) * right.abs(), right.abs() < math.tan(math.pi / 8) * down.abs()
        diagonal = torch.where(right * down > 0, is_peak(1, 1), is_peak(1, -1))
        peak = torch.where(flat, is_peak(0, 1), torch.where(steep, is_peak(1, 0), diagonal))
        weak, kept = peak & (size >= 0.4 * threshold), peak & (size >= threshold) & (size > 0)
        for _ in range(16):
            kept = weak & (F.max_pool2d(kept.float(), 3, stride=1, padding=1) > 0)
        return torch.where(kept, -1.0, 1.0)


@dataclass(frozen=True)
class Holes(Derivation):
    """The photo with holes and a mask, four channels: RGB, which is 0 in holes, and alpha, 1 or in holes -1.

    The channels are the ones of an RGBA picture whose holes are transparent.

    Args:
        kind: a square in the ``"centre"``; four ``"squares"`` anywhere, with sides from a quarter to a half of `size`;
            or four ``"strokes"``, each of four lines of up to `size` / 2, about `size` / 8 thick.
        size: side of the square in the centre, relative to the shorter side of the photo, from 0 to 1.

    Raises:
        ArgumentError: another `kind` or `size`.

    Source: Pathak et al. 2016, "Context Encoders" (squares); Yu et al. 2019, "Free-Form Image Inpainting with Gated
    Convolution" (strokes).
    """

    kind: str = "squares"
    size: float = 0.5
    channels = 4

    def __post_init__(self) -> None:
        one_of("Holes", "kind", self.kind, HOLES)
        in_range("Holes", "size", self.size, 0.0, 1.0)

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        """Draw lines: the top and left of both ends, relative to height and width, and half the thickness."""
        if self.kind == "centre":
            return [0.5, 0.5, 0.5, 0.5, self.size / 2]
        if self.kind == "squares":
            places, halves = rng.random((4, 2)), rng.uniform(self.size / 8, self.size / 4, (4, 1))
            return np.concatenate([places, places, halves], axis=1).ravel().tolist()
        lines: list[float] = []
        for _ in range(4):
            (y, x), angle, half = rng.random(2), rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.0) * self.size / 12
            for _ in range(4):
                angle, length = angle + rng.uniform(-0.6, 0.6) * math.pi, rng.uniform(self.size / 8, self.size / 2)
                end_y, end_x = y + length * math.sin(angle), x + length * math.cos(angle)
                lines += [y, x, end_y, end_x, half]
                y, x = end_y, end_x
        return lines

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        height, width = photos.shape[-2:]
        rows = torch.arange(height, device=photos.device)[:, None] + 0.5
        columns = torch.arange(width, device=photos.device) + 0.5
        hole = torch.zeros_like(photos[:, :1], dtype=torch.bool)
        for line in params.unflatten(1, (-1, 5)).unbind(1):  # all at once would take much memory
            y0, x0, y1, x1, half = line[:, :, None, None, None].unbind(1)
            down, along = rows - height * y0, columns - width * x0
            dy, dx = height * (y1 - y0), width * (x1 - x0)
            nearest = ((down * dy + along * dx) / (dy**2 + dx**2).clamp_min(1e-12)).clamp(0, 1)
            down, along = (down - nearest * dy).abs(), (along - nearest * dx).abs()
            distance = torch.hypot(down, along) if self.kind == "strokes" else torch.maximum(down, along)
            hole |= distance < half * min(height, width)
        alpha = torch.where(hole, -1.0, 1.0)
        return RGBA.split(torch.cat([photos, alpha], dim=1))[0]


@dataclass(frozen=True)
class Small(Derivation):
    """The photo downsampled by `factor` and resized back, for super-resolution.

    Both ways are bicubic and antialiased, as Pillow's ``resize`` with ``BICUBIC``. A side of n pixels becomes
    ``round(n / factor)``, at least 1.

    Args:
        factor: at least 2.
    """

    factor: int = 4

    def __post_init__(self) -> None:
        at_least("Small", "factor", self.factor, 2)

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        shape = photos.shape[-2:]
        for size in ([max(1, round(side / self.factor)) for side in shape], list(shape)):
            photos = F.interpolate(photos, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return photos


@dataclass(frozen=True)
class Blur(Derivation):
    """The photo blurred by a Gaussian with a standard deviation of `sigma` pixels, from 0.1 to 20."""

    sigma: Strength = (0.5, 3.0)

    def __post_init__(self) -> None:
        _bounds(self, "sigma", 0.1, 20.0)

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        return [_strength(rng, self.sigma, vary)]

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        return _blurred(photos, _gaussian(params[:, 0], _most(self.sigma)))


@dataclass(frozen=True)
class Jpeg(Derivation):
    """The photo compressed as JPEG with a `quality` of Pillow, from 1 to 95. It is computed on the CPU."""

    quality: Strength = (10, 50)
    on_cpu = True

    def __post_init__(self) -> None:
        _bounds(self, "quality", 1, 95)

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        return [round(_strength(rng, self.quality, vary))]

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        qualities = [int(quality) for quality in params[:, 0].tolist()]
        return torch.stack([_compressed(photo, quality) for photo, quality in zip(photos, qualities, strict=True)])


@dataclass(frozen=True)
class Noise(Derivation):
    """The photo with Gaussian noise in each channel, clipped to [-1, 1].

    Args:
        sigma: standard deviation of the noise in a photo from 0 to 1; from 0 to 1.

    Source: Box and Muller 1958 (normal numbers), from a hash of seed and index: Wellons 2018, "lowbias32".
    """

    sigma: Strength = (0.05, 0.2)

    def __post_init__(self) -> None:
        _bounds(self, "sigma", 0.0, 1.0)

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        return [int(rng.integers(2**24)), _strength(rng, self.sigma, vary)]

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        seed, sigma = params[:, 0].long(), params[:, 1, None, None, None]
        return (photos + 2 * sigma * _normal(seed, photos.shape)).clamp(-1, 1)


@dataclass(frozen=True)
class Function(Derivation):
    """A function of your own: ``function(photo, generator)``, called with each photo ``(3, h, w)`` on the CPU.

    It returns a source ``(c, h, w)``, floats in [-1, 1]; another result raises an ArgumentError. `generator` is a
    `torch.Generator` with a seed for each sample.
    """

    function: Callable[[Tensor, torch.Generator], Tensor]
    channels = None
    on_cpu = True

    def draw(self, rng: np.random.Generator, *, vary: bool) -> list[float]:
        return rng.integers(2**24, size=2).tolist()

    def apply(self, photos: Tensor, params: Tensor) -> Tensor:
        found: list[Tensor] = []
        for photo, (high, low) in zip(photos, params.tolist(), strict=True):
            generator = torch.Generator().manual_seed(int(high) * 2**24 + int(low))
            source: Any = self.function(photo.clone(), generator)
            is_source = isinstance(source, Tensor) and source.is_floating_point() and source.ndim == 3
            if not is_source or source.shape[1:] != photo.shape[1:] or (found and source.shape != found[0].shape):
                shape = f" {tuple(source.shape)} of {source.dtype}" if isinstance(source, Tensor) else ""
                raise ArgumentError(
                    f"{self}: it must return a source, floats (c, {photo.shape[1]}, {photo.shape[2]}) with the same "
                    f"number of channels for all photos, got {type(source).__name__}{shape}."
                )
            found.append(source)
        return torch.stack(found)

    def __str__(self) -> str:
        # Not its repr, which may hold an address: a resumed run compares this text.
        return f"source {getattr(self.function, '__qualname__', type(self.function).__qualname__)}"


DERIVATIONS: dict[str, type[Derivation]] = {
    "edges": Edges, "holes": Holes, "small": Small, "blur": Blur, "jpeg": Jpeg, "noise": Noise, "grey": Grey,
    "lab": Lab,
}  # fmt: skip
"""The derivations by name."""


def derivation(owner: str, source: object) -> Derivation:
    """Return the derivation of a name in `DERIVATIONS` with its default settings, or of a function; or `source`.

    Raises:
        ArgumentError: an unknown name, or a value of another kind.
    """
    if isinstance(source, Derivation):
        return source
    if callable(source) and not isinstance(source, type):
        return Function(source)
    if not isinstance(source, str):
        raise ArgumentError(
            f"{owner}: source must be one of {sorted(DERIVATIONS)}, a derivation with settings such as "
            f"Small(factor=4), or a function of photo and generator, got {short_repr(source)}."
        )
    return DERIVATIONS[one_of(owner, "source", source, DERIVATIONS)]()


def _bounds(settings: Derivation, name: str, low: float, high: float) -> None:
    """Raise an ArgumentError unless the setting `name` is a number from `low` to `high`, or two in order."""
    owner, value = type(settings).__name__, getattr(settings, name)
    if not isinstance(value, Sequence):
        in_range(owner, name, value, low, high)
        return
    if isinstance(value, str) or len(value) != 2:
        raise ArgumentError(f"{owner}: {name} must be a number, or bounds (low, high), got {short_repr(value)}.")
    first, last = (in_range(owner, name, bound, low, high) for bound in value)
    if first > last:
        raise ArgumentError(f"{owner}: {name} must be bounds (low, high) in this order, got {short_repr(value)}.")
    object.__setattr__(settings, name, tuple(value))


def _strength(rng: np.random.Generator, strength: Strength, vary: bool) -> float:
    if not isinstance(strength, tuple):
        return strength
    return float(rng.uniform(*strength)) if vary else sum(strength) / 2


def _most(strength: Strength) -> float:
    return max(strength) if isinstance(strength, tuple) else strength


def _gaussian(sigma: Tensor, highest: float) -> list[Tensor]:
    """Return the weights of a Gaussian for each `sigma` ``(b,)``, up to `highest`: tensors ``(b, 1, 1, 1)``."""
    radius = math.ceil(3 * highest)
    values = [torch.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    total = sum(values[1:], values[0])
    return [(value / total)[:, None, None, None] for value in values]


def _blurred(images: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Blur images ``(b, c, h, w)`` along both axes, each with its own weights.

    The sum is element-wise: a convolution may run in TF32, and may differ with the size of the batch.
    """
    radius = len(weights) // 2
    for axis, margin in ((-2, (0, 0, radius, radius)), (-1, (radius, radius, 0, 0))):
        padded, length = F.pad(images, margin, "replicate"), images.shape[axis]
        images = sum((w * padded.narrow(axis, k, length) for k, w in enumerate(weights)), torch.zeros_like(images))
    return images


def _shifted(padded: Tensor, dy: int, dx: int) -> Tensor:
    """Return the neighbours `dy` below and `dx` right of the pixels that `padded` has a margin of 1 around."""
    height, width = padded.shape[-2:]
    return padded[..., 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]


def _difference(padded: Tensor, dy: int, dx: int) -> Tensor:
    return _shifted(padded, dy, dx) - _shifted(padded, -dy, -dx)


def _normal(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Return normal numbers of a `shape` ``(b, c, h, w)``, each a function of its index and of the seed ``(b,)``."""
    index = torch.arange(2 * math.prod(shape[1:]), device=seeds.device)
    uniform = (_hash(_hash(index) ^ _hash(seeds + 1)[:, None]) + 0.5) / 2**32
    first, second = uniform.unflatten(1, (2, *shape[1:])).unbind(1)
    return (-2 * first.log()).sqrt() * torch.cos(2 * math.pi * second)


def _hash(values: Tensor) -> Tensor:
    """Hash whole numbers from 0 to 2**32 - 1 to such numbers."""
    values = ((values ^ values >> 16) * 0x7FEB352D) & 0xFFFFFFFF
    # Negative, so that the product fits 64 bits; its last 32 are the ones of 0x846CA68B.
    values = ((values ^ values >> 15) * (0x846CA68B - 2**32)) & 0xFFFFFFFF
    return values ^ values >> 16


def _compressed(photo: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_image(photo).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return to_tensor(image)
