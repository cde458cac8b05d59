"""Two sets of pictures that have no pairs."""

from collections.abc import Sequence
from os import PathLike

import numpy as np

from imtrans.checks import at_least, one_of
from imtrans.data.cache import CropDataset, CropParams, ImageSource, SingleSourceDataset
from imtrans.data.facades.datasets import ProceduralFacades
from imtrans.data.image_folder import PictureFolder
from imtrans.data.images import Jitter
from imtrans.data.loader import Batch
from imtrans.data.paired import DIRECTIONS


class Unpaired(CropDataset):
    """Two sources, A and B: sample i has picture i of A, from the start again at its end, and any picture of B.

    There are as many samples as pictures on the longer source. The picture of B and the windows, one for each of the
    two pictures, are functions of (seed, epoch, index). Without augmentation nothing is random: the picture of B too is
    the i-th.

    Source: the data set of Zhu et al. 2017's code.
    """

    a: ImageSource
    b: ImageSource
    direction = "AtoB"

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    @property
    def names(self) -> tuple[str, str]:
        """What the pictures of A, and those of B, are in a sample."""
        return ("source", "target") if self.direction == "AtoB" else ("target", "source")

    @property
    def sources(self) -> Sequence[ImageSource]:
        """The one of the sources, the one of the targets."""
        return (self.a, self.b) if self.direction == "AtoB" else (self.b, self.a)

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """A picture of each source, and where `epoch` crop_params it."""
        a, b = index % len(self.a), index % len(self.b)
        if not self.augment:
            crop_params: list[CropParams] = [(a, 0, 0, False), (b, 0, 0, False)]
        else:
            rng = np.random.default_rng((self.seed, epoch, index))
            b = int(rng.integers(len(self.b)))
            crop_params = [(a, *self.jitter.window(rng)), (b, *self.jitter.window(rng))]
        return crop_params if self.direction == "AtoB" else crop_params[::-1]


class UnpairedImages(Unpaired):
    """Two folders of pictures, of any sizes and counts, whose files have nothing to do with one another.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1]; see `Unpaired` for which two
    pictures it has. A picture of any height and width is resized to a square, as `imtrans.PairedImages` does.
    Every file's header is looked at once, when the data set is made.

    Args:
        folder_a: of pictures.
        folder_b: of pictures.
        direction: ``"AtoB"``: A has the sources and B the targets, or ``"BtoA"``.
        size: height and width of a sample.
        load_size: see `imtrans.data.images.Jitter`.
        augment: whether to draw the picture of B, and to jitter and flip; without, pictures come in their order,
            resized to `size`.
        flip: see `imtrans.data.images.Jitter`; each of the two pictures is flipped or not by itself.
        seed: of the augmentation.
        on_bad_image: what becomes of a file that cannot be read: ``"error"`` or ``"skip"``, as for
            `imtrans.data.paired.PairedImages`; with ``"skip"``, `bad_images` reports those that were left out.

    Raises:
        ArgumentError: an unknown direction, a size below 1, a negative `seed`, or another `on_bad_image`.
        DataError: an empty or missing folder, an unreadable file, no sound one; with the names of the files.
    """

    def __init__(
        self,
        folder_a: str | PathLike[str],
        folder_b: str | PathLike[str],
        *,
        direction: str = "AtoB",
        size: int = 256,
        load_size: int | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.direction = one_of("UnpairedImages", "direction", direction, DIRECTIONS)
        self.jitter = Jitter(size, load_size, flip)
        self.augment = augment
        self.seed = at_least("UnpairedImages", "seed", seed, 0)
        self.a, self.b = (
            PictureFolder(
                "UnpairedImages",
                folder,
                name=name,
                jitter=self.jitter,
                size=self.loaded_size,
                on_bad_image=on_bad_image,
            )
            for folder, name in zip((folder_a, folder_b), self.names, strict=True)
        )
        self.bad_images = [*self.a.bad_images, *self.b.bad_images]

    def __repr__(self) -> str:
        return f"{self.a!r}, and, without pairs, {self.b!r}, {self.direction}, as {self.jitter}"


class UnpairedFacades(Unpaired):
    """The two sides of procedural facades: label maps of some buildings, pictures of others.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1]; see `Unpaired`.

    Args:
        length: how many label maps, and how many pictures.
        size: height and width of a sample.
        seed: of the buildings and of the augmentation. Two data sets with different seeds share no building.
        augment: see `UnpairedImages`.
        direction: ``"AtoB"``: the label maps are the sources and the pictures the targets, or ``"BtoA"``.

    Raises:
        ArgumentError: a `length` below 1, a `size` below 16, a negative `seed`, or an unknown direction.

    >>> sample = UnpairedFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    def __init__(
        self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True, direction: str = "AtoB"
    ) -> None:
        self.direction = one_of("UnpairedFacades", "direction", direction, DIRECTIONS)
        at_least("UnpairedFacades", "length", length, 1)
        buildings = ProceduralFacades(2 * length, size=size, seed=seed, augment=augment)
        self.jitter, self.augment, self.seed = buildings.jitter, augment, seed
        self.a = _Side(buildings, "source", self.names[0], range(0, 2 * length, 2))
        self.b = _Side(buildings, "target", self.names[1], range(1, 2 * length, 2))

    def __repr__(self) -> str:
        count = len(self)
        sides = f"labels of {count}, pictures of {count} other procedural facades of seed {self.seed}"
        return f"{sides}, {self.direction}, as {self.jitter}"


class _Side:
    """One `side` of some of the pairs of a data set, by another `name`. (A `ImageSource`.)"""

    def __init__(self, pairs: SingleSourceDataset, side: str, name: str, indices: range) -> None:
        self.pairs, self.side, self.name, self.indices = pairs, side, name, indices

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Batch:
        return {self.name: self.pairs.load(self.indices[index])[self.side]}
