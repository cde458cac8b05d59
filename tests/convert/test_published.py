"""The authors' weights by name, from a server on 127.0.0.1 with files of the real layouts and formats."""

import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from authors_server import FACADES, FORMATS, NETWORKS, PATHS, ZEBRA, checkpoint, home_fixture, site_fixture  # noqa: F401
from command_runs import succeeded
from PIL import Image
from torch.torch_version import TorchVersion

from imtrans import PatchDiscriminator, ResnetGenerator, UNetGenerator, load_pretrained, published_weights, running_as
from imtrans.convert import published
from imtrans.errors import ArgumentError, DataError, SavedModelError
from imtrans.files import cache_folder, sha256_of

ROOT = Path(__file__).parents[2]


def kept(home):
    """The files of the cache, without those that hold locks."""
    return sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file() and p.suffix != ".lock")


def failure(error, name=FACADES, **options):
    with pytest.raises(error) as caught:
        load_pretrained(name, **options)
    return str(caught.value)


def folder_of(home, name=FACADES):
    return home / "weights" / name


# What is published


def test_all_weights_are_listed_with_the_facts():
    listed = published_weights()
    assert len({each.name for each in listed}) == len(listed) == 23
    assert {each.url for each in listed if "facades_label2photo" in each.name} == {
        "http://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch/facades_label2photo.pth",
        "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/facades_label2photo.pth",
    }
    facts = {each.name.split("/")[1]: (each.architecture, each.inference_mode) for each in listed}
    assert facts == {"pix2pix": ("junyanz/unet_256", "paper"), "cyclegan": ("junyanz/resnet_9blocks", "eval")}
    for each in listed:
        source, target = each.source.split(), each.target.split()
        assert source
        assert target
        assert source != target
        assert str(each) == (f"{each.name}: {each.source} to {each.target} ({each.architecture}, {each.megabytes} MB)")


def test_the_page_of_the_docs_lists_them():
    page = (ROOT / "docs" / "pretrained.md").read_text()
    for each in published_weights():
        assert f"| `{each.name}` | {each.task} | {each.source} | {each.target} | {each.megabytes} MB |\n" in page


@pytest.mark.parametrize("each", [published_weights()[0], published_weights()[-1]], ids=lambda each: each.architecture)
def test_the_size_is_the_size_of_the_architecture(each):
    cls = UNetGenerator if "unet" in each.architecture else ResnetGenerator
    with torch.device("meta"):
        state = cls.preset(each.architecture).state_dict()
    assert round(sum(t.numel() * t.element_size() for t in state.values()) / 1e6) == each.megabytes


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("junyanz/pix2pix/facade_label2photo", " Did you mean 'junyanz/pix2pix/facades_label2photo'?"),
        ("junyanz/pix2pix/horse2zebra", " Did you mean 'junyanz/cyclegan/horse2zebra'?"),
        ("junyanz/pixpix/map2sat", " Did you mean 'junyanz/cyclegan/map2sat' or 'junyanz/pix2pix/map2sat'?"),
        (f"junyanz/{'x' * 20}/{'y' * 20}", ""),
    ],
)
def test_an_unknown_name_has_a_hint(site, name, hint):
    assert failure(ArgumentError, name) == (
        f"load_pretrained: the authors published no weights {name}.{hint} All names: imtrans.published_weights()."
    )
    assert site.requests == []


# Fetched, converted and kept


