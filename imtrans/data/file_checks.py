"""Which samples of a data set are sound, and what becomes of the others."""

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from imtrans.checks import one_of
from imtrans.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
ON_BAD_IMAGE = ("error", "skip")
MOST_LISTED = 3


def check_files(
    owner: str,
    samples: Sequence[T],
    *,
    check_header: Callable[[T], R],
    decode: Callable[[T], R],
    on_bad_image: str,
    known: Sequence[str] = (),
) -> tuple[list[tuple[T, R]], list[str]]:
    """Look at each sample once, when a data set is made, so that its length is fixed from then on.

    Args:
        owner: the data set's name, for the messages.
        samples: in order.
        check_header: looks at the headers of a sample's files.
        decode: reads them whole. Both raise a DataError for a bad sample, and return what is worth knowing.
        on_bad_image: ``"error"``: check_header, and let the first error out; or ``"skip"``: decode, leave out what is
        bad,
            and warn.
        known: reports of what was found to be bad before it came to looking.

    Returns:
        The sound samples, in order, with what was learnt of each; and a report of each bad one.

    Raises:
        ArgumentError: another `on_bad_image`.
        DataError: a bad sample, or with ``"skip"``, no sound one.

    >>> check_files("Words", ["a", "b"], check_header=len, decode=len, on_bad_image="error")
    ([('a', 1), ('b', 1)], [])
    """
    if one_of(owner, "on_bad_image", on_bad_image, ON_BAD_IMAGE) == "error":
        if known:
            raise DataError(known[0])
        return [(sample, check_header(sample)) for sample in samples], []
    sound: list[tuple[T, R]] = []
    reports = [*known]
    for sample in samples:
        try:
            sound.append((sample, decode(sample)))
        except DataError as error:
            reports.append(str(error))
    total = len(sound) + len(reports)
    if not sound:
        raise DataError(f"{owner}: not one of {total} samples can be used. {_listed(reports)}")
    if reports:
        warnings.warn(
            f"{owner}: {len(reports)} of {total} samples are bad and left out. {_listed(reports)}", stacklevel=3
        )
    return sound, reports


def _listed(reports: Sequence[str]) -> str:
    more = f" And {len(reports) - MOST_LISTED} more." if len(reports) > MOST_LISTED else ""
    return " ".join(reports[:MOST_LISTED]) + more
