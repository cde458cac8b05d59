"""The story of the library: train, push, pull somewhere else, translate a picture."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image

from imtrans import load_pretrained, translate

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pix2pix_facades.py"
CONSUMER = """
import sys
from imtrans import load_pretrained, translate
translate(load_pretrained("user/facades"), sys.argv[1]).save(sys.argv[2])
"""


def test_train_push_pull_in_a_fresh_process_and_translate(hub, tmp_path):
    environment = {
        **os.environ, **hub.env(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"
    }  # fmt: skip

    def run(*command, **changes):
        return subprocess.run(
            [sys.executable, *map(str, command)], cwd=tmp_path, env={**environment, **changes}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    # httpx2 says so of the way in which the client uploads.
    ignored = "error,ignore:Use 'content=:DeprecationWarning"
    settings = ["--max-steps", 5, "--size", 32, "--base-channels", 8, "--device", "cpu", "--out", "run"]
    trained = run(EXAMPLE, *settings, "--push-to-hub", "user/facades", PYTHONWARNINGS=ignored)
    assert trained.returncode == 0, trained.stderr
    assert f"pushed to  {hub.endpoint}/user/facades" in trained.stdout
    local = {path.name: path.read_bytes() for path in (tmp_path / "run" / "generator").iterdir()}
    pushed = hub.files("user/facades")
    assert set(pushed) == {*local, "discriminator/config.json", "discriminator/model.safetensors"}
    assert [name for name in local if local[name] != pushed[name]] == ["README.md"]
    assert re.search(r"\| steps \| 5 \|", pushed["README.md"].decode())

    picture = tmp_path / "labels.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(picture)
    consumed = run("-c", CONSUMER, picture, "photo.png", **hub.env(tmp_path / "elsewhere"))
    assert consumed.returncode == 0, consumed.stderr
    expected = translate(load_pretrained(tmp_path / "run" / "generator"), picture)
    with Image.open(tmp_path / "photo.png") as photo:
        assert photo.size == (50, 40)
        assert np.array_equal(np.asarray(photo), np.asarray(expected))


def test_an_example_that_cannot_push_says_why(hub, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("pix2pix_facades", EXAMPLE)
    monkeypatch.syspath_prepend(EXAMPLE.parent)  # it imports from its own folder
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    monkeypatch.chdir(tmp_path)
    settings = ["--max-steps", "1", "--size", "32", "--base-channels", "4", "--device", "cpu", "--out", "run"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *settings, "--push-to-hub", "user/facades"])
    assert script.main(script.run, script.arguments()) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: user/facades: the token is missing or invalid, or does not permit this")
    assert load_pretrained(tmp_path / "run" / "generator").in_channels == 3
