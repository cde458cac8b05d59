import contextlib
import hashlib
import http.server
import socket
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans.errors import ArgumentError, DataError
from imtrans.hub.download import fetch

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server of one file, and how it behaves; it notes the headers of each request."""

    content: bytes = CONTENT
    headers: dict = field(default_factory=lambda: {"ETag": '"one"'})
    cut: int | None = None  # bytes of an answer, after which the connection breaks
    stall: bool = False  # instead of breaking
    ranges: bool = True
    answer: tuple | None = None  # a status, and bytes
    shift: int = 0  # of the rest that is sent
    chunked: bool = False
    length: bool = True  # tell it
    url: str = ""
    requests: list = field(default_factory=list)

    def reply(self, request):
        self.requests.append(dict(request.headers))
        status, body, more = self.chosen(request)
        request.send_response(status)
        for name, value in {**self.headers, **more}.items():
            request.send_header(name, value)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        elif self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        sent = body if self.cut is None else body[: self.cut]
        request.wfile.write(b"%x\r\n" % len(body) + sent if self.chunked else sent)
        if self.chunked and self.cut is None:
            request.wfile.write(b"\r\n0\r\n\r\n")
        request.wfile.flush()
        if self.stall:
            self.released.wait(20)

    def chosen(self, request):
        if self.answer is not None:
            return *self.answer, {}
        asked, version = request.headers.get("Range"), request.headers.get("If-Range")
        known = (self.headers.get("ETag"), self.headers.get("Last-Modified"))
        if not asked or not self.ranges or version not in known:
            return 200, self.content, {}
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            return 416, b"", {"Content-Range": f"bytes */{len(self.content)}"}
        start += self.shift
        span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return 206, self.content[start:], {"Content-Range": span}


@contextlib.contextmanager
def serving(**behaviour):
    site = Site(**behaviour)
    site.released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.close_connection = True
            with contextlib.suppress(OSError):  # who asked may be gone
                site.reply(self)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/a.bin"
        try:
            yield site
        finally:
            site.released.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as site:
        yield site


def failure(site, path, **settings):
    with pytest.raises(DataError) as caught:
        fetch(site.url, path, **settings)
    assert not path.exists()
    text = str(caught.value)
    assert text.startswith(site.url)
    return text.removeprefix(site.url)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_into_a_new_folder(site, tmp_path):
    path = tmp_path / "new" / "a.bin"
    assert fetch(site.url, path) == DIGEST
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.bin"]


def test_digest_and_size_are_compared(site, tmp_path):
    assert fetch(site.url, tmp_path / "a", sha256=DIGEST.upper(), size=len(CONTENT)) == DIGEST
    assert failure(site, tmp_path / "b", sha256="0" * 64) == (
        f" is not the file that was asked for: its SHA-256 is {DIGEST}, not {'0' * 64}. It was removed."
    )
    for site.length in (True, False):
        assert failure(site, tmp_path / "b", size=300_000) == (
            " is not the file that was asked for: it has 256000 bytes, not 300000. It was removed."
        )
    assert names(tmp_path) == ["a"]


def test_more_than_was_asked_for_is_not_read_to_its_end(site, tmp_path):
    site.content, site.length = bytes(2**25), False
    assert failure(site, tmp_path / "a", size=10) == (
        " is not the file that was asked for: it has more than 10 bytes. It was removed."
    )
    assert names(tmp_path) == []


def test_the_right_file_is_not_fetched_again_and_another_is_replaced(site, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    fetch(site.url, path, sha256=DIGEST)
    assert site.requests == []
    path.write_bytes(b"old")
    assert fetch(site.url, path, sha256=DIGEST) == DIGEST
    path.write_bytes(b"old")
    fetch(site.url, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("version", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"}])
def test_a_broken_connection_is_told_and_the_rest_is_fetched_later(site, tmp_path, version):
    site.headers, site.cut = version, 100_000
    assert failure(site, tmp_path / "a") == (
        " cannot be fetched: the connection broke after 100000 of 256000 bytes. 100000 bytes of it are kept: "
        "fetch it again, and it goes on from there."
    )
    failure(site, tmp_path / "a")
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST
    assert names(tmp_path) == ["a"]
    assert [r.get("Range") for r in site.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert {r.get("If-Range") for r in site.requests[1:]} == set(version.values())


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 60_000), max_size=5), ranges=st.booleans(), chunked=st.booleans())
def test_any_cuts_end_in_the_whole_file(tmp_path_factory, cuts, ranges, chunked):
    path = tmp_path_factory.mktemp("cuts") / "a"
    with pytest.MonkeyPatch.context() as patch, serving(ranges=ranges, chunked=chunked) as site:
        patch.setenv("no_proxy", "*")
        for cut in cuts:
            site.cut = cut
            if cut * len(cuts) < len(CONTENT):
                failure(site, path)
        site.cut = None
        assert fetch(site.url, path) == DIGEST
        assert path.read_bytes() == CONTENT
        assert names(path.parent) == ["a"]


CHANGES = {
    "the server knows no ranges": {"ranges": False},
    "the file is another now": {"headers": {"ETag": '"two"'}},
    "the file has no version any more": {"headers": {}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_cannot_be_gone_on_with_is_started_anew(site, tmp_path, change):
    site.content, site.cut = b"old" * 60_000, 100_000
    failure(site, tmp_path / "a")
    site.content, site.cut = CONTENT, None
    for attribute, value in change.items():
        setattr(site, attribute, value)
    assert fetch(site.url, tmp_path / "a") == DIGEST
    assert len(site.requests) == 2


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["no version", "a weak one"])
def test_without_a_version_nothing_is_gone_on_with(site, tmp_path, headers):
    site.headers, site.cut = headers, 100_000
    failure(site, tmp_path / "a")
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST
    assert "Range" not in site.requests[1]


def test_another_address_is_not_gone_on_with(site, tmp_path):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    site.cut, site.url = None, site.url + "?other"
    assert fetch(site.url, tmp_path / "a") == DIGEST
    assert "Range" not in site.requests[1]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site, tmp_path):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    site.content, site.cut = CONTENT[:50_000], None
    assert fetch(site.url, tmp_path / "a") == hashlib.sha256(site.content).hexdigest()
    assert [r.get("Range") for r in site.requests] == [None, "bytes=100000-", None]


def test_a_damaged_part_is_found_by_the_digest(site, tmp_path):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    (tmp_path / ".a.part").write_bytes(bytes(100_000))
    site.cut = None
    assert "its SHA-256 is" in failure(site, tmp_path / "a", sha256=DIGEST)
    assert names(tmp_path) == []
    assert fetch(site.url, tmp_path / "a", sha256=DIGEST) == DIGEST


@pytest.mark.parametrize("note", [b"", b"[]", b'{"url": 5}', b"\xff"])
def test_a_damaged_note_only_costs_the_part(site, tmp_path, note):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    (tmp_path / ".a.part.json").write_bytes(note)
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST


def test_another_rest_than_the_one_asked_for_is_not_taken(site, tmp_path):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    site.cut, site.shift = None, 5
    assert failure(site, tmp_path / "a") == (
        " cannot be fetched: the server sent another part than the one that was asked for."
    )
    assert names(tmp_path) == []


def test_the_rest_of_a_file_that_says_to_be_another_is_not_taken(site, tmp_path):
    site.cut = 100_000
    failure(site, tmp_path / "a")
    site.cut = None
    span = {"Content-Range": "bytes 100000-255999/256000", "ETag": '"two"'}
    site.answer, site.headers = (206, CONTENT[100_000:]), span
    assert "another part" in failure(site, tmp_path / "a")


def test_a_part_that_nobody_asked_for_is_not_taken(site, tmp_path):
    site.answer = (206, b"part")
    assert failure(site, tmp_path / "a") == " cannot be fetched: the server answers 206 Partial Content."


def test_a_chunked_answer_that_breaks(site, tmp_path):
    site.chunked, site.cut = True, 70_000
    assert " cannot be fetched: " in failure(site, tmp_path / "a")
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST


def test_a_server_that_falls_silent(site, tmp_path):
    site.stall, site.cut = True, 70_000
    text = failure(site, tmp_path / "a", timeout=0.3)
    assert text.startswith(" cannot be fetched: timed out.")
    assert "bytes of it are kept" in text


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_server_that_refuses(site, tmp_path, status, words):
    site.answer = (status, b"<html>")
    assert failure(site, tmp_path / "a") == f" cannot be fetched: the server answers {words}."
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        site = Site(url=f"http://127.0.0.1:{free.getsockname()[1]}/a")
    assert "refused" in failure(site, tmp_path / "a")


def test_a_server_that_speaks_another_language(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.recv(2**16)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        site = Site(url=f"http://127.0.0.1:{server.getsockname()[1]}/a")
        assert failure(site, tmp_path / "a").startswith(" cannot be fetched: ")
        thread.join()


def test_a_place_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be fetched: Not a directory\.|cannot be fetched: File exists\."):
        fetch(site.url, tmp_path / "file" / "a")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "a.bin", ""])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(ArgumentError) as caught:
        fetch(url, tmp_path / "a")
    assert str(caught.value) == f"fetch: url must begin with http:// or https://, got {url}."


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b/", "http://127.0.0.1:x/"])
def test_addresses_that_cannot_be(tmp_path, url):
    with pytest.raises(DataError, match="cannot be fetched: "):
        fetch(url, tmp_path / "a")


@pytest.mark.parametrize("sha256", ["", "0" * 63, "g" * 64, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(tmp_path, sha256):
    with pytest.raises(ArgumentError) as caught:
        fetch("http://127.0.0.1/", tmp_path / "a", sha256=sha256)
    assert str(caught.value).startswith("fetch: sha256 must be 64 hexadecimal digits, got ")
