"""Paired images from folders: source and target show the same scene."""

import unicodedata
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from PIL import Image

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import Batch, Jitter, SingleSourceDataset
from imtrans.data.image_folder import check_files, describe_found, suggest_skip
from imtrans.data.images import image_files, image_size, read_image, resized
from imtrans.errors import DataError, join_names, printable

DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class _Pair:
    """The files of a pair: two, or one with both images side by side (`b` is None)."""

    a: Path
    b: Path | None = None

    def read(self) -> tuple[Image.Image, Image.Image]:
        # Sizes are checked here too: a file may have changed since the data set was made.
        first = read_image(self.a)
        second = None if self.b is None else read_image(self.b)
        width, height = self._check_sizes(first.size, None if second is None else second.size)
        if second is not None:
            return first, second
        return first.crop((0, 0, width, height)), first.crop((width, 0, first.width, height))

    def check_header(self) -> tuple[int, int]:
        """Return width and height of each image, from the headers."""
        return self._check_sizes(image_size(self.a), None if self.b is None else image_size(self.b))

    def decode(self) -> tuple[int, int]:
        """Return width and height of each image, decoded."""
        return self.read()[0].size

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

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
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

    Raises:
        ArgumentError: an unknown direction, a size below 1, a negative `seed`, or an unknown `on_bad_image`.
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
    ) -> None:
        self.folder = Path(folder)
        self.direction = one_of("PairedImages", "direction", direction, DIRECTIONS)
        self.jitter, self.augment = Jitter(size, load_size, flip), augment
        self.seed = at_least("PairedImages", "seed", seed, 0)
        pairs, alone = _find_pairs(self.folder)
        reports = [f"{printable(path)} has no partner of the same name." for path in alone]
        if alone and on_bad_image != "skip":
            reports = [without_partner(self.folder / "A", self.folder / "B", alone)]
        good, self.bad_images = check_files(
            "PairedImages", pairs, _Pair.check_header, _Pair.decode, on_bad_image=on_bad_image, known=reports
        )
        self.on_bad_image = on_bad_image
        self.pairs = [pair for pair, _ in good]
        self.files = [pair.a.name for pair in self.pairs]
        self.sizes = sorted({size for _, size in good})

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Batch:
        """Return the images of sample `index`, decoded and resized."""
        with suggest_skip(self.on_bad_image):
            a, b = (resized(image, self.loaded_size) for image in self.pairs[index].read())
        return {"source": a, "target": b} if self.direction == "AtoB" else {"source": b, "target": a}

    def __repr__(self) -> str:
        layout = "side by side" if self.pairs[0].b is None else "in folders A and B"
        found = describe_found(self.folder, self.bad_images, self.sizes)
        return f"{len(self)} pairs {layout} {found}, {self.direction}, as {self.jitter}"


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
