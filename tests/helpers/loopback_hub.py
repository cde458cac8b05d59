"""A Hugging Face Hub on 127.0.0.1, for tests: the real huggingface_hub client pushes to it and pulls from it.

It keeps models only, in memory, and needs nothing but the standard library. In a test, ask for the fixture::

    def test_pull(hub):
        hub.add_repo("user/repo", {"config.json": b"{}"})
        hub.faults.status("HEAD *config.json", 500, times=2)
        assert Path(hf_hub_download("user/repo", "config.json")).read_bytes() == b"{}"
        assert [request.method for request in hub.requests] == ["HEAD", "HEAD", "HEAD", "GET"]

Three callers are told apart: ``hub.token`` owns every repo, ``hub.other_token`` is a valid token of somebody else,
and any other token is a bad one.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

LFS_SUFFIXES = (".safetensors", ".png", ".pth", ".bin")
LFS_SIZE = 10 * 2**20


class Request(NamedTuple):
    """One request as it came; header names ignore case."""

    method: str
    path: str
    headers: Message


@dataclass(frozen=True)
class Commit:
    """The whole tree after a commit."""

    oid: str
    title: str
    files: dict[str, bytes]
    parent: "Commit | None"

    def history(self) -> list["Commit"]:
        """This commit and those before it, the oldest first."""
        return [*(self.parent.history() if self.parent else []), self]


@dataclass
class Repo:
    """A repository: every commit is kept, and branches and tags point at them."""

    id: str
    private: bool
    gated: bool
    approved: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    def at(self, revision: str) -> Commit:
        for names in (self.branches, self.tags, self.commits):
            if revision in names:
                return names[revision]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, branch: str, files: dict[str, bytes], title: str, parent: Commit | None) -> Commit:
        oid = hashlib.sha1(f"{self.id} {branch} {title} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = self.branches[branch] = Commit(oid, title, files, parent)
        return self.commits[oid]


@dataclass
class Reply:
    """What the server answers; the faults change it before it is sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    lengthen: int = 0
    cut_at: int | None = None
    drop: str = ""

    @classmethod
    def of(cls, data: Any, status: int = 200, **headers: str) -> "Reply":
        return cls(status, json.dumps(data).encode(), {"Content-Type": "application/json", **headers})


class Refusal(Exception):  # noqa: N818 (an answer of the Hub, not a mistake of this server)
    """An answer of the Hub that the client turns into an exception."""

    def __init__(self, status: int, message: str, code: str = "", **extra: str):
        super().__init__(message)
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.reply = Reply.of({"error": message, **extra}, status, **headers)


