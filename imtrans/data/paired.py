"""Pairs of pictures from folders."""

import unicodedata
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from PIL import Image

from imtrans.checks import at_least, one_of
from imtrans.data.cache import SingleSourceDataset
from imtrans.data.file_checks import check_files
from imtrans.data.images import Jitter, image_files, image_size, read_image
from imtrans.data.loader import Batch
from imtrans.errors import DataError, join_names, printable

DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class _Pair:
    """Where the two pictures of a sample are: in two files, or side by side in one (`b` is None)."""

    a: Path
    b: Path | None = None

    def read(self) -> tuple[Image.Image, Image.Image]:
        # The sizes are looked at again: a file may have changed since the data set was made.
        if self.b is not None:
            a, b = read_image(self.a), read_image(self.b)
            self._check_sizes(a.size, b.size)
            return a, b
        both = read_image(self.a)
        half, height = self._check_sizes(both.size)
        return both.crop((0, 0, half, height)), both.crop((half, 0, both.width, height))

    def check_header(self) -> tuple[int, int]:
        """Width and height of each of the two, from the headers."""
        return self._check_sizes(image_size(self.a), None if self.b is None else image_size(self.b))

    def decode(self) -> tuple[int, int]:
        """Width and height of each of the two, decoded."""
        return self.read()[0].size

    def _check_sizes(self, a: tuple[int, int], b: tuple[int, int] | None = None) -> tuple[int, int]:
        width, height = a
        if b is None:
            if width % 2:
                raise DataError(
                    f"{printable(self.a)} is {width} pixels wide and cannot be halved. A side-by-side pair has A "
                    f"in its "
                    "left half and B in its right half; or put them in two folders, A and B."
                )
            return width // 2, height
        if a != b:
            raise DataError(
                f"{printable(self.a)} is {width}x{height}, its partner {printable(self.b)} is {b[0]}x{b[1]}. "
                "The two pictures of a pair must be of one size."
            )
        return a


class PairedImages(SingleSourceDataset):
    """Pairs of pictures, source and target, in one of two layouts.

    Either `folder` holds pictures with A in the left half and B in the right half (the layout of pix2pix), or it
    holds two folders, ``A`` and ``B``, of files with the same names (their suffixes may differ). Every file is looked
    at once, when the data set is made. Pictures are turned upright, as their EXIF says, before anything
    else.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1]. What is random in it is a
    function of (seed, epoch, index) alone, so it is the same with any number of workers.

    Args:
        folder: of pictures.
        direction: ``"AtoB"``: A is the source and B the target, or ``"BtoA"``.
        size: height and width of a sample.
        load_size: see `imtrans.data.images.Jitter`.
        augment: whether to jitter and flip; without, pictures are resized to `size`.
        flip: see `imtrans.data.images.Jitter`.
        seed: of the augmentation.
        on_bad_image: what becomes of a file that cannot be read, that has no partner, or whose pair cannot be halved or
            differs in size. ``"error"``: the headers are looked at, and such a file is an error. ``"skip"``: every
            picture is decoded, which takes about as long as an epoch's loading; bad ones are left out with a warning,
            and reported in `bad_images`.

    Raises:
        ArgumentError: an unknown direction, a size below 1, a negative `seed`, or another `on_bad_image`.
        DataError: an empty or missing folder, no sound pair, two files of one name; what `on_bad_image` speaks of,
            also when it is noticed only in training; with the names of the files.
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
        self.jitter = Jitter(size, load_size, flip)
        self.augment = augment
        self.seed = at_least("PairedImages", "seed", seed, 0)
        pairs, alone = _find_pairs(self.folder)
        sound, self.bad_images = check_files(
            "PairedImages",
            pairs,
            check_header=_Pair.check_header,
            decode=_Pair.decode,
            on_bad_image=on_bad_image,
            known=_reports_of_alone(self.folder, alone, on_bad_image),
        )
        self.pairs = [pair for pair, _ in sound]
        self.sizes = sorted({size for _, size in sound})

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Batch:
        """The pictures of sample `index`, decoded and resized."""
        a, b = self.jitter.load(self.pairs[index].read(), self.loaded_size)
        return {"source": a, "target": b} if self.direction == "AtoB" else {"source": b, "target": a}

    def __repr__(self) -> str:
        layout = "side by side" if self.pairs[0].b is None else "in folders A and B"
        sizes = join_names([f"{width}x{height}" for width, height in self.sizes], most=3)
        bad = f" ({len(self.bad_images)} bad ones left out)" if self.bad_images else ""
        return (
            f"{len(self)} pairs {layout} in {printable(self.folder)}{bad}, {sizes} pixels, {self.direction}, "
            f"as {self.jitter}"
        )


def _find_pairs(folder: Path) -> tuple[list[_Pair], list[Path]]:
    """The pairs, in order, and the files that have no partner."""
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
    """The pictures of two folders in pairs of the same name, by name, and those without a partner.

    The suffixes of a pair may differ.

    Raises:
        DataError: two pictures of one name in a folder, no pictures; a folder that does not exist.
    """
    a, b = _by_stem(folder_a), _by_stem(folder_b)
    if not a and not b:
        raise DataError(
            f"{printable(folder_a)} and {printable(folder_b)} hold no pictures. Put those of a pair into both, "
            f"under one name."
        )
    alone = [a[s] for s in sorted(a.keys() - b.keys())] + [b[s] for s in sorted(b.keys() - a.keys())]
    return [(a[stem], b[stem]) for stem in sorted(a.keys() & b.keys())], alone


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        # One system writes an umlaut as one letter, another as a letter and dots.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise DataError(f"{printable(found[stem])} and {printable(path)} have the same name. Keep one of them.")
        found[stem] = path
    return found


def _reports_of_alone(folder: Path, alone: list[Path], on_bad_image: str) -> list[str]:
    """Together, where they are an error; one by one, where they are left out and counted."""
    if not alone:
        return []
    if on_bad_image == "skip":
        return [f"{printable(path)} has no partner of the same name." for path in alone]
    return [without_partner(folder / "A", folder / "B", alone)]


def without_partner(folder_a: Path, folder_b: Path, alone: list[Path]) -> str:
    """What to say where pictures that are `alone` are an error."""
    return (
        f"{len(alone)} of the files in {printable(folder_a)} and {printable(folder_b)} have no partner of the "
        f"same name: "
        f"{join_names([printable(path) for path in alone])}. Add the missing ones, or take these out."
    )
