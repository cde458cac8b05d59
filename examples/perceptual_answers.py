"""The answers of a perceptual study: read, checked against the study's key, and summed up."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imtrans.errors import DataError, printable

FORMAT = "imtrans perceptual study"
SHOWN = 1000  # milliseconds, for which the page shows each picture at least
LARGEST = 10_000_000  # bytes: answers have some thousand
LONGEST_NAME = 60  # as the page's field takes
BOOTSTRAPS = 10_000


@dataclass(frozen=True)
class Study:
    """What the key of a study says: of each pair, which of the two pictures was generated."""

    id: str
    practice: int
    trials: int
    generated: list[int]

    def order(self, seed: int) -> list[tuple[int, bool]]:
        """The pairs that a participant with this `seed` sees, and whether their pictures are swapped.

        The page draws the same, with the same generator.
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
    """Marsaglia's xorshift with 32 bits (Journal of Statistical Software 8(14), 2003)."""
    x = seed
    while True:
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        yield x


@dataclass(frozen=True)
class Session:
    """One participant's answers: in how many trials the generated picture was `fooled` for real."""

    path: Path
    participant: str
    session: str
    started: int
    resumed: int
    fooled: int
    longest: int


def read_study(folder: Path) -> Study:
    """Read the key that was written beside a study's page.

    Raises:
        DataError: there is none, or it is damaged.
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
        raise DataError(f"{printable(path)} is not the key of a study. Write the study again, from the same pictures.")
    return study


def read_answers(path: Path, study: Study) -> Session:
    """Read a file that the page saved, and count the trials in which the generated picture was taken for real.

    Raises:
        DataError: it is no such file, is of another study, is not finished, or was changed since it was saved.
    """
    answers, text, checksum = _read(path)
    if answers.get("format") != FORMAT:
        raise DataError(f"{printable(path)} holds no answers of a perceptual study. Give the file that the page saved.")
    if answers.get("study") != study.id:
        raise DataError(
            f"{printable(path)} answers another study, {answers.get('study')!r:.99}; this one is {study.id!r}."
        )
    if checksum != zlib.crc32(text):
        raise DataError(
            f"{printable(path)} was changed after the page had saved it: its checksum is wrong. Ask for it again."
        )
    given, order = answers.get("answers"), study.order(_whole(path, answers, "seed", 1, 2**32 - 1))
    if not isinstance(given, list) or len(given) != len(order):
        found = len(given) if isinstance(given, list) else "no"
        raise DataError(f"{printable(path)} holds {found} answers, not {len(order)}. Let the participant finish.")
    fooled, longest = 0, SHOWN
    for number, (answer, drawn) in enumerate(zip(given, order, strict=True)):
        chosen, times = _answer(path, number, answer, drawn)
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
    """The answers, the text that their checksum is of, and the checksum."""
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
            f"{printable(path)} cannot be read as answers ({why}). Give the file that the page saved."
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
            f"{printable(path)}: {name} must be a text of 1 to {LONGEST_NAME} characters, got {value!r:.99}."
        )
    return value.strip()


def _answer(path: Path, number: int, answer: object, drawn: tuple[int, bool]) -> tuple[int, list[int]]:
    """Which picture was called generated, the first (0) or the second (1), and for how long the two were shown."""
    answer, trial = answer if isinstance(answer, dict) else {}, f"{printable(path)}: trial {number + 1}"
    if (answer.get("pair"), answer.get("swapped")) != drawn:
        raise DataError(f"{trial} is not the one that its seed draws. Ask for the file again.")
    times = answer.get("shown")
    if not (isinstance(times, list) and len(times) == 2 and all(type(t) is int and t >= SHOWN for t in times)):
        raise DataError(f"{trial} must show two pictures for {SHOWN} milliseconds or more, got {times!r:.99}.")
    return _whole(path, answer, "answer", 0, 1), times


def one_per_participant(sessions: Sequence[Session]) -> tuple[list[Session], list[Session]]:
    """The first session of each participant, by name; and later ones, which the study leaves out.

    Raises:
        DataError: two files are of one session.
    """
    files: dict[str, Path] = {}
    first: dict[str, Session] = {}
    for session in sorted(sessions, key=lambda session: (session.started, session.session)):
        if session.session in files:
            both = sorted([files[session.session], session.path])
            raise DataError(f"{printable(both[0])} and {printable(both[1])} are of one session. Take one of them out.")
        files[session.session] = session.path
        first.setdefault(" ".join(session.participant.split()).casefold(), session)
    taken = sorted(first.values(), key=lambda session: (session.participant, session.session))
    return taken, [session for session in sorted(sessions, key=lambda s: str(s.path)) if session not in taken]


def interval(fooled: Sequence[int], trials: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the rate of trials in which the generated picture was taken for real.

    A percentile bootstrap with two levels, as the authors of the protocol did it: participants are drawn with
    replacement, and then, of each one drawn, as many of their trials, with replacement.
    """
    rng = np.random.default_rng(seed)
    rates = np.sort(np.asarray(fooled)) / trials
    drawn = rates[rng.integers(len(rates), size=(BOOTSTRAPS, len(rates)))]
    # Trials drawn with replacement from those of one participant: how many fooled is binomial.
    means = (rng.binomial(trials, drawn) / trials).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
