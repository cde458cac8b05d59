import hashlib
import io
import os
import resource
import socket
import threading

import pytest
from file_server import CONTENT, Site, serving

from imtrans.errors import ArgumentError, DataError
from imtrans.hub.download import fetch

DIGEST = hashlib.sha256(CONTENT).hexdigest()


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
        f" is not the expected file: its SHA-256 is {DIGEST}, not {'0' * 64}. Nothing was kept."
    )
    for site.length in (True, False):
        assert failure(site, tmp_path / "b", size=300_000) == (
            " is not the expected file: it has 256000 bytes, not 300000. Nothing was kept."
        )
    assert names(tmp_path) == ["a"]


def test_more_than_was_asked_for_is_not_read_to_its_end(site, tmp_path):
    site.content, site.length = bytes(2**25), False
    assert failure(site, tmp_path / "a", size=10) == (
        " is not the expected file: it has more than 10 bytes. Nothing was kept."
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


def test_a_broken_connection_leaves_nothing(site, tmp_path):
    site.cut = 100_000
    assert failure(site, tmp_path / "a") == (
        " cannot be fetched: the connection broke after 100000 of 256000 bytes. Try again later."
    )
    assert names(tmp_path) == []
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(DataError):
        fetch(site.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST


def test_without_a_length_the_expected_size_is_compared(site, tmp_path):
    site.length, site.cut = False, 100_000
    assert failure(site, tmp_path / "a", size=len(CONTENT)) == (
        " is not the expected file: it has 100000 bytes, not 256000. Nothing was kept."
    )
    assert names(tmp_path) == []


def test_a_page_instead_of_the_file(site, tmp_path):
    site.content = b"<!doctype html><title>moved</title>"
    assert "it has 35 bytes, not 256000" in failure(site, tmp_path / "a", size=len(CONTENT))
    assert "its SHA-256 is " in failure(site, tmp_path / "a", sha256=DIGEST)
    assert names(tmp_path) == []


def test_a_partial_answer_is_refused(site, tmp_path):
    site.answer = (206, b"part")
    assert failure(site, tmp_path / "a") == (
        " cannot be fetched: the server answers 206 Partial Content. Try again later."
    )


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_full_disk_leaves_nothing(site, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert failure(site, tmp_path / "a") == " cannot be fetched: File too large. Try again later."
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_a_terminal_shows_a_bar(site, tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    fetch(site.url, tmp_path / "a.bin")
    assert "a.bin: 100%" in terminal.getvalue()
    assert "256k/256k" in terminal.getvalue()


def test_a_chunked_answer_that_breaks(site, tmp_path):
    site.chunked, site.cut = True, 70_000
    assert " cannot be fetched: " in failure(site, tmp_path / "a")
    site.cut = None
    assert fetch(site.url, tmp_path / "a") == DIGEST


def test_a_server_that_falls_silent(site, tmp_path):
    site.stall, site.cut = True, 70_000
    text = failure(site, tmp_path / "a", timeout=0.3)
    assert text == " cannot be fetched: timed out. Try again later."
    assert names(tmp_path) == []


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