@pytest.mark.parametrize("save", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_fetched_once_and_computes_the_same(site, home, name, save):
    network = NETWORKS[name]().eval()
    site.content = checkpoint(network, FORMATS[save])
    source = torch.rand(1, 3, 256 if name == FACADES else 32, 256 if name == FACADES else 32) * 2 - 1
    for _ in range(2):
        loaded = load_pretrained(name)
        assert (type(loaded), loaded.config, loaded.training) == (type(network), network.config, False)
        with torch.no_grad():
            assert torch.equal(loaded(source), network(source))
    assert site.paths == [PATHS[name]]
    folder = f"weights/{name}"
    assert kept(home) == [f"{folder}/config.json", f"{folder}/model.safetensors", f"{folder}/source.json"]
    record = json.loads((home / folder / "source.json").read_text())
    assert record == {"url": site.url.removesuffix("/a.bin") + PATHS[name], "sha256": sha256_of(site.content)}


def test_the_format_of_python_2_is_another():
    network = NETWORKS[ZEBRA]()
    old, older = (checkpoint(network, FORMATS[name]) for name in ("before 1.6", "Python 2"))
    assert b"U\x0emodel.1.weight" in older
    assert b"U\x0emodel.1.weight" not in old


@pytest.mark.parametrize(("name", "mode"), [(FACADES, "paper"), (ZEBRA, "eval")])
def test_each_method_has_its_inference_mode(site, name, mode):
    site.content = checkpoint(NETWORKS[name]())
    loaded = load_pretrained(name)
    assert loaded.inference_mode == mode
    source = torch.rand(1, 3, 256, 256)
    with torch.no_grad(), running_as(loaded, loaded.inference_mode):
        assert torch.equal(loaded(source), loaded(source)) == (mode == "eval")  # the other has dropout


def test_the_second_time_needs_neither_the_network_nor_the_lock(site, home, monkeypatch):
    load_pretrained(FACADES)
    for lock in home.rglob("*.lock"):
        lock.unlink()
    before = sorted(home.rglob("*"))
    monkeypatch.setattr(published, "SERVER", "http://127.0.0.1:9")
    load_pretrained(FACADES)
    assert sorted(home.rglob("*")) == before


def test_it_says_that_nothing_was_checked_and_prints_the_digest(site, capsys):
    load_pretrained(FACADES)
    assert capsys.readouterr().err == (
        f"Fetching {FACADES} over plain http, about 218 MB. Its authors publish no digest.\n"
        f"SHA-256 of facades_label2photo.pth: {sha256_of(site.content)}. "
        "Insist on it: load_pretrained(..., sha256=...).\n"
    )
    load_pretrained(FACADES)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(site, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    load_pretrained(FACADES)
    assert "facades_label2photo.pth: 100%" in terminal.getvalue()


def test_the_options_of_from_pretrained_work(site):
    loaded = load_pretrained(FACADES, dtype=torch.float16, in_channels=1)
    assert loaded.config["in_channels"] == 1
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    assert loaded.inference_mode == "paper"


def test_a_saved_copy_keeps_the_mode(site, tmp_path):
    load_pretrained(FACADES).save_pretrained(tmp_path / "mine")
    assert load_pretrained(tmp_path / "mine").inference_mode == "paper"


# Names


def test_a_folder_of_that_name_wins(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PatchDiscriminator(base_channels=2).save_pretrained(FACADES)
    assert isinstance(load_pretrained(FACADES), PatchDiscriminator)
    assert site.requests == []


@pytest.mark.parametrize("option", ["revision", "token", "subfolder"])
def test_an_option_of_repos_is_refused(site, option):
    assert failure(ArgumentError, **{option: "main"}) == (
        f"load_pretrained: {option} is for a repo on the Hub, and {FACADES} names one file of the authors. "
        f"Leave {option} out."
    )


def test_a_digest_of_another_network_is_refused(tmp_path):
    PatchDiscriminator(base_channels=2).save_pretrained(tmp_path)
    assert failure(ArgumentError, str(tmp_path), sha256="0" * 64) == (
        f"load_pretrained: sha256 is for the names in imtrans.published_weights(), not for {tmp_path}, whose "
        "config.json holds the digest of the weights. Leave sha256 out."
    )


def test_the_method_of_a_class_names_the_function():
    with pytest.raises(SavedModelError, match=r"published_weights\(\) are for load_pretrained\.$"):
        UNetGenerator.from_pretrained(FACADES)


# Digests


def test_a_digest_is_insisted_on(site, home, capsys):
    digest = sha256_of(site.content)
    text = failure(DataError, sha256="0" * 64)
    assert f" is not the expected file: its SHA-256 is {digest}, not {'0' * 64}. Nothing was kept. " in text
    assert kept(home) == []
    load_pretrained(FACADES, sha256=digest.upper())
    assert "Insist" not in capsys.readouterr().err.splitlines()[-1]
    assert failure(SavedModelError, sha256="0" * 64) == (
        f"{FACADES} in the cache was converted from a file with the SHA-256 {digest}, not {'0' * 64}. Remove "
        f"{folder_of(home)} to fetch it again."
    )
    load_pretrained(FACADES, sha256=digest)
    assert len(site.requests) == 2


@pytest.mark.parametrize("sha256", ["", "0" * 63, "g" * 64, 7])
def test_another_value_is_no_digest(site, sha256):
    assert failure(ArgumentError, sha256=sha256) == (
        f"load_pretrained: sha256 must be 64 hexadecimal digits, got {sha256}."
    )
    assert site.requests == []


# What goes wrong on the way: an error, nothing kept, and the next call works


@pytest.fixture
def recovers(site, home):
    yield
    assert kept(home) == []
    site.answer = site.cut = None
    site.length, site.content = True, checkpoint(NETWORKS[FACADES]())
    load_pretrained(FACADES)


ELSEWHERE = " If you have the file from elsewhere, convert it: python -m imtrans.convert FILE FOLDER --mode paper."


def instead(site, found):
    return (
        f"{site.url.removesuffix('/a.bin')}{PATHS[FACADES]} gave {found} instead of the weights of a UNetGenerator. "
        "Nothing was kept, and no code in it was run. Try again later, or in another network: a login page may answer "
        "for the server."
    )


def test_the_server_has_no_such_file(site, recovers):
    site.answer = (404, b"<html>")
    assert failure(DataError).endswith(f" cannot be fetched: the server answers 404 Not Found.{ELSEWHERE}")


def test_the_connection_breaks(site, recovers):
    site.cut = 10_000
    text = failure(DataError)
    assert f"the connection broke after 10000 of {len(site.content)} bytes. Try again later.{ELSEWHERE}" in text


@pytest.mark.parametrize("save", FORMATS)
def test_the_connection_breaks_and_the_size_is_unknown(site, recovers, save):
    site.content = checkpoint(NETWORKS[FACADES](), FORMATS[save])
    site.cut, site.length = 10_000, False
    assert failure(SavedModelError) == instead(site, "a damaged file, or one of another kind,")


@pytest.mark.parametrize("page", [b"<!doctype html><title>Log in</title>", b"\n <html></html>"])
def test_a_web_page_comes_instead(site, recovers, page):
    site.content = page
    assert failure(SavedModelError) == instead(site, "a web page")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02"])
def test_another_file_comes_instead(site, recovers, content):
    site.content = content
    assert failure(SavedModelError) == instead(site, "a damaged file, or one of another kind,")


@pytest.mark.parametrize("network", [PatchDiscriminator(base_channels=2), NETWORKS[ZEBRA]()])
def test_another_network_comes_instead(site, recovers, network):
    site.content = checkpoint(network)
    assert failure(SavedModelError) == instead(site, f"a {type(network).__name__}")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


@pytest.mark.parametrize("save", ["zip", "before 1.6"])
def test_code_in_the_file_is_not_run(site, recovers, tmp_path, save):
    file = io.BytesIO()
    torch.save({"model.model.0.weight": Payload(tmp_path / "proof")}, file, **FORMATS[save])
    site.content = file.getvalue()
    assert failure(SavedModelError) == instead(site, "a damaged file, or one of another kind,")
    assert not (tmp_path / "proof").exists()
    torch.load(io.BytesIO(site.content), weights_only=False)
    assert (tmp_path / "proof").exists()  # the file was one that would have run


def test_no_network(site, recovers, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(published, "SERVER", "http://127.0.0.1:9")
        text = failure(DataError)
        assert text.startswith(f"http://127.0.0.1:9{PATHS[FACADES]} cannot be fetched: [Errno 111] Connection refused.")
        assert text.endswith(ELSEWHERE)


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
@pytest.mark.parametrize("stage", ["fetched", "converted"])
def test_a_full_disk(site, home, recovers, stage):
    site.content = checkpoint(NETWORKS[FACADES](), half=True)  # the saved model is twice as large
    most = {"fetched": 1000, "converted": len(site.content) + 1000}[stage]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        text = failure(SavedModelError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert text == (
        f"{folder_of(home)} cannot be written: File too large. Make room, or set IMTRANS_HOME to a folder on another "
        "disk."
    )


def test_a_cache_that_cannot_be_written(site, home):
    home.write_text("a file")
    assert failure(SavedModelError) == (
        f"{folder_of(home)} cannot be written: Not a directory. Make room, or set IMTRANS_HOME to a folder on another "
        "disk."
    )
    assert site.requests == []


def test_a_torch_that_cannot_read_the_file_safely_does_not_fetch_it(site, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    assert failure(SavedModelError) == (
        f"{FACADES} is not read: a file can make torch 2.9.1+cpu run code (CVE-2026-24747). Update to torch 2.10 or "
        "newer."
    )
    assert site.requests == []


# A damaged copy in the cache


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "source.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-20] + b"\0" * 20)])
def test_a_damaged_copy_is_fetched_once_more(site, home, file, damage):
    load_pretrained(FACADES)
    before = {path: path.read_bytes() for path in folder_of(home).iterdir()}
    damage(folder_of(home) / file)
    load_pretrained(FACADES)
    assert len(site.requests) == 2
    assert {path: path.read_bytes() for path in folder_of(home).iterdir()} == before


def test_a_copy_that_stays_damaged_is_an_error(site, home):
    load_pretrained(FACADES)
    (folder_of(home) / "model.safetensors").write_bytes(b"damaged")
    site.answer = (503, b"")
    assert "the server answers 503 Service Unavailable" in failure(DataError)


# Several processes

LOAD = """
import sys
from imtrans import load_pretrained
from imtrans.convert import published
published.SERVER = sys.argv[1]
print(load_pretrained(sys.argv[2]).inference_mode)
"""


def process(site):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", LOAD, site.url.removesuffix("/a.bin"), FACADES]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def asked(site):
    """The server does not answer before `asked.go` is set; `asked.asked` tells of a request."""
    site.asked, site.go = threading.Event(), threading.Event()
    site.before = lambda: (site.asked.set(), site.go.wait(300))
    yield site
    site.go.set()


def test_two_processes_fetch_once(asked, home):
    first = process(asked)
    assert asked.asked.wait(300)
    second = process(asked)
    assert second.stderr.readline() == f"Another process fetches {FACADES}. Waiting for it.\n"
    asked.go.set()
    for each in (first, second):
        output, _ = each.communicate(timeout=300)
        assert (each.returncode, output) == (0, "paper\n")
    assert len(asked.requests) == 1
    assert len(kept(home)) == 3


def test_a_killed_process_leaves_nothing_that_stays(site, home):
    site.stall, site.cut = True, 100_000
    first = process(site)
    unfinished = folder_of(home).with_name(".facades_label2photo.tmp")
    while not list(unfinished.glob(".facades_label2photo.pth.*")):
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.communicate(timeout=300)
    assert len(list(unfinished.iterdir())) == 1
    site.stall, site.cut = False, None
    load_pretrained(FACADES)
    assert [path.parent for path in map(Path, kept(home))] == [Path("weights", FACADES)] * 3


# The command


def test_translate_takes_a_name(site, tmp_path):
    Image.new("RGB", (40, 30), (0, 85, 255)).save(tmp_path / "labels.png")
    arguments = ("--weights", FACADES, "labels.png", "--out", "photo.png", "--device", "cpu")
    for seed in (0, 0, 1):
        assert succeeded("translate", *arguments, "--seed", seed, cwd=tmp_path) == "output     photo.png\n"
        (tmp_path / "photo.png").rename(tmp_path / f"{len(list(tmp_path.glob('*.png')))}.png")
    first, same, other = (sha256_of(tmp_path / f"{number}.png") for number in (2, 3, 4))
    assert first == same != other  # it runs in its own mode, with dropout
    assert len(site.requests) == 1


# The cache folder


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, "/home/me/.cache/imtrans"),
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/imtrans"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "/home/me/Library/Caches/imtrans"),
        ("win32", {}, "/home/me/AppData/Local/imtrans"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/imtrans"),
        ("linux", {"IMTRANS_HOME": "~/weights", "XDG_CACHE_HOME": "/caches"}, "/home/me/weights"),
        ("darwin", {"IMTRANS_HOME": "/weights"}, "/weights"),
        ("linux", {"IMTRANS_HOME": ""}, "/home/me/.cache/imtrans"),
    ],
)
def test_the_cache_is_where_the_platform_has_it(monkeypatch, platform, environment, folder):
    for name in ("IMTRANS_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(folder)


def test_a_user_without_a_home_folder_needs_the_variable(monkeypatch):
    monkeypatch.delenv("IMTRANS_HOME", raising=False)

    def expanduser(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(ArgumentError) as caught:
        cache_folder()
    assert str(caught.value) == "cache_folder: this user has no home folder. Set IMTRANS_HOME to a folder."
