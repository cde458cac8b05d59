"""The benchmark runs, says what it measured, and drives a checkout of the reference through its own classes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from example_runs import EXAMPLES, run_example

FAKE_MODEL = """
import torch

class Pix2PixModel:
    def __init__(self, opt):
        print("a word that must not reach the table")
        assert opt.isTrain and opt.netG == "unet_128" and opt.lambda_L1 == 100 and opt.gpu_ids == []
        self.netG = torch.nn.Conv2d(opt.input_nc, opt.output_nc, 1)

    def set_input(self, data):
        self.source, self.target = data["A"], data["B"]

    def optimize_parameters(self):
        (self.netG(self.source) - self.target).abs().mean().backward()
"""


def run(*arguments, cwd):
    flags = ("--quick", "--device", "cpu", "--json", "found.json", *arguments)
    done = run_example("benchmark.py", *flags, cwd=cwd, new_process=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, json.loads((cwd / "found.json").read_text())


def checkout(folder, model):
    package = folder / "models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "pix2pix_model.py").write_text(model)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("with_peer", [pytest.param(False, marks=pytest.mark.slow), True])
def test_it_measures_everything_with_a_peer_or_without(tmp_path, with_peer):
    peer = ["--peer", str(checkout(tmp_path / "peer", FAKE_MODEL))] if with_peer else []
    output, found = run("--threads", "1", *peer, cwd=tmp_path)
    assert found["machine"]["threads"] == "1"
    assert {"device", "cpu", "cores", "torch", "load"} <= found["machine"].keys()
    assert min(found["floor"].values()) > 0
    assert found["step"].keys() == {"1", "2"}
    first = "peer fp32" if with_peer else "imtrans fp32"
    peers = ["peer fp32"] if with_peer else []
    for results in found["step"].values():
        assert list(results) == [*peers, "imtrans fp32", "imtrans bf16"]
        assert results[first]["ratio"] == 1
        for result in results.values():
            assert result["rounds"] == 3
            assert 0 < result["fastest_ms"] <= result["ms"]
            assert result["of_floor"] > 0
    assert list(found["sharp_step"]) == ["paper", "nearest", "... feature matching", "... and spectral norm"]
    assert found["sharp_step"]["paper"]["ratio"] == 1
    assert min(result["ms"] for result in found["sharp_step"].values()) > 0
    one_picture = ["translate fp32", "Translator fp32", "translate bf16", "Translator bf16"]
    assert list(found["forward"]) == [*peers, *one_picture]
    assert found["forward"][[*peers, *one_picture][0]]["ratio"] == 1
    assert found["peak_memory"]["step"]["peak_mib"] > 0
    assert list(found["first_picture"]) == [*(["peer picture"] if with_peer else []), "picture", "translator picture"]
    assert len(found["input"]) == 4
    for loop in found["loop"].values():
        assert loop["recipe_hours"] > 80_000 * loop["step_ms"] / 3.6e6 / 2
    assert "skipped" not in output
    assert f"{found['step']['1']['imtrans fp32']['ms']:9.1f}" in output
    if with_peer:
        # One 1x1 convolution is less work than two networks.
        for results in (*found["step"].values(), found["forward"]):
            assert all(0 < result["ratio"] < 1 for name, result in results.items() if name != "peer fp32")
        assert found["peak_memory"]["peer step"]["peak_mib"] > 0
        assert found["first_picture"]["peer picture"]["first_ms"] > 0
        assert "a word that must not reach the table" not in output


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return pytest.importorskip("benchmark_parts")


def test_what_does_not_run_is_skipped_with_the_reason(parts, tmp_path):
    peer = checkout(tmp_path / "peer", "import no_such")
    setting = parts.Setting(torch.device("cpu"), size=128, base_channels=4, seconds=0.0, peer=peer)
    found = parts.steps(setting, 1)
    reason = f"{peer} cannot be imported as pytorch-CycleGAN-and-pix2pix: No module named 'no_such'"
    assert found["peer fp32"] == {"skipped": reason}
    assert found["imtrans fp32"]["ratio"] == 1, "the first that runs is what the others are compared with"


def test_where_nothing_runs_every_contender_says_why(parts):
    setting = parts.Setting(torch.device("cpu"), size=128, base_channels=4, seconds=0.0, peer=None)

    def fail():
        raise RuntimeError("no bf16 here\nand much more")

    assert parts.compare(setting, {"a": fail, "b": lambda: fail}) == {
        name: {"skipped": "no bf16 here"} for name in "ab"
    }


def test_a_process_that_fails_is_skipped_with_its_last_words(parts):
    command = [sys.executable, "-c", "raise SystemExit('first line\\nno such card')"]
    assert parts.in_children(command, ["step"], repeat=2) == {"step": {"skipped": "no such card"}}
