"""Argument checks: each returns a valid value, or raises an `ArgumentError` that names the allowed values."""

import re
from collections.abc import Collection, Sequence
from math import isfinite

from imtrans.errors import ArgumentError, did_you_mean, printable, short_repr


def one_of(owner: str, argument: str, value: object, allowed: Collection[str]) -> str:
    """Check that `value` is one of the names in `allowed`. The error suggests the nearest name."""
    if isinstance(value, str) and value in allowed:
        return value
    raise ArgumentError(
        f"{owner}: {argument}={short_repr(value)} is not one of {sorted(allowed)}.{did_you_mean(value, allowed)}"
    )


def at_least(owner: str, argument: str, value: object, minimum: int, maximum: float = float("inf")) -> int:
    """Check that ``minimum <= value <= maximum`` for an int that is not a bool."""
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
        return value
    allowed = f">= {minimum}" if maximum == float("inf") else f"from {minimum} to {maximum}"
    raise ArgumentError(f"{owner}: {argument} must be a whole number {allowed}, got {short_repr(value)}.")


def in_range(owner: str, argument: str, value: object, low: float, high: float = float("inf")) -> float:
    """Check that ``low <= value <= high`` for an int or float, and convert it to float."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    allowed = f">= {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
    raise ArgumentError(f"{owner}: {argument} must be a number {allowed}, got {short_repr(value)}.")


def increasing_pair(owner: str, argument: str, value: object) -> tuple[float, float]:
    """Check that `value` is a sequence of two finite numbers, the first one smaller, and convert them to floats."""
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and isfinite(v) for v in pair) or pair[0] >= pair[1]:
        raise ArgumentError(
            f"{owner}: {argument} must be two increasing numbers, (low, high), got {short_repr(value)}."
        )
    return float(pair[0]), float(pair[1])


def check_bool(owner: str, argument: str, value: object, *, unset: bool = False) -> None:
    """Check that `value` is True or False, or None if it may be `unset`."""
    if not (isinstance(value, bool) or (unset and value is None)):
        allowed = "None, True or False" if unset else "True or False"
        raise ArgumentError(f"{owner}: {argument} must be {allowed}, got {short_repr(value)}.")


def check_sha256(owner: str, sha256: object) -> str | None:
    """Check that `sha256` is a SHA-256 in hexadecimal, and convert it to lower case. None stays None."""
    if sha256 is None or (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        return None if sha256 is None else sha256.lower()
    raise ArgumentError(f"{owner}: sha256 must be 64 hexadecimal digits, got {printable(sha256)}.")
