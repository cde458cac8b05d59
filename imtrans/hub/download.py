"""Files from the web: fetched beside their place, gone on with after a cut, checked, and only then put there."""

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from imtrans.errors import ArgumentError, DataError, printable
from imtrans.files import sync_folder, write_json

CHUNK = 2**16


def fetch(
    url: str, path: str | os.PathLike[str], *, sha256: str | None = None, size: int | None = None, timeout: float = 60.0
) -> str:
    """Fetch a file, so that at `path` there is the whole of it or nothing.

    It is written beside `path`, to a file whose name ends in ``.part``. When the connection breaks, that file stays,
    and the next call asks for the rest; if the server cannot give that, or has another file by now, it starts anew.
    A file that is at `path` already is replaced, unless it is known to be the right one.

    Args:
        url: http or https.
        path: where the file is to be; its folder is made.
        sha256: the digest that the file must have, in hexadecimal.
        size: the bytes that it must have.
        timeout: seconds that the server may be silent.

    Returns:
        The SHA-256 of the file.

    Raises:
        ArgumentError: another kind of `url`, or a `sha256` that is none.
        DataError: the file cannot be fetched; it is cut short, or not the one that was asked for.
    """
    _check_arguments(url, sha256)
    target = Path(path)
    wanted = None if sha256 is None else sha256.lower()
    if wanted is not None and target.is_file() and _digest(target) == wanted:
        return wanted
    part = _Part.beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, size, timeout)
        return part.finish(url, target, wanted, size)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url} cannot be fetched: the server answers {error.code} {error.reason}.") from error
    except DataError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        kept = part.length()
        on = f" {kept} bytes of it are kept: fetch it again, and it goes on from there." if kept else ""
        raise DataError(f"{url} cannot be fetched: {str(reason) or type(error).__name__}.{on}") from error


@dataclass(frozen=True)
class _Part:
    """What has come so far, and beside it which version of the file that is of."""

    content: Path
    version: Path

    @classmethod
    def beside(cls, target: Path) -> "_Part":
        return cls(target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json"))

    def length(self) -> int:
        return self.content.stat().st_size if self.content.is_file() else 0

    def start(self, url: str, headers: Any) -> None:
        """Forget what came before, and note what tells this version of the file from others."""
        self.remove()
        tag = headers.get("ETag", "")
        # A weak tag does not promise the same bytes.
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        if validator:
            write_json(self.version, {"url": url, "validator": validator})

    def validator(self, url: str) -> str | None:
        """What the server told about the version that is here; None if nothing is here to go on with."""
        try:
            noted = json.loads(self.version.read_bytes())
            return str(noted["validator"]) if noted["url"] == url and self.length() else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def remove(self) -> None:
        self.content.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def refused(self, url: str, reason: str) -> DataError:
        """Remove what has come; the error to raise."""
        self.remove()
        return DataError(f"{url} is not the file that was asked for: {reason}. It was removed.")

    def finish(self, url: str, target: Path, wanted: str | None, size: int | None) -> str:
        """Check what has come, and put it in its place."""
        if size is not None and self.length() != size:
            raise self.refused(url, f"it has {self.length()} bytes, not {size}")
        found = _digest(self.content)
        if wanted is not None and found != wanted:
            raise self.refused(url, f"its SHA-256 is {found}, not {wanted}")
        self.content.replace(target)
        self.version.unlink(missing_ok=True)
        sync_folder(target.parent)
        return found


def _receive(url: str, part: _Part, size: int | None, timeout: float) -> None:
    """Bring `part` to its whole length."""
    validator = part.validator(url)
    if validator is not None:
        try:
            rest = {"Range": f"bytes={part.length()}-", "If-Range": validator}
            with _request(url, rest, timeout) as answer:
                _store(url, answer, part, size, validator)
                return
        except urllib.error.HTTPError as error:
            if error.code != 416:  # there is no such rest
                raise
            error.close()
    with _request(url, {}, timeout) as answer:
        _store(url, answer, part, size, None)


def _request(url: str, headers: dict[str, str], timeout: float) -> HTTPResponse:
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)


def _store(url: str, answer: HTTPResponse, part: _Part, size: int | None, validator: str | None) -> None:
    """Append the rest of the version that `validator` names to what is there, or put a whole file in its place."""
    there, whole = 0, _number(answer.headers.get("Content-Length"))
    if answer.status == 206 and validator is not None:
        there, end = part.length(), _end_of_rest(answer.headers, part.length(), validator)
        if end is None:
            part.remove()
            raise OSError("the server sent another part than the one that was asked for")
        whole = end
    elif answer.status == 200:
        part.start(url, answer.headers)
    else:
        raise OSError(f"the server answers {answer.status} {answer.reason}")
    if None not in (size, whole) and whole != size:
        raise part.refused(url, f"it has {whole} bytes, not {size}")
    with part.content.open("ab" if there else "wb") as file:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            there += len(chunk)
            if size is not None and there > size:
                raise part.refused(url, f"it has more than {size} bytes")
        file.flush()
        os.fsync(file.fileno())
    if whole is not None and there < whole:
        raise OSError(f"the connection broke after {there} of {whole} bytes")


def _end_of_rest(headers: Any, start: int, validator: str) -> int | None:
    """The length of the whole file, if the answer is its rest from `start` on."""
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""), re.ASCII)
    other = validator.startswith('"') and headers.get("ETag", validator) != validator
    if span is None or int(span[1]) != start or other:
        return None
    return int(span[2]) + 1 if span[3] == "*" else int(span[3])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_arguments(url: str, sha256: str | None) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise ArgumentError(f"fetch: url must begin with http:// or https://, got {printable(url)}.")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ArgumentError(f"fetch: sha256 must be 64 hexadecimal digits, got {printable(sha256)}.")
