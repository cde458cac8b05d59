"""To and from the Hugging Face Hub, and its failures in words."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from imtrans.errors import HubError
from imtrans.files import sha256_of

# huggingface_hub takes a while to import, so the functions here import it when they are called.

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_repo_id(name: str) -> bool:
    """Whether `name` has the form ``user/repo``.

    >>> is_repo_id("user/repo"), is_repo_id("runs/facades/generator"), is_repo_id("../generator")
    (True, False, False)
    """
    return _REPO_ID.fullmatch(name) is not None


def pull(
    repo_id: str,
    file: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    subfolder: str | None = None,
    fresh: bool = False,
) -> Path:
    """Fetch a file of a model repo into the Hub's cache, and return where it is.

    What is in the cache and up to date is not fetched again. Where the Hub cannot be reached, what is in the cache is
    taken as it is.

    Args:
        repo_id: ``"user/repo"``.
        file: its name in the repo, or in its `subfolder`.
        revision: a branch, a tag or a commit; the main branch if None.
        token: of an account that may read the repo; if None, the one that the Hub's own login stored.
        subfolder: of the repo.
        fresh: whether to fetch it anew though it is in the cache.

    Raises:
        HubError: it cannot be had; the message says why, and what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "repo_id": repo_id,
        "filename": file,
        "revision": revision,
        "token": token,
        "subfolder": subfolder,
    }
    with _in_words(repo_id, revision, token):
        try:
            return Path(hf_hub_download(**wanted, force_download=fresh))
        except Exception as error:
            if fresh or not _broke_off(error):
                raise
            # The client itself falls back on its cache where a server is down, not where a connection breaks.
            try:
                return Path(hf_hub_download(**wanted, local_files_only=True))
            except LocalEntryNotFoundError:
                raise error from None


def is_intact(path: Path, content: bytes) -> bool:
    """Whether what lies at `path` in the Hub's cache has the digest that it is filed under; True if it has none.

    The client itself never checks. A small file is filed under its git hash, a large one under its SHA-256.
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
) -> str:
    """Put the files of `folder` into a model repo, which is made if need be, in one commit; return its address.

    Files that are there already are not sent; if all are, there is no commit.

    Raises:
        HubError: it cannot be done; the message says why, and what to do.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with _in_words(repo_id, revision, token, writing=True):
        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        api.create_commit(repo_id, operations, revision=revision, commit_message=message)
    return str(url)


def _broke_off(error: Exception) -> bool:
    """Whether a connection broke, rather than the Hub or the disk saying no."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, _transport_error()) and not isinstance(error, HfHubHTTPError)


def _transport_error() -> type[Exception]:
    """The errors of the client's transport, whichever it uses: they reach us as they are."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast(type[Exception], HfHubHTTPError.__bases__[0])


@contextmanager
def _in_words(repo_id: str, revision: str | None, token: str | None, *, writing: bool = False) -> Iterator[None]:
    """Turn what the client raises into our error: its own classes, its transport's, and plain ones of Python's."""
    if isinstance(token, str) and not re.fullmatch("[!-~]+", token):
        # The transport's own error would show it.
        raise HubError(f"{repo_id}: the token is empty, or has a space or a line break in it. Copy it again.")
    try:
        yield
    except (_transport_error(), OSError, RuntimeError, ValueError) as error:
        raise HubError(f"{repo_id}: {_reason(_root(error), revision, writing)}") from error


def _root(error: Exception) -> BaseException:
    """What the client hides: uploads and forced downloads behind a plain error, pulls behind an empty cache."""
    from huggingface_hub import errors

    cause = error.__cause__
    plain = type(error) in (RuntimeError, ValueError) and isinstance(cause, Exception)
    known = isinstance(cause, (errors.HfHubHTTPError, errors.OfflineModeIsEnabled))
    return cause if cause is not None and (plain or known) else error


def _reason(error: BaseException, revision: str | None, writing: bool) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    kinds: list[tuple[bool, str]] = [
        (
            isinstance(error, errors.GatedRepoError),
            "the repo is gated. Ask for access on its page on the Hub, then pass token=... of that account, or log in "
            "with `hf auth login`.",
        ),
        (
            isinstance(error, errors.RevisionNotFoundError),
            f"the repo has no revision {revision!r}. Give a branch, a tag, a whole commit hash, or none.",
        ),
        (
            isinstance(error, errors.RepositoryNotFoundError) and not writing,
            "there is no such folder here, and no such repo on the Hub that this token can see. Check the spelling; "
            "for a private repo, pass token=... or log in with `hf auth login`.",
        ),
        (
            isinstance(error, errors.RemoteEntryNotFoundError),
            "the repo lacks a file of a saved model. It was not saved by imtrans, or not in this folder of it.",
        ),
        (isinstance(error, errors.HFValidationError), "this is no name of a repo. A repo is 'user/name'."),
        (
            isinstance(error, errors.OfflineModeIsEnabled),
            "HF_HUB_OFFLINE forbids to ask the Hub. Unset it, and try again.",
        ),
        (
            isinstance(error, errors.LocalEntryNotFoundError),
            "there is no such folder here, the Hub cannot be reached, and its cache has no copy. Connect to the "
            "network, and try again.",
        ),
        (
            status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError),
            f"there is no token, or not a valid one, or it does not permit this ({status}). Make one with the right to "
            "it in the settings of your account on the Hub, then pass token=..., or log in with `hf auth login`.",
        ),
        (status is not None, f"the Hub answered with the error {status}. Try again later."),
    ]
    return next((text for applies, text in kinds if applies), _local_reason(error))


def _local_reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        return "the disk is full. Make room, or point HF_HOME at another disk, and try again."
    if number is not None:
        return f"a file cannot be read or written ({error}). Check the disk and the permissions."
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"the transfer broke off ({first_line}). Check the network, and try again."
