"""The base class of data sets of pairs that are drawn from a seed, which need no download."""

from abc import abstractmethod

import numpy as np
from PIL import Image

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import Batch, Jitter, SingleSourceDataset
from imtrans.data.images import to_uint8
from imtrans.data.paired import DIRECTIONS
from imtrans.errors import counted

Picture = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
"""An image, uint8 ``(height, width, 3)``."""


def check_drawing(owner: str, *, seed: int, index: int, **size: int) -> None:
    """Check the arguments of a function that draws picture `index` of the series `seed` in a size of at least 16."""
    at_least(owner, "seed", seed, 0)
    at_least(owner, "index", index, 0)
    for name, value in size.items():
        at_least(owner, name, value, 16)


class ProceduralPairs(SingleSourceDataset):
    """Pairs of pictures, A and B, that `draw_pair` draws from (seed, index).

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
    (seed, epoch, index). Each pair is drawn once and then cached.

    Args:
        length: the number of pairs.
        size: height and width of a sample.
        direction: ``"AtoB"``: A is the source and B the target; or ``"BtoA"``.
        seed: the seed of the pictures and of the augmentation. Data sets with different seeds share no picture.
        augment: whether to crop and flip, as `imtrans.data.paired.PairedImages` does.

    Raises:
        ArgumentError: a `length` below 1, a `size` below 16, an unknown direction, or a negative `seed`.
    """

    subject = "pair"  # shown in the repr, with the content of A and B
    content = ("A", "B")

    def __init__(
        self, length: int, *, size: int = 128, direction: str = "AtoB", seed: int = 0, augment: bool = True
    ) -> None:
        owner = type(self).__name__
        self.length = at_least(owner, "length", length, 1)
        self.jitter = Jitter(at_least(owner, "size", size, 16))
        self.direction = one_of(owner, "direction", direction, DIRECTIONS)
        self.seed = at_least(owner, "seed", seed, 0)
        self.augment = augment
        self._drawn: dict[int, Batch] = {}

    @abstractmethod
    def draw_pair(self, index: int, size: int) -> tuple[Picture, Picture]:
        """Draw pair `index`: A and B, uint8 ``(size, size, 3)``."""

    def __len__(self) -> int:
        return self.length

    def check_index(self, index: int) -> int:
        """Return `index` if it is from 0 to ``length - 1``."""
        if not 0 <= index < self.length:
            raise IndexError(f"{type(self).__name__} has {counted(self.length, 'sample')}, no index {index}")
        return index

    def load(self, index: int) -> Batch:
        """Return source and target of pair `index`."""
        if index not in self._drawn:
            a, b = (to_uint8(Image.fromarray(picture)) for picture in self.draw_pair(index, self.loaded_size))
            source, target = (a, b) if self.direction == "AtoB" else (b, a)
            self._drawn[index] = {"source": source, "target": target}
        return self._drawn[index]

    def describe_images(self) -> str:
        """Return the part of the ``repr`` about the pictures."""
        return f"{counted(self.length, f'procedural {self.subject}')} of seed {self.seed}"

    def __repr__(self) -> str:
        shown = " to ".join(self.content if self.direction == "AtoB" else self.content[::-1])
        return f"{self.describe_images()}, {shown}, {self._describe_crops()}"
