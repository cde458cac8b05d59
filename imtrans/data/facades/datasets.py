"""Data sets of procedural facades, which need no download."""

from PIL import Image

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import Batch, Jitter, SingleSourceDataset
from imtrans.data.derived import DerivedPairs
from imtrans.data.facades.plan import draw_facade
from imtrans.data.images import resized
from imtrans.data.paired import DIRECTIONS
from imtrans.data.unpaired import Unpaired
from imtrans.errors import counted


class ProceduralFacades(SingleSourceDataset):
    """Label maps in the colours of CMP Facades as sources, and matching pictures as targets.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
    (seed, epoch, index). Each facade is drawn once and then cached.

    Args:
        length: the number of facades.
        size: height and width of a sample.
        seed: the seed of the buildings and of the augmentation. Data sets with different seeds share no building.
        augment: whether to crop and flip, as `imtrans.data.paired.PairedImages` does.

    Raises:
        ArgumentError: a `length` below 1, a `size` below 16, or a negative `seed`.

    >>> sample = ProceduralFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    def __init__(self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True) -> None:
        self.length = at_least("ProceduralFacades", "length", length, 1)
        self.jitter = Jitter(at_least("ProceduralFacades", "size", size, 16))
        self.seed = at_least("ProceduralFacades", "seed", seed, 0)
        self.augment = augment
        self._drawn: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self.length

    def check_index(self, index: int) -> int:
        """Return `index` if it is from 0 to ``length - 1``."""
        if not 0 <= index < self.length:
            raise IndexError(f"ProceduralFacades has {counted(self.length, 'sample')}, no index {index}")
        return index

    def load(self, index: int) -> Batch:
        """Return the label map and the picture of facade `index`."""
        if index not in self._drawn:
            photo, labels = draw_facade(self.seed, index, self.loaded_size)
            source, target = (resized(Image.fromarray(pixels), self.loaded_size) for pixels in (labels, photo))
            self._drawn[index] = {"source": source, "target": target}
        return self._drawn[index]

    def describe_images(self) -> str:
        """Return the part of the ``repr`` about the facades."""
        return f"{counted(self.length, 'procedural facade')} of seed {self.seed}"

    def __repr__(self) -> str:
        return f"{self.describe_images()}, labels to pictures, {self._describe_crops()}"


class LabFacades(DerivedPairs):
    """The pictures of `ProceduralFacades` in CIE Lab; samples as in `imtrans.data.lab_images.LabImages`.

    Arguments and errors are as for `ProceduralFacades`.

    >>> sample = LabFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([1, 32, 32]), torch.Size([2, 32, 32]))
    """

    def __init__(self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True) -> None:
        super().__init__(ProceduralFacades(length, size=size, seed=seed, augment=augment), "lab")


class UnpairedFacades(Unpaired):
    """Label maps of some procedural facades, and pictures of other ones.

    Samples are as in `imtrans.data.unpaired.UnpairedImages`. Other arguments and errors are as for `ProceduralFacades`.

    Args:
        length: the number of label maps, and of pictures.
        direction: ``"AtoB"``: label maps are the sources and pictures the targets; or ``"BtoA"``. Another one raises
            an ArgumentError.
    """

    def __init__(
        self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True, direction: str = "AtoB"
    ) -> None:
        self.direction = one_of("UnpairedFacades", "direction", direction, DIRECTIONS)
        at_least("UnpairedFacades", "length", length, 1)
        pairs = ProceduralFacades(2 * length, size=size, seed=seed, augment=augment)
        self.jitter, self.augment, self.seed = pairs.jitter, augment, seed
        self.a = _OneOfPair(pairs, "source", self.names[0], range(0, 2 * length, 2))
        self.b = _OneOfPair(pairs, "target", self.names[1], range(1, 2 * length, 2))

    def __repr__(self) -> str:
        count = len(self)
        sides = f"labels of {count}, pictures of {count} other procedural facades of seed {self.seed}"
        return f"{sides}, {self.direction}, {self._describe_crops()}"


class _OneOfPair:
    """An image source: the images `key` of the pairs at `indices`, renamed to `name`."""

    def __init__(self, pairs: SingleSourceDataset, key: str, name: str, indices: range) -> None:
        self.pairs, self.key, self.name, self.indices = pairs, key, name, indices

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Batch:
        return {self.name: self.pairs.load(self.indices[index])[self.key]}
