"""Random crops of images, and the base classes of data sets whose samples are such crops."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imtrans.checks import at_least
from imtrans.data.images import to_float
from imtrans.errors import ArgumentError, short_repr

Batch = dict[str, Tensor]
Size = int | tuple[int, int]
"""Height and width: a number for both, or ``(height, width)``."""
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Maps source and target ``(c, h, w)`` to new ones; draws random numbers from the generator alone."""
CropParams = tuple[int, int, int, bool]
"""The index of an image, the left and top edge of a crop, and whether the crop is mirrored."""


def height_and_width(size: Any) -> tuple[int, int]:
    """Return height and width of a size, a number or ``(height, width)``."""
    return (size[0], size[1]) if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)


@dataclass(frozen=True)
class Jitter:
    """The random jitter of pix2pix: crops of images, flipped or not.

    Args:
        size: height and width of a crop: a number, or ``(height, width)``.
        load_size: height and width of the images, which are resized to it; ``size * 286 / 256`` if None.
        flip: whether to mirror left and right with probability 1/2.

    Raises:
        ArgumentError: a `size` below 1, or a `load_size` below `size`.

    Source: Isola et al. 2017, section 6.2.
    """

    size: Size
    load_size: Size | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        for length in self.shape:
            at_least("Jitter", "size", length, 1)
        for length, loaded in zip(self.shape, self.loaded_shape, strict=True):
            at_least("Jitter", "load_size", loaded, length)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a crop."""
        return height_and_width(self.size)

    @property
    def loaded_shape(self) -> tuple[int, int]:
        """Height and width of the images that crops are taken from."""
        if self.load_size is not None:
            return height_and_width(self.load_size)
        height, width = self.shape
        return round(height * 286 / 256), round(width * 286 / 256)

    @property
    def loaded_size(self) -> int:
        """Height of the images that crops are taken from, and width of square ones."""
        return self.loaded_shape[0]

    def random_crop(
        self, rng: np.random.Generator, image: tuple[int, int] | None = None, crop: tuple[int, int] | None = None
    ) -> tuple[int, int, bool]:
        """Draw a crop: its left and top edge, and whether it is mirrored.

        `image` and `crop` are the heights and widths of both, by default `loaded_shape` and `shape`.
        """
        (height, width), (crop_height, crop_width) = image or self.loaded_shape, crop or self.shape
        room = width - crop_width, height - crop_height
        # One call for equal bounds: it draws other numbers than one call for each.
        drawn = (
            rng.integers(0, room[0], size=2, endpoint=True)
            if room[0] == room[1]
            else [rng.integers(0, most, endpoint=True) for most in room]
        )
        left, top = (int(n) for n in drawn)
        return left, top, bool(self.flip and rng.random() < 0.5)

    def crop(self, pixels: Tensor, params: Tensor, *, whole: bool = False) -> Tensor:
        """Take a crop of each image, on the device of the images, without reading a value of `params`.

        Shape: ``(b, c, h, w)``, uint8 or floats in [-1, 1], and integers ``(b, 3)`` as `random_crop` draws them ->
        ``(b, c, *shape)`` in [-1, 1]; ``(b, c, h, w)`` with `whole`.
        """
        height, width = pixels.shape[-2:] if whole else self.shape
        left, top, mirrored = (column[:, None] for column in params.unbind(1))
        along, down = (torch.arange(length, device=pixels.device) for length in (width, height))
        columns = left + torch.where(mirrored.bool(), width - 1 - along, along)
        at = ((top + down)[:, :, None] * pixels.shape[-1] + columns[:, None, :]).flatten(1)
        # One flat gather takes a quarter of the time of an index for each axis, on a CPU.
        crops = pixels.flatten(2).gather(2, at[:, None].expand(-1, pixels.shape[1], -1))
        return to_float(crops.unflatten(2, (height, width)))


class ImageSource(Protocol):
    """Images of one size, by index."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Batch:
        """Return the images at `index` by name: uint8 tensors ``(c, h, w)``, one or several that belong together."""


