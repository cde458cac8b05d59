"""Pairs of pictures from folders."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from PIL import Image

from imtrans.errors import DataError, at_least, one_of, some_of
from imtrans.images import Jitter, image_files, image_size, read_image
from imtrans.loading import Batch
from imtrans.resident import Pictures

DIRECTIONS = ("AtoB", "BtoA")


@dataclass(frozen=True)
class _Pair:
    """Where the two pictures of a sample are: in two files, or side by side in one (`b` is None)."""

    a: Path
    b: Path | None = None

    def read(self) -> tuple[Image.Image, Image.Image]:
        if self.b is not None:
            return read_image(self.a), read_image(self.b)
        both = read_image(self.a)
        half, height = both.width // 2, both.height
        return both.crop((0, 0, half, height)), both.crop((half, 0, both.width, height))

    def check(self) -> tuple[int, int]:
        width, height = image_size(self.a)
        if self.b is None:
            if width % 2:
                raise DataError(
                    f"{self.a} is {width} pixels wide and cannot be halved. A side-by-side pair has A in its "
                    "left half and B in its right half; or put them in two folders, A and B."
                )
            return width // 2, height
        if (width, height) != image_size(self.b):
            raise DataError(
                f"{self.a} is {width}x{height}, its partner {self.b} is {'x'.join(map(str, image_size(self.b)))}. "
                "The two pictures of a pair must be of one size."
            )
        return width, height


class PairedImages(Pictures):
    """Pairs of pictures, source and target, in one of two layouts.

    Either `folder` holds pictures with A in the left half and B in the right half (the layout of pix2pix), or it
    holds two folders, ``A`` and ``B``, of files with the same names (their suffixes may differ). Every file's
    header is looked at once, when the data set is made.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1]. What is random in it is a
    function of (seed, epoch, index) alone, so it is the same with any number of workers.

    Args:
        folder: of pictures.
        direction: ``"AtoB"``: A is the source and B the target, or ``"BtoA"``.
        size: height and width of a sample.
        load_size: see `imtrans.images.Jitter`.
        augment: whether to jitter and flip; without, pictures are resized to `size`.
        flip: see `imtrans.images.Jitter`.
        seed: of the augmentation.

    Raises:
        ArgumentError: an unknown direction, a size below 1, or a negative `seed`.
        DataError: an empty or missing folder, a file without partner, a pair that cannot be halved or differs in
            size, an unreadable file; with the names of the files.
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
    ) -> None:
        self.folder = Path(folder)
        self.direction = one_of("PairedImages", "direction", direction, DIRECTIONS)
        self.jitter = Jitter(size, load_size, flip)
        self.augment = augment
        self.seed = at_least("PairedImages", "seed", seed, 0)
        self.pairs = _find_pairs(self.folder)
        self.sizes = sorted({pair.check() for pair in self.pairs})

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Batch:
        """The pictures of sample `index`, decoded and resized."""
        a, b = self.jitter.load(self.pairs[index].read(), self.loaded_size)
        return {"source": a, "target": b} if self.direction == "AtoB" else {"source": b, "target": a}

    def __repr__(self) -> str:
        layout = "side by side" if self.pairs[0].b is None else "in folders A and B"
        sizes = some_of([f"{width}x{height}" for width, height in self.sizes], most=3)
        return f"{len(self)} pairs {layout} in {self.folder}, {sizes} pixels, {self.direction}, as {self.jitter}"


def _find_pairs(folder: Path) -> list[_Pair]:
    if (folder / "A").is_dir() or (folder / "B").is_dir():
        return _match(folder / "A", folder / "B")
    pairs = [_Pair(path) for path in image_files(folder)]
    if not pairs:
        raise DataError(
            f"{folder} holds no pictures. Put side-by-side pairs (.png, .jpg, .tif, .webp) in it, or two "
            "folders, A and B, of files with the same names."
        )
    return pairs


def _match(folder_a: Path, folder_b: Path) -> list[_Pair]:
    a, b = _by_stem(folder_a), _by_stem(folder_b)
    alone = [str(a[s]) for s in sorted(a.keys() - b.keys())] + [str(b[s]) for s in sorted(b.keys() - a.keys())]
    if alone:
        raise DataError(
            f"{len(alone)} of the files in {folder_a} and {folder_b} have no partner of the same name: "
            f"{some_of(alone)}. Add the missing ones, or take these out."
        )
    if not a:
        raise DataError(f"{folder_a} and {folder_b} hold no pictures.")
    return [_Pair(a[stem], b[stem]) for stem in sorted(a)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder):
        if path.stem in found:
            raise DataError(f"{found[path.stem]} and {path} have the same name. Keep one of them.")
        found[path.stem] = path
    return found
