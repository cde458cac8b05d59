"""The exception classes, and helpers for their messages.

Every error that imtrans raises on purpose derives from `ImtransError`, and from the built-in class that fits it.
"""

import unicodedata
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from reprlib import Repr

_REPR = Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 100


class ImtransError(Exception):
    """Base class of the errors of imtrans."""


class ArgumentError(ImtransError, ValueError):
    """An argument has a value that is not allowed."""


class ShapeError(ImtransError, ValueError):
    """A tensor's shape does not fit the module."""


class DataError(ImtransError, ValueError):
    """A data set, an image file, a folder or a download cannot be used."""


class SavedModelError(ImtransError, ValueError):
    """A model cannot be saved, or a saved model cannot be loaded."""


class HubError(ImtransError, OSError):
    """The Hugging Face Hub cannot be reached, or refuses."""


class CheckpointError(ImtransError, RuntimeError):
    """A training checkpoint cannot be written or read."""


class TrainingError(ImtransError, RuntimeError):
    """A training run cannot continue."""


def short_repr(value: object) -> str:
    """``repr`` of a value of any size and depth, shortened."""
    return _REPR.repr(value)


def one_line(text: str, most: int = 400) -> str:
    """`text` on one line of at most `most` printable characters."""
    line = printable(" ".join(text[: 10 * most].split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def did_you_mean(word: object, known: Collection[str]) -> str:
    """`` Did you mean 'x'?`` for the known name nearest to `word`, or an empty string.

    >>> did_you_mean("unet_256", ["phillipi/unet_256", "junyanz/unet_256", "unet_2015"])
    " Did you mean 'junyanz/unet_256' or 'phillipi/unet_256'?"
    """
    if same := sorted(name for name in known if name.rpartition("/")[2] == word):
        return f" Did you mean {' or '.join(map(repr, same))}?"
    near = get_close_matches(word[:100] if isinstance(word, str) else short_repr(word), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def join_names(names: Sequence[object], most: int = 5) -> str:
    """The first `most` names, separated by commas, and the number of the others."""
    shown = ", ".join(one_line(str(n), 100) for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(number: int, noun: str) -> str:
    """A number and a noun, with an s unless the number is 1.

    >>> counted(1, "pair"), counted(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(name: object) -> str:
    """`name` with line ends, control characters and undecodable bytes escaped. Letters of every script stay.

    >>> printable("façade\\n1.jpg")
    'façade\\\\n1.jpg'
    """
    return "".join(
        letter.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        else letter
        for letter in str(name)
    )
