"""Pairs from plain photos: a photo is the target, and the source is computed from it."""

from os import PathLike
from typing import Any

import numpy as np
import torch

from imtrans.checks import at_least
from imtrans.data.crop_dataset import Batch, CropParams, Jitter, SingleSourceDataset, Size
from imtrans.data.derivations import Derivation, derivation
from imtrans.data.image_folder import ImageFolder
from imtrans.errors import ArgumentError, join_names, short_repr


class PhotoFolder(ImageFolder, SingleSourceDataset):
    """A folder of photos, as targets; arguments and errors as for `DerivedPairs`, which `owner` names in errors."""

    def __init__(
        self,
        owner: str,
        folder: str | PathLike[str],
        *,
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.jitter, self.augment = Jitter(size, load_size, flip), augment
        self.seed = at_least(owner, "seed", seed, 0)
        super().__init__(owner, folder, name="target", size=self.loaded_shape, on_bad_image=on_bad_image)


class DerivedPairs(SingleSourceDataset):
    """Pairs made from plain photos: a crop of a photo is the target, and its source is computed from it.

    A sample is ``{"source": (c, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
    (seed, epoch, index). Strength and place of what happens to the photo are drawn for each sample; without
    augmentation, strengths are the middle of their bounds, and a sample is the same in each epoch. Photos are cached
    as they are, and sources are computed on the training device from crops, so that both are mirrored alike.

    ===========  =================================================================  ============
    `source`     the source                                                         its channels
    ===========  =================================================================  ============
    ``"edges"``  a line drawing: `imtrans.data.derivations.Edges`                   1
    ``"holes"``  the photo with holes and their mask: `Holes`                       4
    ``"small"``  the photo in a lower resolution, resized back: `Small`             3
    ``"blur"``   the photo blurred: `Blur`                                          3
    ``"jpeg"``   the photo compressed: `Jpeg`                                       3
    ``"noise"``  the photo with noise: `Noise`                                      3
    ``"grey"``   the photo in grey: `Grey`                                          1
    ``"lab"``    its lightness; the target is its colours, two channels: `Lab`      1
    ===========  =================================================================  ============

    Args:
        photos: a folder of photos of any sizes; or a data set such as `ProceduralFacades` or `PairedImages`, whose
            targets are the photos. A data set has size, augmentation and seed of its own; the keyword arguments are for
            a folder.
        source: a name of the table; a derivation with settings, such as ``Small(factor=2)``; or a function
            ``source(photo, generator)`` that maps a photo ``(3, size, size)`` to a source ``(c, size, size)``, both in
            [-1, 1], on the CPU. `generator` is a `torch.Generator` seeded by (seed, epoch, index).
        size: height and width of a sample: a number, or ``(height, width)``; 256 by default.
        load_size: see `imtrans.data.crop_dataset.Jitter`.
        augment: whether to crop and flip, and to draw strengths; True by default. If False, photos are only resized.
        flip: whether to mirror left and right with probability 1/2; True by default.
        seed: the seed of augmentation and sources, 0 by default.
        on_bad_image: ``"error"``, the default, or ``"skip"``; see `imtrans.data.paired.PairedImages`.

    Raises:
        ArgumentError: an unknown `source`, a function that returns no source, an argument for a folder with a data set,
            a data set without targets of 3 channels, or as for `imtrans.data.paired.PairedImages`.
        DataError: a missing or empty folder, or an unreadable file, also when it is found only in training.

    >>> from imtrans import ProceduralFacades
    >>> sample = DerivedPairs(ProceduralFacades(4, size=32), "edges")[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([1, 32, 32]), torch.Size([3, 32, 32]))
    """

    def __init__(
        self,
        photos: str | PathLike[str] | SingleSourceDataset,
        source: Any = "edges",
        *,
        size: Size | None = None,
        load_size: Size | None = None,
        augment: bool | None = None,
        flip: bool | None = None,
        seed: int | None = None,
        on_bad_image: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.derivation: Derivation = derivation(owner, source)
        options: dict[str, Any] = {
            "size": size, "load_size": load_size, "augment": augment, "flip": flip, "seed": seed,
            "on_bad_image": on_bad_image,
        }  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(photos, SingleSourceDataset):
            _check_photos(owner, photos, given)
        elif isinstance(photos, (str, PathLike)):
            photos = PhotoFolder(owner, photos, **given)
        else:
            raise ArgumentError(
                f"{owner}: photos must be a folder, or a data set with targets such as ProceduralFacades, got "
                f"{short_repr(photos)}."
            )
        self.photos = photos
        self.jitter, self.augment, self.seed = photos.jitter, photos.augment, photos.seed
        self.whole, self.same_size = photos.whole, photos.same_size
        # A run of images from files can only be resumed with the same ones; `BatchLoader` decodes them first.
        for name in ("files", "bad_images", "on_bad_image"):
            if hasattr(photos, name):
                setattr(self, name, getattr(photos, name))

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def on_cpu(self) -> bool:
        """Whether samples are computed on the CPU."""
        return self.derivation.on_cpu

    def check_index(self, index: int) -> int:
        """Return the index that the photos have for `index`."""
        return self.photos.check_index(index)

    def load(self, index: int) -> Batch:
        """Return photo `index`, decoded and resized: ``{"rgb": (3, height, width)}``."""
        return {"rgb": self.photos.load(index)["target"]}

    def crop_params(self, index: int, epoch: int) -> list[CropParams]:
        """Return the crop of the photos."""
        return self.photos.crop_params(index, epoch)

    def sample_params(self, index: int, epoch: int) -> Batch:
        """Draw the parameters of the source, a function of (seed, epoch, index)."""
        rng = np.random.default_rng((self.seed, epoch if self.augment else 0, index, 2))
        return {"params": torch.tensor(self.derivation.draw(rng, vary=self.augment), dtype=torch.float32)}

    def sample(self, crops: Batch) -> Batch:
        """Compute source and target from crops of the photos."""
        photos, params = crops["rgb"], crops["params"]
        if photos.ndim == 3:
            return {name: made[0] for name, made in self.sample({"rgb": photos[None], "params": params[None]}).items()}
        source, target = self.derivation.pair(photos, params)
        return {"source": source, "target": target}

    def describe_images(self) -> str:
        """Return the part of the ``repr`` about the photos."""
        return self.photos.describe_images()

    @property
    def settings(self) -> str:
        """The ``repr`` without the facts that depend on the files; only for photos from files."""
        photos: Any = self.photos
        return f"{photos.settings}, {self.derivation}, {self._describe_crops()}"

    def __repr__(self) -> str:
        return f"{self.describe_images()}, {self.derivation}, {self._describe_crops()}"


class LabImages(DerivedPairs):
    """A folder of images in CIE Lab, `DerivedPairs` with the source ``"lab"``; arguments and errors as there.

    A sample is ``{"source": (1, size, size), "target": (2, size, size)}`` in [-1, 1]: L, and a and b, scaled as in
    `imtrans.colours.split_lab`. It is a function of (seed, epoch, index).
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        size: Size = 256,
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        super().__init__(
            folder, "lab", size=size, load_size=load_size, augment=augment, flip=flip, seed=seed,
            on_bad_image=on_bad_image,
        )  # fmt: skip


def _check_photos(owner: str, photos: SingleSourceDataset, given: dict[str, Any]) -> None:
    if given:
        raise ArgumentError(
            f"{owner}: {join_names(list(given))} {'is' if len(given) == 1 else 'are'} for a folder of photos, and a "
            f"{type(photos).__name__} has its own. Give the arguments to it."
        )
    target = photos.load(0).get("target")
    if target is None or target.shape[0] != 3 or photos.transform is not None:
        raise ArgumentError(
            f"{owner}: photos must be targets of 3 channels without a transform, as ProceduralFacades and PairedImages "
            f"have, got {photos!r}."
        )
