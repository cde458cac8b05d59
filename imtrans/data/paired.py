"""Paired images from folders: source and target show the same scene."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from os import PathLike
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from imtrans.checks import at_least, one_of
from imtrans.colours import check_palette
from imtrans.data.crop_dataset import Batch, Jitter, SingleSourceDataset
from imtrans.data.image_folder import check_files, describe_found, suggest_skip
from imtrans.data.images import (
    ValueRange,
    image_files,
    image_header,
    read_image,
    resized,
    to_float,
    warn_of_dark_files,
)
from imtrans.data.labels import ids_from_colours
from imtrans.errors import ArgumentError, DataError, join_names, printable, short_repr

DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class _Pair:
    """The files of a pair: two, or one with both images side by side (`b` is None)."""

    a: Path
    b: Path | None = None

    def read(self, value_range: ValueRange | None = None) -> tuple[Image.Image, Image.Image]:
        # Sizes are checked here too: a file may have changed since the data set was made.
        first = read_image(self.a, value_range)
        second = None if self.b is None else read_image(self.b, value_range)
        width, height = self._check_sizes(first.size, None if second is None else second.size)
        if second is not None:
            return first, second
        return first.crop((0, 0, width, height)), first.crop((width, 0, first.width, height))

    def check_header(self) -> tuple[tuple[int, int], list[Path]]:
        """Return width and height of each image, and the 16-bit files, from the headers."""
        headers = {path: image_header(path) for path in (self.a, self.b) if path is not None}
        size = self._check_sizes(headers[self.a][0], None if self.b is None else headers[self.b][0])
        return size, [path for path, (_, mode) in headers.items() if mode.startswith("I")]

    def decode(self, value_range: ValueRange | None = None) -> tuple[tuple[int, int], list[Path]]:
        """Return the values of `check_header`; decodes the images too."""
        self.read(value_range)
        return self.check_header()

    def _check_sizes(self, a: tuple[int, int], b: tuple[int, int] | None) -> tuple[int, int]:
        width, height = a
        if b is None and width % 2:
            raise DataError(
                f"{printable(self.a)} is {width} pixels wide and cannot be halved. A side-by-side pair has A in its "
                "left half and B in its right half; or put them in two folders, A and B."
            )
        if b is not None and a != b:
            raise DataError(
                f"{printable(self.a)} is {width}x{height}, its partner {printable(self.b)} is {b[0]}x{b[1]}. "
                "The two pictures of a pair must be of one size."
            )
        return (width // 2, height) if b is None else a


class PairedImages(SingleSourceDataset):
    """A folder of image pairs, source and target, in one of two layouts.

    - `folder` holds images with A in the left half and B in the right half, as in the data sets of pix2pix.
    - `folder` holds two folders, ``A`` and ``B``, of files with the same names; the suffixes may differ.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1] (see `labels`), a function of
    (seed, epoch, index). Every file is checked once, when the data set is made; `files` lists the file names of the
    samples (of A). Images are rotated as their EXIF orientation says.

    Args:
        folder: the folder of pairs.
        direction: ``"AtoB"``: A is the source and B the target; or ``"BtoA"``.
        size: height and width of a sample.
        load_size: see `imtrans.data.crop_dataset.Jitter`.
        augment: whether to crop and flip; if False, images are only resized.
        flip: whether to mirror left and right with probability 1/2.
        seed: the seed of the augmentation.
        on_bad_image: what to do with an unreadable file, a file without partner, or a pair that cannot be halved or
            differs in size. ``"error"`` reads the headers and raises an error. ``"skip"`` decodes every file, which
            takes about as long as an epoch, leaves bad samples out with a warning, and reports them in `bad_images`.
        value_range: the values ``(low, high)`` of 16-bit and float files that become -1 and 1; others are clipped. None
            for 0 to 65535, and for floats 0 to 1. Files of 8 bit are read as they are.
        labels: the palette of the source, if that is a painted label map: ``"facades"`` or ``"cmp"``, ``"cityscapes"``,
            a mapping from classes to colours, or a list of colours ``(r, g, b)``, at most 256. The source then has a
            channel for each class, in {0, 1}: label maps are resized by nearest neighbour, and each pixel gets the
            class of the nearest colour. `palette` has the colours.

    Raises:
        ArgumentError: an unknown direction, a size below 1, a negative `seed`, an unknown `on_bad_image`, a
            `value_range` that is not two increasing numbers, or an invalid palette.
        DataError: a missing or empty folder, no good pair, two files of one name, or a bad file (see `on_bad_image`),
            also when it is found only in training; the text names the files.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        direction: str = "AtoB",
        size: int = 256,
        load_size: int | None = None,
        augment: bool = True,
        flip: bool = True,
        seed: int = 0,
        on_bad_image: str = "error",
        value_range: ValueRange | None = None,
        labels: object = None,
    ) -> None:
        self.folder = Path(folder)
        self.direction = one_of("PairedImages", "direction", direction, DIRECTIONS)
        self.jitter, self.augment = Jitter(size, load_size, flip), augment
        self.seed = at_least("PairedImages", "seed", seed, 0)
        self.palette = None if labels is None else check_palette("PairedImages", labels, "labels")
        at_least("PairedImages", "the number of labels", len(self.palette or ()), 0, 256)
        self.value_range, self.on_bad_image = _checked_range(value_range), on_bad_image
        pairs, alone = _find_pairs(self.folder)
        reports = [f"{printable(path)} has no partner of the same name." for path in alone]
        if alone and on_bad_image != "skip":
            reports = [without_partner(self.folder / "A", self.folder / "B", alone)]
        good, self.bad_images = check_files(
            "PairedImages",
            pairs,
            _Pair.check_header,
            lambda pair: pair.decode(self.value_range),
            on_bad_image=on_bad_image,
            known=reports,
        )
        self.pairs = [pair for pair, _ in good]
        self.files = [pair.a.name for pair in self.pairs]
        self.sizes = sorted({size for _, (size, _) in good})
        if value_range is None:
            with suggest_skip(on_bad_image):
                warn_of_dark_files("PairedImages", [path for _, (_, deep) in good for path in deep])

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Batch:
        """Return the images of sample `index`, decoded and resized."""
        with suggest_skip(self.on_bad_image):
            a, b = self.pairs[index].read(self.value_range)
        source, target = (a, b) if self.direction == "AtoB" else (b, a)
        return {"source": self._load_source(source), "target": resized(target, self.loaded_size)}

    def _load_source(self, image: Image.Image) -> Tensor:
        if self.palette is None:
            return resized(image, self.loaded_size)
        painted = resized(image, self.loaded_size, Image.Resampling.NEAREST)
        return ids_from_colours(to_float(painted[None]), self.palette).byte()

    def sample(self, crops: Batch) -> Batch:
        """Encode the class ids of label maps as one-hot channels."""
        if self.palette is None:
            return crops
        source = crops["source"]
        ids = ((source + 1) * 127.5).round()  # each crop becomes floats in [-1, 1]
        classes = torch.arange(len(self.palette), device=source.device)[:, None, None]
        return {**crops, "source": (ids == classes).float()}

    def __repr__(self) -> str:
        layout = "side by side" if self.pairs[0].b is None else "in folders A and B"
        found = describe_found(self.folder, self.bad_images, self.sizes)
        values = "" if self.value_range is None else ", values {:g} to {:g}".format(*self.value_range)
        labels = "" if self.palette is None else f", source of {len(self.palette)} labels"
        return f"{len(self)} pairs {layout} {found}{values}{labels}, {self.direction}, as {self.jitter}"


