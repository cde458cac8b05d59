"""What went wrong, in words that say what to do.

Every error that imtrans raises on purpose derives from `ImtransError`. The classes that stand for a wrong
value also derive from `ValueError`, so code that knows nothing of imtrans catches them as it would expect.
"""

import unicodedata
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import TypeVar

T = TypeVar("T")

_REPR = Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 100


class ImtransError(Exception):
    """The root of every error of imtrans."""


class ArgumentError(ImtransError, ValueError):
    """An argument has a value that its owner does not accept."""


class ShapeError(ImtransError, ValueError):
    """A tensor's shape does not fit the module it was given to."""


class DataError(ImtransError, ValueError):
    """A data set, an image file or a folder of them cannot be used."""


class SavedModelError(ImtransError, ValueError):
    """A saved model, or one that should be saved, does not fit its description."""


class HubError(ImtransError, OSError):
    """The Hugging Face Hub cannot be reached, or refuses."""


class CheckpointError(ImtransError, RuntimeError):
    """A training checkpoint cannot be written or read."""


class TrainingError(ImtransError, RuntimeError):
    """A training run cannot go on."""


def short_repr(value: object) -> str:
    """Return the ``repr`` of a value of any size and depth, cut short: what a file holds may be a megabyte."""
    return _REPR.repr(value)


def one_line(text: str, most: int = 400) -> str:
    """Return `text` on one line, of at most `most` characters, all of which can be printed."""
    line = printable(" ".join(text[: 10 * most].split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def did_you_mean(word: object, known: Collection[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to `word`, or nothing."""
    near = get_close_matches(word[:100] if isinstance(word, str) else short_repr(word), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def join_names(names: Sequence[T], most: int = 5) -> str:
    """Return the first `most` names as a list in words, and how many more there are."""
    shown = ", ".join(one_line(str(n), 100) for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def printable(name: object) -> str:
    """Return `name` (of a file, say) in one line that any terminal can print.

    Letters of every script stay. Line ends, control characters and bytes that are no text are escaped.

    >>> printable("façade\\n1.jpg")
    'façade\\\\n1.jpg'
    """
    return "".join(
        letter.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        else letter
        for letter in str(name)
    )
