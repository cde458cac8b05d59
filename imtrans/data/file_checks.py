"""Checks of the files of a data set, once, when it is made."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from imtrans.checks import one_of
from imtrans.errors import DataError, join_names, printable

T = TypeVar("T")
R = TypeVar("R")
ON_BAD_IMAGE = ("error", "skip")
MAX_LISTED = 3


def check_files(
    owner: str,
    samples: Sequence[T],
    *,
    check_header: Callable[[T], R],
    decode: Callable[[T], R],
    on_bad_image: str,
    known: Sequence[str] = (),
) -> tuple[list[tuple[T, R]], list[str]]:
    """Check each sample, so that the length of a data set is fixed from then on.

    Args:
        owner: the name of the data set, for error texts.
        samples: the samples, in order.
        check_header: reads the headers of a sample's files. It raises a DataError for a bad sample.
        decode: reads the files whole. It raises a DataError for a bad sample.
        on_bad_image: ``"error"`` calls `check_header` and raises the first error; ``"skip"`` calls `decode`, leaves
            bad samples out, and warns.
        known: reports of bad samples that the caller has found.

    Returns:
        The good samples, in order, each with the value that its check returned; and a report of each bad sample.

    Raises:
        ArgumentError: an unknown `on_bad_image`.
        DataError: a bad sample, or with ``"skip"``, no good one.

    >>> check_files("Words", ["a", "b"], check_header=len, decode=len, on_bad_image="error")
    ([('a', 1), ('b', 1)], [])
    """
    if one_of(owner, "on_bad_image", on_bad_image, ON_BAD_IMAGE) == "error":
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
        raise DataError(f"{owner}: not one of {total} samples can be used. {listed}")
    if reports:
        warnings.warn(f"{owner}: {len(reports)} of {total} samples are bad and left out. {listed}", stacklevel=3)
    return good, reports


def describe_found(folder: Path, bad: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
    """Return the part of a data set's ``repr`` about its files."""
    left_out = f" ({len(bad)} bad ones left out)" if bad else ""
    shown = join_names([f"{width}x{height}" for width, height in sizes], most=3)
    return f"in {printable(folder)}{left_out}, {shown} pixels"
