"""Base classes of data sets whose samples are crops of images of a fixed size."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from imtrans.data.jitter import Jitter
from imtrans.data.sampling import Batch

CropParams = tuple[int, int, int, bool]
"""The index of an image, the left and top edge of a crop, and whether the crop is mirrored."""


class ImageSource(Protocol):
    """Images of one size, by index."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Batch:
        """Return the images at `index` by name: uint8 tensors ``(c, h, w)``, one or several that belong together."""


class CropDataset(Dataset[Batch], ABC):
    """Base class of data sets whose samples are crops of images that never change.

    Only `crop_params` is random, so the images can be cached: see `imtrans.data.cache.make_cache`. A subclass that
    overrides ``draw`` or ``__getitem__`` is not cached.
    """

    jitter: Jitter
    augment: bool
    seed: int
    paired = True  # whether source and target of a sample show the same scene

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def sources(self) -> Sequence[ImageSource]:
        """The image sources. A sample has one crop of each; the images are `loaded_size` high and wide."""

    @abstractmethod
    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return the crop parameters of sample `index` in `epoch`, one entry for each source."""

    def sample(self, crops: Batch) -> Batch:
        """Make a sample, or a batch of them, from its crops, floats in [-1, 1]; returns `crops` unless overridden.

        It runs on the training device. It must treat each crop alone, with any axes before ``c h w``.
        """
        return crops

    def check_index(self, index: int) -> int:
        """Return `index` as a number from 0; a negative one counts from the end.

        Raises:
            IndexError: there is no such sample.
        """
        return range(len(self))[index]

    @property
    def loaded_size(self) -> int:
        """Height and width of the images: `Jitter.loaded_size`, or `Jitter.size` without augmentation."""
        return self.jitter.loaded_size if self.augment else self.jitter.size

    def draw(self, index: int, epoch: int) -> Batch:
        """Return sample `index` with the augmentation of `epoch`."""
        crops: Batch = {}
        for source, (image, *crop) in zip(self.sources, self.crop_params(self.check_index(index), epoch), strict=True):
            for name, pixels in source.load(image).items():
                crops[name] = self.jitter.crop(pixels[None], torch.tensor([crop]))[0]
        return self.sample(crops)

    def __getitem__(self, index: int) -> Batch:
        return self.draw(index, epoch=0)


class SingleSourceDataset(CropDataset):
    """A `CropDataset` that is its own image source: sample i is a crop of the images at index i.

    All images of a sample get the same crop, a function of (seed, epoch, index).
    """

    @abstractmethod
    def load(self, index: int) -> Batch:
        """Return the images of sample `index`, `loaded_size` high and wide; see `ImageSource.load`."""

    @property
    def sources(self) -> "Sequence[ImageSource]":
        """The data set itself."""
        return (self,)

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return `index` and a crop that `Jitter.random_crop` draws."""
        if not self.augment:
            return [(index, 0, 0, False)]
        return [(index, *self.jitter.random_crop(np.random.default_rng((self.seed, epoch, index))))]
