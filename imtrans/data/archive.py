"""Archives from strangers: every member is looked at before anything is written, and the folder appears whole."""

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from imtrans.checks import at_least
from imtrans.errors import DataError, printable

CHUNK = 2**16
LONGEST_NAME = 1000
LONGEST_PART = 255
LONGEST_HEADER = 2**20
PLAIN_TAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
TAR_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
PLAIN_ZIP = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    top: str | None = None,
    max_members: int = 200_000,
    max_bytes: int = 16 * 2**30,
) -> None:
    """Unpack a ``.tar.gz`` or a ``.zip``, so that `folder` is there whole or not at all.

    Every member is looked at before the first is written. Files and folders are taken, nothing else; times, owners and
    permissions are not. They are written to a folder beside, which is then renamed.

    Args:
        archive: the file; its content tells which kind it is.
        folder: where the members are to be; it must not be there yet.
        top: the folder of the archive in which all members must be. It stands for `folder`.
        max_members: the most files and folders that the archive may have.
        max_bytes: the most bytes that they may hold together.

    Raises:
        ArgumentError: `max_members` or `max_bytes` is no whole number of at least 1.
        DataError: the archive is damaged, cut short, or none; a member would land outside of the folder, is a link or a
            device, has a name that another has or that some system cannot hold; there are too many or too large ones.
    """
    limits = _Limits(
        at_least("unpack", "max_members", max_members, 1), at_least("unpack", "max_bytes", max_bytes, 1), top
    )
    source, target = Path(archive), Path(folder)
    if target.exists() or target.is_symlink():
        raise DataError(
            f"{printable(source)} cannot be unpacked: {printable(target)} is there already. Remove it, or unpack "
            f"elsewhere."
        )
    try:
        _check(source, limits)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:100]}.", dir=target.parent) as beside:
            whole = Path(beside, "whole")
            whole.mkdir()
            with _opened(source, limits) as members:
                for member in members:
                    _write(member, whole.joinpath(*limits.place(member.name)))
            whole.rename(target)
    except _RefusedError as error:
        raise DataError(f"{printable(source)} is refused: {error}. Nothing was unpacked.") from error
    except MemoryError:
        raise  # of the machine, not of the file
    except Exception as error:  # the readers raise nearly anything over a damaged file
        reason = printable(getattr(error, "strerror", None) or error).rstrip(".") or type(error).__name__
        raise DataError(f"{printable(source)} cannot be unpacked: {reason}. Nothing was unpacked.") from error


class _RefusedError(Exception):
    """Why an archive is not unpacked."""


@dataclass(frozen=True)
class _Member:
    """What is common to the members of all kinds of archives."""

    name: str
    is_folder: bool
    size: int
    open: Callable[[], IO[bytes]]
    objection: str | None = None


