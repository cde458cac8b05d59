"""Folders of image files: checked once, when a data set is made, and read as an image source."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeVar

from imtrans.checks import one_of
from imtrans.data.crop_dataset import Batch, Size
from imtrans.data.images import image_files, image_size, read_image, resized
from imtrans.errors import DataError, counted, join_names, printable

T = TypeVar("T")
R = TypeVar("R")
ON_BAD_IMAGE = ("error", "skip")
MAX_LISTED = 3
SKIP_HINT = 'To train without such files: on_bad_image="skip" (--on-bad-image skip).'


class ImageFolder:
    """The images of a folder, sorted by name; an `imtrans.data.crop_dataset.ImageSource`.

    `load` resizes an image to `size` and returns it as `name`. See `check_files` for `owner` and `on_bad_image`;
    `bad_images` has a report of each file left out, and `files` the names of the others.

    Raises:
        ArgumentError: an unknown `on_bad_image`.
        DataError: a missing or empty folder, an unreadable file, or no readable one; the text names the files.
    """

    def __init__(self, owner: str, folder: str | PathLike[str], *, name: str, size: Size, on_bad_image: str) -> None:
        self.folder, self.name, self.size, self.on_bad_image = Path(folder), name, size, on_bad_image
        paths = image_files(self.folder)
        if not paths:
            raise DataError(f"{printable(self.folder)} holds no pictures. Put some (.png, .jpg, .tif, .webp) in it.")
        good, self.bad_images = check_files(
            owner, paths, image_size, lambda path: read_image(path).size, on_bad_image=on_bad_image
        )
        self.paths = [path for path, _ in good]
        self.files = [path.name for path in self.paths]
        self.sizes = sorted({size for _, size in good})

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Batch:
        """Return image `index`, decoded and resized: ``{name: uint8 (3, size, size)}``."""
        with suggest_skip(self.on_bad_image):
            return {self.name: resized(read_image(self.paths[index]), self.size)}

    @property
    def settings(self) -> str:
        """The ``repr`` without the facts that depend on the files."""
        return f"pictures in {printable(self.folder)}"

    def __repr__(self) -> str:
        return f"{counted(len(self), 'picture')} {describe_found(self.folder, self.bad_images, self.sizes)}"


def check_files(
    owner: str,
    samples: Sequence[T],
    check_header: Callable[[T], R],
    decode: Callable[[T], R],
    *,
    on_bad_image: str,
    known: Sequence[str] = (),
) -> tuple[list[tuple[T, R]], list[str]]:
    """Check each sample, so that the length of a data set is fixed from then on.

    Returns the good samples, in order, each with the value that its check returned; and a report of each bad sample.

    Args:
        owner: the name of the data set, for error texts.
        check_header: reads the headers of a sample's files. It raises a DataError for a bad sample.
        decode: reads the files whole, with the same error.
        on_bad_image: ``"error"`` calls `check_header` and raises the first error; ``"skip"`` calls `decode`, leaves
            bad samples out, and warns.
        known: reports of bad samples that the caller has found.

    Raises:
        ArgumentError: an unknown `on_bad_image`.
        DataError: a bad sample, or with ``"skip"``, no good one.

    >>> check_files("Words", ["a", "b"], check_header=len, decode=len, on_bad_image="error")
    ([('a', 1), ('b', 1)], [])
    """
    if one_of(owner, "on_bad_image", on_bad_image, ON_BAD_IMAGE) == "error":
        with suggest_skip(on_bad_image):
            if known:
                raise DataError(known[0])
            return [(sample, check_header(sample)) for sample in samples], []
    good: list[tuple[T, R]] = []
    reports = [*known]
    for sample in samples:
        try:
            good.append((sample, decode(sample)))
        except DataError as error:
            reports.append(str(error))
    total = len(good) + len(reports)
    more = f" And {len(reports) - MAX_LISTED} more." if len(reports) > MAX_LISTED else ""
    listed = " ".join(reports[:MAX_LISTED]) + more
    if not good:
        raise DataError(f"{owner}: not one of {counted(total, 'sample')} can be used. {listed}")
    if reports:
        number = f"{len(reports)} of {counted(total, 'sample')} {'is' if len(reports) == 1 else 'are'}"
        warnings.warn(f"{owner}: {number} bad and left out. {listed}", stacklevel=3)
    return good, reports


@contextmanager
def suggest_skip(on_bad_image: str) -> Iterator[None]:
    """Context manager that adds the option ``on_bad_image="skip"`` to the text of a DataError, unless it is set."""
    try:
        yield
    except DataError as error:
        if on_bad_image == "skip":
            raise
        raise DataError(f"{error} {SKIP_HINT}") from error


def describe_found(folder: Path, bad: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
    """Return the part of a data set's ``repr`` about its files."""
    left_out = f" ({counted(len(bad), 'bad one')} left out)" if bad else ""
    shown = join_names([f"{width}x{height}" for width, height in sizes], most=3)
    return f"in {printable(folder)}{left_out}, {shown} pixels"