class CropDataset(Dataset[Batch], ABC):
    """Base class of data sets whose samples are crops of images that never change.

    Only `crop_params` and `sample_params` are random, so that `imtrans.data.cache.make_cache` can cache the images.
    """

    jitter: Jitter
    augment: bool
    seed: int
    paired = True  # whether source and target of a sample show the same scene
    transform: Transform | None = None
    whole = False  # whether crops are whole images
    same_size = True  # whether all images of a source have one size

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def sources(self) -> Sequence[ImageSource]:
        """The image sources. A sample has one crop of each; the images are `loaded_shape` high and wide."""

    @abstractmethod
    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return the crop parameters of sample `index` in `epoch`, one entry for each source."""

    def sample_params(self, index: int, epoch: int) -> Batch:
        """Return further random parameters of sample `index` in `epoch`, which `sample` gets with the crops."""
        return {}

    def sample(self, crops: Batch) -> Batch:
        """Make a sample, or a batch of them, from its crops, floats in [-1, 1]; returns `crops` unless overridden.

        It runs on the training device, unless `on_cpu`. It must treat each crop alone, with any axes before ``c h w``.
        """
        return crops

    @property
    def on_cpu(self) -> bool:
        """Whether samples are computed on the CPU."""
        return self.transform is not None

    def transformed(self, sample: Batch, index: int, epoch: int) -> Batch:
        """Apply `transform` to sample `index` of `epoch`, seeded by (seed, epoch, index)."""
        if self.transform is None:
            return sample
        words = np.random.SeedSequence((self.seed, epoch, index, 1)).generate_state(1, np.uint64)
        found = self.transform(sample["source"], sample["target"], torch.Generator().manual_seed(int(words[0])))
        if not (isinstance(found, tuple) and [isinstance(each, Tensor) for each in found] == [True, True]):
            raise ArgumentError(
                f"{type(self).__name__}: transform must return source and target, two tensors, got {short_repr(found)}."
            )
        return {**sample, "source": found[0], "target": found[1]}

    def check_index(self, index: int) -> int:
        """Return `index` as a number from 0; a negative one counts from the end. Others raise an IndexError."""
        return range(len(self))[index]

    @property
    def loaded_shape(self) -> tuple[int, int]:
        """Height and width of the images: `Jitter.loaded_shape`, or `Jitter.shape` without augmentation."""
        return self.jitter.loaded_shape if self.augment else self.jitter.shape

    @property
    def loaded_size(self) -> int:
        """Height of the images, and width of square ones."""
        return self.loaded_shape[0]

    def _describe_crops(self) -> str:
        """Return the end of the ``repr``: what happens to the images."""
        height, width = self.jitter.shape
        return f"as {self.jitter}" if self.augment else f"resized to {width}x{height}"

    def draw(self, index: int, epoch: int) -> Batch:
        """Return sample `index` with the augmentation of `epoch`."""
        crops: Batch = {}
        index = self.check_index(index)
        for source, (image, *crop) in zip(self.sources, self.crop_params(index, epoch), strict=True):
            for name, pixels in source.load(image).items():
                crops[name] = self.jitter.crop(pixels[None], torch.tensor([crop]), whole=self.whole)[0]
        return self.transformed(self.sample({**crops, **self.sample_params(index, epoch)}), index, epoch)

    def __getitem__(self, index: int) -> Batch:
        return self.draw(index, epoch=0)


class SingleSourceDataset(CropDataset):
    """A `CropDataset` that is its own image source.

    All images at index i get the same crop, a function of (seed, epoch, i).
    """

    @abstractmethod
    def load(self, index: int) -> Batch:
        """Return the images of sample `index`, `loaded_shape` high and wide; see `ImageSource.load`."""

    @property
    def sources(self) -> "Sequence[ImageSource]":
        """The data set itself."""
        return (self,)

    def describe_images(self) -> str:
        """Return the part of the ``repr`` about the images: all of it, unless overridden."""
        return repr(self)

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return `index` and a crop that `Jitter.random_crop` draws."""
        if not self.augment:
            return [(index, 0, 0, False)]
        return [(index, *self.jitter.random_crop(np.random.default_rng((self.seed, epoch, index))))]