@dataclass(frozen=True)
class _Limits:
    members: int
    bytes: int
    top: str | None

    def place(self, name: str) -> list[str]:
        """The parts of a member's path below the folder."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        return parts if self.top is None else parts[1:]


def _check(source: Path, limits: _Limits) -> None:
    seen: dict[tuple[str, ...], bool] = {(): True}
    total = count = 0
    with _opened(source, limits) as members:
        for member in members:
            count, total = count + 1, total + member.size
            if count > limits.members:
                raise _RefusedError(f"it has more than {limits.members} members")
            objection = member.objection or _objection_to_name(member.name, limits) or _collision(member, limits, seen)
            if objection:
                raise _RefusedError(f"its member '{printable(member.name[:LONGEST_NAME])}' {objection}")
            if total > limits.bytes:
                raise _RefusedError(f"its members hold more than {limits.bytes} bytes")
    if not any(not is_folder for is_folder in seen.values()):
        raise _RefusedError("it holds no files")


def _objection_to_name(name: str, limits: _Limits) -> str | None:
    parts = name.split("/")
    if name.startswith("/") or PureWindowsPath(name).anchor:
        return "has an absolute path"
    if ".." in parts:
        return "climbs out of the folder"
    if "\\" in name or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has a name that not every system can hold"
    if len(name.encode()) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in parts):
        return "has a name that is too long"
    if limits.top is not None and [part for part in parts if part not in ("", ".")][:1] not in ([], [limits.top]):
        return f"is not in the folder {limits.top}"
    return None


def _collision(member: _Member, limits: _Limits, seen: dict[tuple[str, ...], bool]) -> str | None:
    """Note where a member lands; say so if another one is there, on systems that ignore case as well."""
    place = tuple(unicodedata.normalize("NFC", part).casefold() for part in limits.place(member.name))
    for length in range(len(place)):
        if not seen.setdefault(place[:length], True):
            return "lies in what is a file"
    if member.is_folder:
        return None if seen.setdefault(place, True) else "is a folder, and a file of that name is there"
    if place in seen:
        return "has the name of another one"
    seen[place] = False
    return None


def _write(member: _Member, path: Path) -> None:
    if member.is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as content, path.open("xb") as file:
        shutil.copyfileobj(content, file)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.name} is cut short")


@contextmanager
def _opened(source: Path, limits: _Limits) -> Iterator[Iterator[_Member]]:
    with source.open("rb") as file:
        kind = file.read(4)
        file.seek(0)
        if kind[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield _tar_members(_Forward(unzipped, limits))
        elif kind[:2] == b"PK":
            with zipfile.ZipFile(file) as packed:
                yield _zip_members(packed)
        else:
            raise _RefusedError("it is neither a .tar.gz nor a .zip")


# tar


class _Forward:
    """A stream that is read once, from its start to its end, and not beyond what the limits allow."""

    def __init__(self, stream: gzip.GzipFile, limits: _Limits) -> None:
        self.stream, self.position, self.last = stream, 0, b""
        self.shared_headers = 0
        # Headers and padding: less than that for each member, with its longest name.
        self.most = limits.bytes + (limits.members + 1) * 8 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        self.last = self.stream.read(count)
        self.position += len(self.last)
        if self.position > self.most:
            raise _RefusedError("it holds more bytes than is allowed")
        return self.last

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.ReadError("a member lies before another")
        while self.position < position:
            if not self.read(min(CHUNK, position - self.position)):
                raise EOFError("unexpected end of data")


class _TarMember(tarfile.TarInfo):
    """A member whose headers have a sensible size: tarfile reads them into memory at once."""

    def _proc_member(self, tar: Any) -> Any:
        if self.type == tarfile.XGLTYPE:  # what it says stays for all members
            tar.fileobj.shared_headers += self.size
        if self.type in TAR_HEADERS and not 0 <= max(self.size, tar.fileobj.shared_headers) <= LONGEST_HEADER:
            raise tarfile.ReadError("a header is too large")
        return super()._proc_member(tar)  # type: ignore[misc]


def _tar_members(stream: Any) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=_TarMember) as tar:
        for found in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it keeps them all
            objection = None
            if not found.isdir() and (found.type not in PLAIN_TAR or found.sparse is not None):
                objection = "is a link, a device or another thing that is no file and no folder"
            elif found.size < 0 or "\0" in found.name:
                objection = "has a header that cannot be"
            size = 0 if found.isdir() else found.size
            yield _Member(found.name, found.isdir(), size, partial(_tar_content, tar, found), objection)
    # tarfile takes a block that is no header for the end.
    while stream.last:
        if stream.last.strip(b"\0"):
            raise tarfile.ReadError("what follows its last member is no member")
        stream.read(CHUNK)


def _tar_content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None, "only a file is opened"
    return content


# zip


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for found in packed.infolist():
        mode = stat.S_IFMT(found.external_attr >> 16)
        objection = None
        if mode not in (0, stat.S_IFDIR if found.is_dir() else stat.S_IFREG):
            objection = "is a link, a device or another thing that is no file and no folder"
        elif found.flag_bits & 1:
            objection = "is encrypted"
        elif found.compress_type not in PLAIN_ZIP:
            objection = "is compressed in a way that is not read here"
        yield _Member(found.orig_filename, found.is_dir(), found.file_size, partial(packed.open, found), objection)
