"""Reading, checking and scoring the answers of a perceptual study."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imtrans.errors import DataError, counted, printable

FORMAT = "imtrans perceptual study"
SHOWN = 1000  # milliseconds: the minimum time for which the page shows an image
LARGEST = 10_000_000  # bytes; a file of answers has a few thousand
LONGEST_NAME = 60  # maxlength of the page's field
BOOTSTRAPS = 10_000


@dataclass(frozen=True)
class Study:
    """The key of a study. `generated` has the index (0 or 1) of the generated image of each pair."""

    id: str
    practice: int
    trials: int
    generated: list[int]

    def order(self, seed: int) -> list[tuple[int, bool]]:
        """Return the pairs of a session with this `seed`, and whether their images are swapped.

        The page draws the same pairs with the same random generator.
        """
        stream = _numbers(seed)

        def below(n: int) -> int:
            return next(stream) * n >> 32

        def shuffled(first: int, last: int) -> list[int]:
            items = list(range(first, last))
            for i in range(len(items) - 1, 0, -1):
                j = below(i + 1)
                items[i], items[j] = items[j], items[i]
            return items

        pairs = shuffled(0, self.practice) + shuffled(self.practice, len(self.generated))[: self.trials]
        return [(pair, below(2) == 1) for pair in pairs]


def _numbers(seed: int) -> Iterator[int]:
    """32-bit xorshift (Marsaglia 2003, Journal of Statistical Software 8(14))."""
    x = seed
    while True:
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        yield x


@dataclass(frozen=True)
class Session:
    """The answers of one session. `fooled` is the number of trials in which the generated image was taken for real."""

    path: Path
    participant: str
    session: str
    started: int
    resumed: int
    fooled: int
    longest: int


def read_study(folder: Path) -> Study:
    """Read the key of the study in `folder`.

    Raises:
        DataError: the key is missing or damaged.
    """
    path = folder / "key.json"
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        study = Study(key["study"], key["practice"], key["trials"], [pair["generated"] for pair in key["pairs"]])
    except OSError as error:
        raise DataError(
            f"{printable(path)} cannot be read: {error.strerror}. Give the study's folder with --out."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        study = Study("", 0, 0, [])
    counts = [study.practice, study.trials, *study.generated]
    whole = all(type(count) is int for count in counts) and min(study.practice, study.trials) > 0
    if not (whole and study.practice + study.trials <= len(study.generated) and {*study.generated} <= {0, 1}):
        raise DataError(f"{printable(path)} is not the key of a study. Write the study again from the same images.")
    return study


def read_answers(path: Path, study: Study) -> Session:
    """Read a file that the page saved, and count the trials in which the generated image was taken for real.

    Raises:
        DataError: the file holds no answers, belongs to another study, is incomplete, or was changed.
    """
    answers, text, checksum = _read(path)
    if answers.get("format") != FORMAT:
        raise DataError(f"{printable(path)} holds no answers of a perceptual study. Give a file saved by the page.")
    if answers.get("study") != study.id:
        raise DataError(
            f"{printable(path)} belongs to another study, {answers.get('study')!r:.99}; this one is {study.id!r}."
        )
    if checksum != zlib.crc32(text):
        raise DataError(
            f"{printable(path)} was changed after the page saved it: its checksum is wrong. Ask for the original file."
        )
    trials, order = answers.get("answers"), study.order(_whole(path, answers, "seed", 1, 2**32 - 1))
    if not isinstance(trials, list) or len(trials) != len(order):
        found = counted(len(trials), "answer") if isinstance(trials, list) else "no answers"
        raise DataError(f"{printable(path)} holds {found}, not {len(order)}. Let the participant finish.")
    fooled, longest = 0, SHOWN
    for number, (trial, drawn) in enumerate(zip(trials, order, strict=True)):
        chosen, times = _answer(path, number, trial, drawn)
        fooled += number >= study.practice and chosen != study.generated[drawn[0]] ^ drawn[1]
        longest = max(longest, *times)
    return Session(
        path=path,
        participant=_text(path, answers, "participant"),
        session=_text(path, answers, "session"),
        started=_whole(path, answers, "started", 0),
        resumed=_whole(path, answers, "resumed", 0),
        fooled=fooled,
        longest=longest,
    )


def _read(path: Path) -> tuple[dict[str, object], bytes, object]:
    """Return the answers, the text under the checksum, and the checksum."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes are too many")
        answers = json.loads(path.read_text(encoding="utf-8"))
        answers = answers if isinstance(answers, dict) else {}
        checksum = answers.pop("checksum", None)
        text = json.dumps(answers, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{printable(path)} cannot be read as answers ({why}). Give a file saved by the page."
        ) from error
    return answers, text, checksum


def _whole(path: Path, answers: dict[str, object], name: str, low: int, high: int = 2**53) -> int:
    value = answers.get(name)
    if type(value) is not int or not low <= value <= high:
        raise DataError(f"{printable(path)}: {name} must be a whole number from {low} to {high}, got {value!r:.99}.")
    return value


def _text(path: Path, answers: dict[str, object], name: str) -> str:
    value = answers.get(name)
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= LONGEST_NAME:
        raise DataError(
            f"{printable(path)}: {name} must be a string of 1 to {LONGEST_NAME} characters, got {value!r:.99}."
        )
    return value.strip()


def _answer(path: Path, number: int, trial: object, drawn: tuple[int, bool]) -> tuple[int, list[int]]:
    """Return the image that was called generated, the first (0) or the second (1), and the times both were shown."""
    trial, name = trial if isinstance(trial, dict) else {}, f"{printable(path)}: trial {number + 1}"
    if (trial.get("pair"), trial.get("swapped")) != drawn:
        raise DataError(f"{name} does not match the seed of the session. Ask for the original file.")
    times = trial.get("shown")
    if not (isinstance(times, list) and len(times) == 2 and all(type(t) is int and t >= SHOWN for t in times)):
        raise DataError(f"{name} must show two images for {SHOWN} milliseconds or more, got {times!r:.99}.")
    return _whole(path, trial, "answer", 0, 1), times


def one_per_participant(sessions: Sequence[Session]) -> tuple[list[Session], list[Session]]:
    """Return the first session of each participant, by name, and the later ones, which are not scored.

    Raises:
        DataError: two files hold the same session.
    """
    files: dict[str, Path] = {}
    first: dict[str, Session] = {}
    for session in sorted(sessions, key=lambda session: (session.started, session.session)):
        if session.session in files:
            both = sorted([files[session.session], session.path])
            raise DataError(f"{printable(both[0])} and {printable(both[1])} hold the same session. Leave one out.")
        files[session.session] = session.path
        first.setdefault(" ".join(session.participant.split()).casefold(), session)
    taken = sorted(first.values(), key=lambda session: (session.participant, session.session))
    return taken, [session for session in sorted(sessions, key=lambda s: str(s.path)) if session not in taken]


def interval(fooled: Sequence[int], trials: int, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the rate of trials in which the generated image was taken for real.

    This is the percentile bootstrap of the protocol's authors, with two levels: draw participants with replacement,
    and for each one draw as many of their trials with replacement.
    """
    rng = np.random.default_rng(seed)
    rates = np.sort(np.asarray(fooled)) / trials
    drawn = rates[rng.integers(len(rates), size=(BOOTSTRAPS, len(rates)))]
    # The number of fooled trials among trials drawn with replacement is binomial.
    means = (rng.binomial(trials, drawn) / trials).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
