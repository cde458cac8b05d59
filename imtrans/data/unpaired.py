"""Unpaired data: two image sources without correspondence, for CycleGAN."""

from collections.abc import Sequence
from os import PathLike

import numpy as np

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import CropDataset, CropParams, ImageSource, Jitter, Size
from imtrans.data.image_folder import ImageFolder
from imtrans.data.paired import DIRECTIONS


class Unpaired(CropDataset):
    """Base class of data sets with two sources, A and B; there are as many samples as images in the longer one.

    - Sample i has image i of A, counted modulo its length, and a random image of B, each with its own crop. The
      choices are functions of (seed, epoch, index).
    - Without augmentation nothing is random: sample i has image i of B too, modulo its length.

    Source: the data set in the code of Zhu et al. 2017.
    """

    a: ImageSource
    b: ImageSource
    direction = "AtoB"
    paired = False

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    @property
    def names(self) -> tuple[str, str]:
        """The keys of A's and B's images in a sample."""
        return ("source", "target") if self.direction == "AtoB" else ("target", "source")

    @property
    def sources(self) -> Sequence[ImageSource]:
        """The image source of ``"source"``, then the one of ``"target"``."""
        return (self.a, self.b) if self.direction == "AtoB" else (self.b, self.a)

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return an image and a crop of each source."""
        a, b = index % len(self.a), index % len(self.b)
        params: list[CropParams] = [(a, 0, 0, False), (b, 0, 0, False)]
        if self.augment:
            rng = np.random.default_rng((self.seed, epoch, index))
            b = int(rng.integers(len(self.b)))
            params = [(a, *self.jitter.random_crop(rng)), (b, *self.jitter.random_crop(rng))]
        return params if self.direction == "AtoB" else params[::-1]


class UnpairedImages(Unpaired):
    """Two folders of images of any sizes and counts.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1]; see `Unpaired` for its images.
    Arguments and errors are as for `imtrans.data.paired.PairedImages`. `files` has names with sides: ``"A/1.png"``.
    """

    a: ImageFolder
    b: ImageFolder

    def __init__(
        self,
        folder_a: str | PathLike[str],
        folder_b: str | PathLike[str],
        *,
        direction: str = "AtoB",
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.on_bad_image = on_bad_image
        self.direction = one_of("UnpairedImages", "direction", direction, DIRECTIONS)
        self.jitter, self.augment = Jitter(size, load_size, flip), augment
        self.seed = at_least("UnpairedImages", "seed", seed, 0)
        self.a, self.b = (
            ImageFolder("UnpairedImages", folder, name=name, size=self.loaded_shape, on_bad_image=on_bad_image)
            for folder, name in zip((folder_a, folder_b), self.names, strict=True)
        )
        self.files = [f"{side}/{name}" for side, images in (("A", self.a), ("B", self.b)) for name in images.files]
        self.bad_images = [*self.a.bad_images, *self.b.bad_images]

    @property
    def settings(self) -> str:
        """The ``repr`` without the facts that depend on the files."""
        return f"{self.a.settings}, and, without pairs, {self.b.settings}, {self.direction}, {self._describe_crops()}"

    def __repr__(self) -> str:
        return f"{self.a!r}, and, without pairs, {self.b!r}, {self.direction}, {self._describe_crops()}"