@dataclass
class Call:
    """A request with its query and body."""

    request: Request
    query: dict[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def token(self) -> str | None:
        return self.request.headers.get("Authorization", "").removeprefix("Bearer ") or None


When = str | Callable[[str, str], bool]


@dataclass
class Fault:
    """Something that goes wrong with the requests it matches: ``times`` times, or for ever."""

    when: When
    effect: Callable[[Reply], None]
    times: int | None
    handled: bool

    def matches(self, request: Request) -> bool:
        if callable(self.when):
            return self.when(request.method, request.path)
        method, pattern = self.when.split(" ", 1)
        return fnmatchcase(request.method, method) and fnmatchcase(request.path, pattern)


class Faults:
    """What goes wrong, and when: a predicate on (method, path), or a glob of both such as ``"GET *.safetensors"``.

    Each lasts for ever, or ``times`` requests. Those that fail a request do so before the server acts on it; with
    ``handled=True`` the work is done and only the answer is lost.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def clear(self) -> None:
        self._faults.clear()

    def drop(self, when: When, *, times: int | None = None, handled: bool = False, reset: bool = False) -> None:
        """No answer: the connection ends, in good order or with a reset."""
        self._add(when, times, handled, drop="reset" if reset else "close")

    def status(self, when: When, code: int, *, times: int | None = None, handled: bool = False, **headers: str) -> None:
        """An error status with no more than a line of text; ``retry_after="1"`` adds that header."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self._add(when, times, handled, status=code, body=b"a fault of the loopback Hub\n", headers=sent)

    def slow(self, when: When, seconds: float, *, times: int | None = None) -> None:
        """A pause before the first byte."""
        self._add(when, times, True, delay=seconds)

    def cut_body(self, when: When, size: int, *, times: int | None = None) -> None:
        """The full length is announced, and the connection ends after ``size`` bytes."""
        self._add(when, times, True, cut_at=size)

    def short_body(self, when: When, size: int, *, times: int | None = None) -> None:
        """A whole answer of the first ``size`` bytes, by its own account nothing is missing."""
        self._change_body(when, times, lambda body: body[:size])

    def corrupt(self, when: When, *, at: int = -1, times: int | None = None) -> None:
        """One byte of the body is inverted; the length is right."""

        def invert(body: bytes) -> bytes:
            changed = bytearray(body)
            changed[at] ^= 0xFF
            return bytes(changed)

        self._change_body(when, times, invert)

    def wrong_length(self, when: When, by: int, *, times: int | None = None) -> None:
        """The whole body under a length that is off by ``by``: the X-Linked-Size of a redirect, or Content-Length."""
        self._add(when, times, True, lengthen=by)

    def draw(self, request: Request) -> list[Fault]:
        """The faults for this request, which uses each of them up by one."""
        with self._lock:
            drawn = [fault for fault in self._faults if fault.times != 0 and fault.matches(request)]
            for fault in drawn:
                if fault.times is not None:
                    fault.times -= 1
            return drawn

    def _add(self, when: When, times: int | None, handled: bool, **changes: Any) -> None:
        self._faults.append(Fault(when, lambda reply: vars(reply).update(changes), times, handled))

    def _change_body(self, when: When, times: int | None, change: Callable[[bytes], bytes]) -> None:
        def effect(reply: Reply) -> None:
            if reply.body:
                reply.body = change(reply.body)

        self._faults.append(Fault(when, effect, times, True))


Handler = Callable[..., Reply]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []
# A Space is the repo spaces/USER/NAME here.
REPO, REVISION = "(?P<repo>(?:spaces/)?[^/]+(?:/[^/]+)?)", "(?P<revision>[^/]+)"
MODEL = f"/api/(?:models/|(?=spaces/)){REPO}"


def route(methods: str, pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.extend((method, re.compile(pattern), handler) for method in methods.split())
        return handler

    return register


def is_lfs(path: str, size: int) -> bool:
    """Empty files are never LFS files: the client commits them as regular ones whatever it is told."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_SIZE)


def tree_entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    if is_lfs(path, len(content)):
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": len(pointer)}
        content = pointer
    return {**entry, "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


def etag(path: str, content: bytes) -> str:
    entry = tree_entry(path, content)
    return entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]


def ranged(call: Call, content: bytes, **headers: str) -> Reply:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", call.request.headers.get("Range", ""))
    if not found:
        return Reply(200, content, headers)
    start, stop = int(found[1]), min(int(found[2] or len(content)) + 1, len(content))
    if start >= len(content):
        return Reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
    return Reply(206, content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"})


class LoopbackHub:
    """The server and its repositories. ``with LoopbackHub() as hub`` starts it and stops it."""

    token = "hf_test"
    other_token = "hf_other"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.leaks: list[Request] = []
        """Requests that brought a token to the storage host."""
        self.sleeps: list[float] = []
        """The seconds that the client of this process wanted to wait between tries, and did not."""
        self.faults = Faults()
        self.stopping = threading.Event()
        self._repos: dict[str, Repo] = {}
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._server = Server(self)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        """Where LFS files lie: the same server, under a name that is another host to the client."""
        return f"http://localhost:{self._server.server_port}"

    def start(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()

    def __enter__(self) -> "LoopbackHub":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def env(self, tmp_path: Path) -> dict[str, str]:
        """What a subprocess needs in its environment, beside os.environ, to be this Hub's logged-in client."""
        home = tmp_path / "hf_home"
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    # What tests read and write.

    def add_repo(
        self, repo_id: str, files: dict[str, bytes] | None = None, *, private: bool = False, gated: bool = False
    ) -> str:
        """A new repo, and the hash of its last commit. A gated one admits the tokens in ``repo(...).approved``."""
        assert repo_id not in self._repos, f"{repo_id} exists; commit() changes it"
        self._repos[repo_id] = repo = Repo(repo_id, private, gated)
        repo.commit("main", {}, "initial commit", None)
        return self.commit(repo_id, files, message="add_repo") if files else repo.at("main").oid

    def commit(
        self,
        repo_id: str,
        files: dict[str, bytes] | None = None,
        *,
        delete: Iterable[str] = (),
        message: str = "commit",
        revision: str = "main",
    ) -> str:
        """Adds, replaces and deletes files on a branch, and returns the hash of the commit."""
        repo, files = self._repos[repo_id], files or {}
        kept = {path: content for path, content in repo.at(revision).files.items() if path not in set(delete)}
        for path, content in files.items():
            self._objects[etag(path, content)] = content
        return repo.commit(revision, {**kept, **files}, message, repo.at(revision)).oid

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        return dict(self._repos[repo_id].at(revision).files)

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """The oldest first. The first of a repo is its empty "initial commit"."""
        return self._repos[repo_id].at(revision).history()

    def repo(self, repo_id: str) -> Repo:
        """For what has no method here: ``.private``, ``.branches``, ``.tags``, ``.approved.add(hub.token)``."""
        return self._repos[repo_id]

    # What the client talks to.

    def answer(self, call: Call, raw_path: str) -> Reply:
        try:
            for method, pattern, handler in ROUTES:
                if method == call.request.method and (found := pattern.fullmatch(raw_path)):
                    with self._lock:
                        return handler(self, call, **{k: unquote(v or "") for k, v in found.groupdict().items()})
            raise Refusal(501, f"the loopback Hub has no {call.request.method} {raw_path}")
        except Refusal as refusal:
            return refusal.reply
        except Exception:
            # 501 is the one server error that the client does not retry.
            return Reply(501, traceback.format_exc().encode())

    def _checked_token(self, call: Call) -> str | None:
        if call.token not in (None, self.token, self.other_token):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return call.token

    def _open(self, call: Call, repo_id: str, *, write: bool = False, content: bool = False) -> Repo:
        token, repo = self._checked_token(call), self._repos.get(repo_id)
        if repo is None or (repo.private and token != self.token) or (write and token is None):
            # The Hub gives its 401 no error code. The client infers it from an https:// URL, which this one is not.
            if token is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if write and token != self.token:
            raise Refusal(403, "Forbidden: you must be the owner to push to this repo")
        if content and repo.gated and token not in repo.approved:
            raise Refusal(401 if token is None else 403, f"Access to model {repo_id} is restricted", "GatedRepo")
        return repo

    @route("GET", "/api/whoami-v2")
    def _whoami(self, call: Call) -> Reply:
        token = self._checked_token(call)
        if token is None:
            raise Refusal(401, "Invalid username or password.")
        return Reply.of({"type": "user", "name": "user" if token == self.token else "other", "orgs": []})

    @route("POST", "/api/validate-yaml")
    def _validate_yaml(self, call: Call) -> Reply:
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return Reply.of({"errors": [], "warnings": [] if call.json["content"].startswith("---\n") else [warning]})

    @route("POST", "/api/repos/create")
    def _create(self, call: Call) -> Reply:
        if self._checked_token(call) != self.token:
            raise Refusal(403 if call.token else 401, "You don't have the rights to create a model here")
        kind = "spaces/" if call.json.get("type") == "space" else ""
        repo_id = f"{kind}{call.json.get('organization') or 'user'}/{call.json['name']}"
        url = f"{self.endpoint}/{repo_id}"
        if repo_id in self._repos:
            raise Refusal(409, "You already created this model repo", url=url)
        self.add_repo(repo_id, private=call.json.get("visibility") == "private")
        return Reply.of({"url": url, "id": repo_id})

    @route("GET", f"{MODEL}(?:/revision/{REVISION})?")
    def _info(self, call: Call, repo: str, revision: str) -> Reply:
        found = self._open(call, repo)
        commit = found.at(revision or "main")
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        gated = "manual" if found.gated else False
        facts = {"id": repo, "sha": commit.oid, "private": found.private, "gated": gated, "siblings": siblings}
        return Reply.of({**facts, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z"})

    @route("GET", f"{MODEL}/tree/{REVISION}")
    def _tree(self, call: Call, repo: str, revision: str) -> Reply:
        files = self._open(call, repo).at(revision).files
        return Reply.of([tree_entry(path, content) for path, content in sorted(files.items())])

    @route("POST DELETE", f"{MODEL}/(?P<kind>branch|tag)/{REVISION}")
    def _reference(self, call: Call, repo: str, kind: str, revision: str) -> Reply:
        found = self._open(call, repo, write=True)
        names = found.branches if kind == "branch" else found.tags
        if call.request.method == "DELETE":
            names.pop(revision, None)
            return Reply()
        name, start = (revision, call.json.get("startingPoint", "main"))
        if kind == "tag":
            name, start = call.json["tag"], revision
        if name in names:
            raise Refusal(409, f"Reference already exists: {name}")
        names[name] = found.at(start)
        return Reply()

    @route("POST", f"{MODEL}/preupload/{REVISION}")
    def _preupload(self, call: Call, repo: str, revision: str) -> Reply:
        tree = self._open(call, repo, write=True).at(revision).files
        answers = []
        for path, size in ((file["path"], file["size"]) for file in call.json["files"]):
            mode = "lfs" if is_lfs(path, size) else "regular"
            known = etag(path, tree[path]) if path in tree else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        return Reply.of({"files": answers})

    @route("POST", rf"/{REPO}\.git/info/lfs/objects/batch")
    def _lfs_batch(self, call: Call, repo: str) -> Reply:
        self._open(call, repo, write=True)
        objects = [dict(item) for item in call.json["objects"]]
        for item in objects:
            if item["oid"] not in self._objects:
                verify = f"{self.endpoint}/{repo}.git/info/lfs/verify"
                item["actions"] = {"upload": {"href": f"{self.storage}/lfs/{item['oid']}"}, "verify": {"href": verify}}
        return Reply.of({"transfer": "basic", "objects": objects})

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def _lfs_put(self, call: Call, oid: str) -> Reply:
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise Refusal(400, "XAmzContentChecksumMismatch")
        self._objects[oid] = call.body
        return Reply()

    @route("POST", rf"/{REPO}\.git/info/lfs/verify")
    def _lfs_verify(self, call: Call, repo: str) -> Reply:
        self._open(call, repo, write=True)
        if len(self._objects.get(call.json["oid"], b"")) != call.json["size"]:
            raise Refusal(404, "the object was not uploaded")
        return Reply.of({})

    @route("POST", f"{MODEL}/commit/{REVISION}")
    def _commit(self, call: Call, repo: str, revision: str) -> Reply:
        found = self._open(call, repo, write=True)
        parent = found.at(revision)
        items = [json.loads(line) for line in call.body.splitlines()]
        header, changes = items[0]["value"], [(item["key"], item["value"]) for item in items[1:]]
        if header.get("parentCommit", parent.oid) != parent.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for key, value in changes:
            path = value["path"]
            if key == "file":
                files[path] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self._objects:
                    raise Refusal(400, f"LFS pointer of {path} points to a file that does not exist")
                files[path] = self._objects[value["oid"]]
            else:
                gone = {name for name in files if name == path or (key == "deletedFolder" and name.startswith(path))}
                if not gone:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                files = {name: content for name, content in files.items() if name not in gone}
        answer: dict[str, Any] = {"success": True}
        if "create_pr" in call.query:
            number = 1 + sum(name.startswith("refs/pr/") for name in found.branches)
            revision = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{self.endpoint}/{repo}/discussions/{number}"
        commit = found.commit(revision, files, header["summary"], parent)
        return Reply.of({**answer, "commitOid": commit.oid, "commitUrl": f"{self.endpoint}/{repo}/commit/{commit.oid}"})

    @route("HEAD GET", f"/{REPO}/resolve/{REVISION}/(?P<path>.+)")
    def _resolve(self, call: Call, repo: str, revision: str, path: str) -> Reply:
        commit = self._open(call, repo, content=True).at(revision)
        if path not in commit.files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.reply.headers["X-Repo-Commit"] = commit.oid
            raise refusal
        content = commit.files[path]
        tag = etag(path, content)
        if not is_lfs(path, len(content)):
            return ranged(call, content, **{"X-Repo-Commit": commit.oid, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"})
        linked = {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit.oid}
        return Reply(302, b"", {**linked, "Location": f"{self.storage}/lfs/{tag}/{quote(path)}"})

    @route("HEAD GET", "/lfs/(?P<oid>[0-9a-f]{64})/(?P<path>.+)")
    def _lfs_get(self, call: Call, oid: str, path: str) -> Reply:
        return ranged(call, self._objects[oid], **{"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def serve(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        request = Request(self.command, unquote(url.path), self.headers)
        call = Call(request, parse_qs(url.query), self.rfile.read(int(self.headers.get("Content-Length", 0))))
        hub.requests.append(request)
        if call.token and self.headers.get("Host", "").startswith("localhost"):
            hub.leaks.append(request)
        faults = hub.faults.draw(request)
        reply = Reply() if any(not fault.handled for fault in faults) else hub.answer(call, url.path)
        for fault in faults:
            fault.effect(reply)
        hub.stopping.wait(reply.delay)
        self.send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 (the names that the standard library calls)

    def send(self, reply: Reply) -> None:
        if not reply.drop:
            self.send_response(reply.status)
            headers = {"Content-Length": str(len(reply.body)), **reply.headers}
            told = "X-Linked-Size" if "X-Linked-Size" in headers else "Content-Length"
            headers[told] = str(int(headers[told]) + reply.lengthen)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.cut_at])
        # A HEAD has no body to be too short: its connection stays, or the client would race with its end.
        short = self.command != "HEAD" and (reply.lengthen or reply.cut_at is not None)
        if reply.drop or short:
            self.close_connection = True
        if reply.drop == "reset":
            # Lingering for 0 seconds is what sends a reset; a plain close() would wait for rfile and wfile.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        """Nothing to the terminal: `LoopbackHub.requests` has it all."""


class Server(ThreadingHTTPServer):
    """Knows its open connections, which a client keeps alive beyond the last request."""

    daemon_threads = True

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.hub = hub
        self._open: dict[threading.Thread, socket.socket] = {}

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._open[threading.current_thread()] = request
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._open[threading.current_thread()]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        for thread, connection in list(self._open.items()):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster
            thread.join(5)


@pytest.fixture(name="hub")
def hub_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A loopback Hub that the huggingface_hub of this process talks to, logged out and with a cache of its own.

    Retries take no time: `LoopbackHub.sleeps` has what they would have taken. Tests log in with `hub.token`.
    """
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http
    from huggingface_hub.utils.tqdm import progress_bar_states

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with LoopbackHub() as hub, warnings.catch_warnings():
        # httpx2 says so of every LFS file that the client uploads, and here warnings are errors.
        warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
        patches: dict[str, Any] = {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hf_home" / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "hf_home" / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "hf_home" / "stored_tokens"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, value in patches.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setitem(progress_bar_states, "_global", False)
        for module in (_http, file_download):
            monkeypatch.setattr(module, "time", SimpleNamespace(sleep=hub.sleeps.append))
        _http.close_session()
        yield hub
        _http.close_session()
    assert not hub.leaks, f"a token reached the storage host: {hub.leaks}"


@pytest.fixture(name="impatient")
def impatient_fixture(monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds after which the client now gives up on a HEAD or GET of a file; by default it is 10 to 60."""
    from huggingface_hub import constants, file_download

    seconds = 0.4
    for module, name in (
        (constants, "HF_HUB_ETAG_TIMEOUT"),
        (constants, "HF_HUB_DOWNLOAD_TIMEOUT"),
        (file_download, "_ETAG_RETRY_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, seconds)
    return seconds