def _checked_range(value_range: object) -> ValueRange | None:
    if value_range is None:
        return None
    pair = tuple(value_range) if isinstance(value_range, Sequence) and not isinstance(value_range, str) else ()
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and isfinite(v) for v in pair) or pair[0] >= pair[1]:
        raise ArgumentError(
            f"PairedImages: value_range must be two increasing numbers, (low, high), got {short_repr(value_range)}."
        )
    return float(pair[0]), float(pair[1])


def _find_pairs(folder: Path) -> tuple[list[_Pair], list[Path]]:
    """Return the pairs, sorted by name, and the files without partner."""
    if (folder / "A").is_dir() or (folder / "B").is_dir():
        named, alone = like_named(folder / "A", folder / "B")
        return [_Pair(a, b) for a, b in named], alone
    pairs = [_Pair(path) for path in image_files(folder)]
    if not pairs:
        raise DataError(
            f"{printable(folder)} holds no pictures. Put side-by-side pairs (.png, .jpg, .tif, .webp) in it, or two "
            "folders, A and B, of files with the same names."
        )
    return pairs, []


def like_named(folder_a: Path, folder_b: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Return the pairs of image files with the same name, up to the suffix, and the files without partner.

    Raises:
        DataError: a missing folder, no images, or two images of one name in a folder.
    """
    a, b = _by_stem(folder_a), _by_stem(folder_b)
    if not a and not b:
        raise DataError(
            f"{printable(folder_a)} and {printable(folder_b)} hold no pictures. Put the two pictures of a pair into "
            "both, under one name."
        )
    alone = [a[stem] for stem in sorted(a.keys() - b.keys())] + [b[stem] for stem in sorted(b.keys() - a.keys())]
    return [(a[stem], b[stem]) for stem in sorted(a.keys() & b.keys())], alone


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        # Some systems write an umlaut as one code point, others as two.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise DataError(f"{printable(found[stem])} and {printable(path)} have the same name. Keep one of them.")
        found[stem] = path
    return found


def without_partner(folder_a: Path, folder_b: Path, alone: list[Path]) -> str:
    """Return the error text for files without partner."""
    return (
        f"{len(alone)} of the files in {printable(folder_a)} and {printable(folder_b)} have no partner of the same "
        f"name: {join_names([printable(path) for path in alone])}. Add the missing ones, or take these out."
    )
