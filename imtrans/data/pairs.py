"""Pairs of images: files, found by their names, or the pictures of a row."""

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from imtrans.data.arrays import ARRAY_SUFFIXES, READABLE, array_header
from imtrans.data.images import SUFFIXES, image_files, upright
from imtrans.errors import DataError, counted, join_names, one_line, printable, short_repr


class ImageFile(NamedTuple):
    """What the header of an image file says."""

    path: Path
    channels: int
    deep: bool  # more than 8 bits


@dataclass(frozen=True)
class Pair:
    """The files of a pair: two, or one with both images side by side (`b` is None); and perhaps of instance ids."""

    a: Path
    b: Path | None = None
    instances: Path | None = None

    @property
    def name(self) -> str:
        """The name of the file of A."""
        return self.a.name

    def read(self, read: Callable[[Path, int], Any]) -> tuple[Any, Any]:
        """Return both images, PIL images or arrays ``h w c``, as ``read(path, side)`` reads a file of side 0 or 1."""
        # Sizes are checked here too: a file may have changed since the data set was made.
        first = read(self.a, 0)
        second = None if self.b is None else read(self.b, 1)
        width, _ = self._check_sizes(size_of(first), None if second is None else size_of(second))
        if second is not None:
            return first, second
        return _columns(first, 0, width), _columns(first, width, 2 * width)

    def check_header(self) -> tuple[tuple[int, int], list[ImageFile]]:
        """Return width and height of each image, and a `ImageFile` for each side, from the headers."""
        headers = [(path, *array_header(path)) for path in (self.a, self.b) if path is not None]
        files = [ImageFile(path, channels, deep) for path, _, channels, deep in headers]
        size = self._check_sizes(headers[0][1], None if self.b is None else headers[1][1])
        if self.instances is not None and (found := array_header(self.instances)[0]) != size:
            raise DataError(
                f"{printable(self.instances)} is {found[0]}x{found[1]}, and the pair {printable(self.a)} is "
                f"{size[0]}x{size[1]}. The instance ids of a pair must be of its size."
            )
        return size, files

    def _check_sizes(self, a: tuple[int, int], b: tuple[int, int] | None) -> tuple[int, int]:
        width, height = a
        if b is None and width % 2:
            raise DataError(
                f"{printable(self.a)} is {counted(width, 'pixel')} wide and cannot be halved. A side-by-side pair "
                "has A in its left half and B in its right half; or put them in two folders, A and B."
            )
        if b is not None and a != b:
            raise DataError(
                f"{printable(self.a)} is {width}x{height}, its partner {printable(self.b)} is {b[0]}x{b[1]}. "
                "The two pictures of a pair must be of one size."
            )
        return (width // 2, height) if b is None else a


class Cell(NamedTuple):
    """A picture of a row, and its name for error texts."""

    name: Path
    picture: Image.Image

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True, kw_only=True)
class RowPair(Pair):
    """The pictures in two `columns` of row `number`. `a` and `b` are no files: they name the pictures in error texts.

    `read` calls ``read(cell, side)`` with a `Cell`.
    """

    rows: Sequence[Mapping[str, Any]]
    number: int
    columns: tuple[str, str]

    @property
    def name(self) -> str:
        """The number of the row."""
        return f"row {self.number}"

    def read(self, read: Callable[[Any, int], Any]) -> tuple[Any, Any]:
        """Return both images, as ``read(cell, side)`` reads the cell of side 0 or 1."""
        a, b = (read(cell, side) for side, cell in enumerate(self._cells()))
        self._check_sizes(size_of(a), size_of(b))
        return a, b

    def check_header(self) -> tuple[tuple[int, int], list[ImageFile]]:
        """Return width and height of each picture, and an `ImageFile` for each; decodes the row."""
        cells = self._cells()
        size = self._check_sizes(*(cell.picture.size for cell in cells))
        return size, [ImageFile(cell.name, channels=3, deep=False) for cell in cells]

    def _cells(self) -> list[Cell]:
        """Decode the row, upright. Any error inside becomes a DataError."""
        row = str(self.a).removesuffix(f", {self.columns[0]}")
        try:
            found = self.rows[self.number]
            values = [found[column] for column in self.columns]
            cells = [
                Cell(Path(f"{row}, {column}"), upright(value) if isinstance(value, Image.Image) else value)
                for column, value in zip(self.columns, values, strict=True)
            ]
        except MemoryError:
            raise  # not the fault of the row
        except Exception as error:  # a library that decodes on access raises almost any exception
            reason = one_line(str(error)).rstrip(".") or type(error).__name__
            raise DataError(f"{printable(row)} cannot be read ({reason}). Repair the row, or leave it out.") from error
        for name, value in cells:
            if not isinstance(value, Image.Image):
                raise DataError(f"{printable(name)} holds {short_repr(value)}, not a PIL picture. Leave the row out.")
        return cells


def size_of(image: Any) -> tuple[int, int]:
    """Return width and height of a PIL image or an array ``h w c``."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def _columns(image: Any, left: int, right: int) -> Any:
    return image.crop((left, 0, right, image.height)) if isinstance(image, Image.Image) else image[:, left:right]


def with_instances(pairs: list[Pair], folder: Path) -> tuple[list[Pair], list[str]]:
    """Return the pairs with a file of instance ids in `folder`, and a report of each other pair."""
    ids = _by_stem(folder, READABLE)
    found = [replace(pair, instances=ids.get(_stem(pair.a))) for pair in pairs]
    missing = [printable(pair.a) for pair in found if pair.instances is None]
    return [pair for pair in found if pair.instances is not None], [
        f"{path} has no file of the same name in {printable(folder)}." for path in missing
    ]


def like_named(
    folder_a: Path, folder_b: Path, suffixes: Collection[str] = SUFFIXES
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Return the pairs of image files with the same name, up to the suffix, and the files without partner.

    Raises:
        DataError: a missing folder, no images, or two images of one name in a folder.
    """
    a, b = _by_stem(folder_a, suffixes), _by_stem(folder_b, suffixes)
    if not a and not b:
        raise DataError(
            f"{printable(folder_a)} and {printable(folder_b)} hold no pictures. Put the two pictures of a pair into "
            f"both, under one name.{array_hint(folder_a, suffixes)}"
        )
    alone = [a[stem] for stem in sorted(a.keys() - b.keys())] + [b[stem] for stem in sorted(b.keys() - a.keys())]
    return [(a[stem], b[stem]) for stem in sorted(a.keys() & b.keys())], alone


def array_hint(folder: Path, suffixes: Collection[str]) -> str:
    """Return the end of the error text for a folder without images, if it has arrays that are not read."""
    if set(ARRAY_SUFFIXES) <= set(suffixes) or not image_files(folder, ARRAY_SUFFIXES):
        return ""
    return ' Its .npy and .npz files are read with channels="as they are" (--channels "as they are").'


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files(folder, suffixes):
        stem = _stem(path)
        if stem in found:
            raise DataError(f"{printable(found[stem])} and {printable(path)} have the same name. Keep one of them.")
        found[stem] = path
    return found


def _stem(path: Path) -> str:
    # Some systems write an umlaut as one code point, others as two.
    return unicodedata.normalize("NFC", path.stem)


def without_partner(folder_a: Path, folder_b: Path, alone: list[Path]) -> str:
    """Return the error text for files without partner."""
    return (
        f"{len(alone)} of the files in {printable(folder_a)} and {printable(folder_b)} have no partner of the same "
        f"name: {join_names([printable(path) for path in alone])}. Add the missing ones, or take these out."
    )
