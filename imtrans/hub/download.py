"""Files from the web: fetched, checked, unpacked; the target is complete or absent."""

import gzip
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from imtrans.checks import check_sha256
from imtrans.errors import ArgumentError, DataError, printable
from imtrans.files import CHUNK, sha256_of, sync_folder


def fetch(
    url: str, path: str | os.PathLike[str], *, sha256: str | None = None, size: int | None = None, timeout: float = 60.0
) -> str:
    """Download a file and return its SHA-256. A partial download never appears at `path`.

    A file at `path` is replaced, unless it has the digest `sha256` already. A terminal shows a progress bar.

    Args:
        url: an http or https address.
        path: the file to write; its folder is created.
        sha256: expected digest, in hexadecimal.
        size: expected number of bytes.
        timeout: seconds that the server may be silent.

    Raises:
        ArgumentError: another kind of `url`, or `sha256` is not a digest.
        DataError: the file cannot be fetched, is cut short, or has another size or digest.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ArgumentError(f"fetch: url must begin with http:// or https://, got {printable(url)}.")
    target, expected = Path(path), check_sha256("fetch", sha256)
    if expected is not None and target.is_file() and sha256_of(target) == expected:
        return expected
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, target.name, size, timeout)
        digest = sha256_of(part)
        if expected not in (None, digest):
            raise _wrong_file(url, f"its SHA-256 is {digest}, not {expected}")
        part.replace(target)
        sync_folder(target.parent)
        return digest
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url} cannot be fetched: the server answers {error.code} {error.reason}.") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(f"{url} cannot be fetched: {str(reason) or type(error).__name__}. Try again later.") from error
    finally:
        with suppress(OSError):  # its folder may be a file
            part.unlink()


def _receive(url: str, part: Path, name: str, size: int | None, timeout: float) -> None:
    with urllib.request.urlopen(url, timeout=timeout) as answer, part.open("wb") as file:
        length = answer.length
        if answer.status != 200:
            raise OSError(f"the server answers {answer.status} {answer.reason}")
        if None not in (size, length) and length != size:
            raise _wrong_file(url, f"it has {length} bytes, not {size}")
        with tqdm(total=length or size, desc=name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if size is not None and file.tell() > size:
                    raise _wrong_file(url, f"it has more than {size} bytes")
        file.flush()
        os.fsync(file.fileno())
        if length is not None and file.tell() < length:
            raise OSError(f"the connection broke after {file.tell()} of {length} bytes")
        if size is not None and file.tell() < size:
            raise _wrong_file(url, f"it has {file.tell()} bytes, not {size}")


def _wrong_file(url: str, reason: str) -> DataError:
    return DataError(f"{url} is not the expected file: {reason}. Nothing was kept.")


def unpack_tar(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, max_bytes: int, top: str | None = None
) -> None:
    """Unpack the files and folders of a ``.tar.gz``. The folder is complete or absent.

    Needs Python 3.10.12, 3.11.4 or newer, which have extraction filters.

    Args:
        archive: the file.
        folder: the folder to create; it must not exist.
        max_bytes: the largest allowed size of the unpacked archive.
        top: the single folder at the root of the archive; it becomes `folder`.

    Raises:
        DataError: the archive is damaged or too large, holds a link or a device, or has a member outside of its folder.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive} cannot be unpacked: update Python to 3.10.12, 3.11.4 or newer.")
    source, target = Path(archive), Path(folder)
    failure = f"{printable(source)} cannot be unpacked"
    if target.exists() or target.is_symlink():
        raise DataError(f"{failure}: {printable(target)} exists. Remove it, or unpack elsewhere.")
    try:
        with gzip.open(source) as stream:  # checks its length and checksum
            while stream.read(CHUNK):
                if stream.tell() > max_bytes:
                    raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name[:100]}.", dir=target.parent) as temporary,
            tarfile.open(source, "r:gz") as tar,
        ):
            whole = Path(temporary, "whole")
            for member in tar:
                # The filter lets links within the folder pass; sparse members can be larger than the archive.
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise ValueError(f"{member.name} is neither a file nor a folder")
                tar.extract(member, whole, filter="data")
            if not whole.exists() or (top is not None and os.listdir(whole) != [top]):
                raise ValueError("it is empty" if top is None else f"it does not hold just the folder {top}")
            (whole / (top or "")).rename(target)
    except Exception as error:  # damaged data makes the readers raise nearly anything
        reason = printable(getattr(error, "strerror", None) or error).rstrip(".") or type(error).__name__
        raise DataError(f"{failure}: {reason}. Nothing was unpacked.") from error
