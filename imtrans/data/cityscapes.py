"""Cityscapes in its official folders: label maps with the classes of the benchmark, and photos."""

from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imtrans.colours import CITYSCAPES_PALETTE, Colour
from imtrans.data.arrays import read_ids
from imtrans.data.crop_dataset import Size
from imtrans.data.paired import PairedImages
from imtrans.data.pairs import Pair
from imtrans.errors import DataError, printable

PHOTO, LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"  # ends of the file names
NUM_IDS = 34  # in the files
LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The 19 classes of the benchmark in the order of their train ids, and their ids in the files (Cordts et al. 2016)."""

TRAIN_PALETTE: dict[str, Colour] = {name: CITYSCAPES_PALETTE[name] for name in LABEL_IDS} | {"unknown": (0, 0, 0)}
"""The colours of the 19 classes, and of all others as one class."""


class CityscapesImages(PairedImages):
    """Label maps of Cityscapes as sources, and photos as targets, from the official folders.

    - ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` are the photos.
    - ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png`` are the label maps.

    A sample is ``{"source": (20, height, width), "target": (3, height, width)}``. The source has a channel in {0, 1}
    for each of the 19 classes of the benchmark, and one for all others; `palette` has their colours, `TRAIN_PALETTE`.
    Other arguments and errors are as for `imtrans.data.paired.PairedImages`.

    Args:
        folder: the folder with ``leftImg8bit`` and ``gtFine``.
        split: ``"train"`` or ``"val"``.

    Raises:
        DataError: no such files, a file without partner, or a label map with other ids.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        split: str = "train",
        *,
        size: Size = (256, 512),
        load_size: Size | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
    ) -> None:
        self.split = split
        super().__init__(
            folder,
            direction="BtoA",
            size=size,
            load_size=load_size,
            augment=augment,
            flip=flip,
            seed=seed,
            on_bad_image=on_bad_image,
            labels=TRAIN_PALETTE,
        )

    @property
    def folders(self) -> tuple[Path, Path]:
        """The folders of the photos and of the label maps."""
        return self.folder / "leftImg8bit" / self.split, self.folder / "gtFine" / self.split

    def _find_pairs(self, suffixes: Collection[str]) -> tuple[list[Pair], list[Path]]:
        photos, labels = (
            {path.relative_to(folder).as_posix().removesuffix(end): path for path in folder.glob(f"*/*{end}")}
            for folder, end in zip(self.folders, (PHOTO, LABELS), strict=True)
        )
        if not photos and not labels:
            raise DataError(
                f"{printable(self.folder)} has no files {'/'.join(self.folders[0].parts[-2:])}/CITY/*{PHOTO}. Unpack "
                "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of Cityscapes there."
            )
        alone = [(photos | labels)[name] for name in sorted(photos.keys() ^ labels.keys())]
        return [Pair(photos[name], labels[name]) for name in sorted(photos.keys() & labels.keys())], alone

    def _read(self, path: Path, side: int, channels: int) -> Any:
        """Return a photo, or a label map painted in the colours of `TRAIN_PALETTE`."""
        if side != self._label_side:
            return super()._read(path, side, channels)
        colours = np.zeros((NUM_IDS, 3), np.uint8)
        colours[list(LABEL_IDS.values())] = [TRAIN_PALETTE[name] for name in LABEL_IDS]
        return Image.fromarray(colours[read_ids(path, NUM_IDS)])

    @property
    def _layout(self) -> str:
        return f"in leftImg8bit/{self.split} and gtFine/{self.split}"
