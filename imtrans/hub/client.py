"""Download from and upload to the Hugging Face Hub, with its failures as `HubError`."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

from imtrans.errors import HubError
from imtrans.files import sha256_of

# huggingface_hub is slow to import, so the functions here import it when they are called.

_NO_RIGHT = (
    "the token is missing or invalid, or does not permit this ({status}). Make one with this permission in the "
    "settings of your account on the Hub, then pass token=..., or log in with `hf auth login`."
)
_REASONS = {
    "GatedRepoError": "the repo is gated. Ask for access on its page on the Hub, then pass token=... of that account, "
    "or log in with `hf auth login`.",
    "RevisionNotFoundError": "the repo has no revision {revision!r}. Give a branch, a tag, a whole commit hash, or "
    "none.",
    "RepositoryNotFoundError": "there is no such folder here, and no such repo on the Hub that this token can read. "
    "Check the spelling; for a private repo, pass token=... or log in with `hf auth login`.",
    "RemoteEntryNotFoundError": "the repo lacks a file of a saved model. It was not saved by imtrans, or not in this "
    "folder of it.",
    "HFValidationError": "this is not the name of a repo. A repo is 'user/name'.",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE forbids requests to the Hub. Unset it, and try again.",
    "LocalEntryNotFoundError": "there is no such folder here, the Hub cannot be reached, and its cache has no copy. "
    "Connect to the network, and try again.",
}


def is_repo_id(name: str) -> bool:
    """Whether `name` has the form ``user/repo``.

    >>> is_repo_id("user/repo"), is_repo_id("runs/facades/generator"), is_repo_id("../generator")
    (True, False, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def pull(
    repo_id: str,
    file: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    subfolder: str | None = None,
    fresh: bool = False,
) -> Path:
    """Fetch a file of a model repo into the Hub's cache. Returns its path there.

    A cached file that is up to date is not fetched again, unless `fresh`. If the Hub cannot be reached, the cached file
    is used. The other arguments are as in `Pretrained.from_pretrained`. Raises a HubError if there is no file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    download = partial(hf_hub_download, repo_id, file, subfolder=subfolder, revision=revision, token=token)
    with _hub_errors(repo_id, revision, token):
        try:
            return Path(download(force_download=fresh))
        except _transport_error() as error:
            if fresh or isinstance(error, HfHubHTTPError):
                raise
            # The client uses its cache when a server is down, but not when a connection breaks.
            try:
                return Path(download(local_files_only=True))
            except LocalEntryNotFoundError:
                raise error from None


def is_missing(error: Exception) -> bool:
    """Whether `error`, from a read of a repo or a folder, says that the file does not exist there."""
    return type(error.__cause__).__name__ in ("RemoteEntryNotFoundError", "FileNotFoundError")


def has_digest(path: Path) -> bool:
    """Whether a digest names the file in the Hub's cache."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", path.resolve().name) is not None


def is_intact(path: Path, content: bytes) -> bool:
    """Whether `content`, from `path` in the Hub's cache, has the digest that names the file; True if none does.

    The client does not check it. The cache names a small file by its git hash, a large one by its SHA-256.
    """
    name = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{40}", name):
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == name
    return re.fullmatch(r"[0-9a-f]{64}", name) is None or sha256_of(content) == name


def push(
    folder: Path,
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    private: bool | None = None,
    message: str = "Upload with imtrans",
    space_sdk: str | None = None,
) -> str:
    """Upload the files of `folder` to a model repo in one commit. Returns the address of the repo, which may be new.

    With `space_sdk`, for example "gradio", the repo is a Space. Files that the repo has already are not sent; without
    new files there is no commit. Raises a HubError if the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with _hub_errors(repo_id, revision, token, writing=True):
        api = HfApi(token=token)
        kind = "model" if space_sdk is None else "space"
        url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind, space_sdk=space_sdk)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=kind)
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        api.create_commit(repo_id, operations, revision=revision, commit_message=message, repo_type=kind)
    return str(url)


def _transport_error() -> type[Exception]:
    """The base class of the HTTP library's errors, which the client does not convert."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast(type[Exception], HfHubHTTPError.__bases__[0])


@contextmanager
def _hub_errors(repo_id: str, revision: str | None, token: str | None, *, writing: bool = False) -> Iterator[None]:
    """Convert the errors of the client, of its HTTP library, of the disk and of Python into a HubError."""
    if isinstance(token, str) and not re.fullmatch("[!-~]+", token):
        # The HTTP library's own error would show the token.
        raise HubError(f"{repo_id}: the token is empty, or has a space or a line break in it. Copy it again.")
    try:
        yield
    except (_transport_error(), OSError, RuntimeError, ValueError) as error:
        raise HubError(f"{repo_id}: {_reason(_root(error), revision, writing)}") from error


def _root(error: Exception) -> BaseException:
    """The cause that the client hides behind a plain error, or behind a file that the cache lacks."""
    from huggingface_hub import errors

    cause = error.__cause__
    plain = type(error) in (RuntimeError, ValueError) and isinstance(cause, Exception)
    known = isinstance(cause, (errors.HfHubHTTPError, errors.OfflineModeIsEnabled))
    return cause if cause is not None and (plain or known) else error


def _reason(error: BaseException, revision: str | None, writing: bool) -> str:
    names = [cls.__name__ for cls in type(error).__mro__]
    if writing and names[0] == "RepositoryNotFoundError":
        names = []  # the Hub hides a repo that the token may not write
    if known := [_REASONS[name] for name in names if name in _REASONS]:
        return known[0].format(revision=revision)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or not names:
        return _NO_RIGHT.format(status=status)
    if status is not None:
        return f"the Hub answered with the error {status}. Try again later."
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full. Make room, or point HF_HOME at another disk, and try again."
    if number is not None:
        return f"a file cannot be read or written ({error}). Check the disk and the permissions."
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"the transfer broke off ({first_line}). Check the network, and try again."
