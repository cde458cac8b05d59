"""`imtrans train` and the examples are one code: the same flags give the same run, bit for bit."""

import json

import numpy as np
import pytest
from command_runs import interrupt_command, run_command, succeeded
from example_runs import run_example
from PIL import Image

from imtrans import load_pretrained

SCRIPTS = {"pix2pix": "pix2pix_facades.py", "cyclegan": "cyclegan.py", "colorization": "colorize.py"}
TINY = ["--size", 32, "--base-channels", 4, "--device", "cpu", "--precision", "fp32", "--max-steps", 3]
MEASURED = {"images_per_second", "seconds", "time"}  # entries of metrics.jsonl


@pytest.fixture
def folder(tmp_path):
    """A folder that each method takes."""
    for name in ("train", "trainA", "trainB", "val", "testA", "testB"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 256, (40, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def files_of(out):
    """The files of a run that depend on what was computed alone."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    kept = {name: content for name, content in files.items() if name.endswith((".safetensors", ".png"))}
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    kept["metrics"] = [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]
    config = json.loads(files["config.json"])
    kept["config"] = {name: value for name, value in config.items() if name != "command"}
    return kept, config["command"]


@pytest.mark.parametrize("method", SCRIPTS)
@pytest.mark.parametrize("data", [None, "data"])
def test_a_run_is_the_one_of_the_example(tmp_path, folder, method, data):
    flags = [*TINY, "--seed", 3, "--no-flip", "--data", data] if data else [*TINY, "--seed", 3]
    for name in ("command", "example"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(folder)
    by_command = succeeded("train", method, *flags, "--out", "run", cwd=tmp_path / "command")
    done = run_example(SCRIPTS[method], *flags, "--out", "run", cwd=tmp_path / "example")
    assert done.returncode == 0, done.stderr
    assert by_command.replace("/command/", "/example/") == done.stdout
    files, command = files_of(tmp_path / "command" / "run")
    expected, script = files_of(tmp_path / "example" / "run")
    assert {name for name in files if name.startswith("checkpoints/")}
    assert files.keys() == expected.keys()
    assert [name for name in files if files[name] != expected[name]] == []
    words = " ".join(map(str, flags))
    assert command == f"imtrans train {method} {words} --out run"
    assert script.endswith(f"{SCRIPTS[method]} {words} --out run")


@pytest.mark.parametrize("method", SCRIPTS)
def test_the_flags_and_the_folder_are_the_ones_of_the_example(tmp_path, method):
    texts = succeeded("train", method, "--help"), run_example(SCRIPTS[method], "--help", cwd=tmp_path).stdout
    flags = [{line.split()[0] for line in text.splitlines() if line.startswith("  --")} for text in texts]
    assert len(flags[0]) > 35
    assert flags[0] == flags[1]
    assert texts[0].count("(runs/") == texts[1].count("(runs/") == 1


def test_a_run_resumes_and_is_pushed_by_name(tmp_path):
    options = {"cwd": tmp_path}
    words = ["train", "pix2pix", *TINY[:-1]]
    assert "2 steps of batch 1" in succeeded(*words, 2, **options)
    assert "4 steps of batch 1" in succeeded(*words, 4, "--resume", **options)
    lines = (tmp_path / "runs" / "facades" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if json.loads(line)["kind"] == "train"] == [2, 4]
    assert load_pretrained(tmp_path / "runs" / "facades" / "generator").config["base_channels"] == 4
    done = run_command(*words, 5, **options)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "error: runs/facades already holds a run. Continue it with resume=True (--resume), or give this one another "
        "folder with out=... (--out).",
    )


def test_ctrl_c_saves_the_run_and_says_how_to_resume(tmp_path):
    words = ["train", "pix2pix", *map(str, TINY[:-2]), "--epochs", "100"]
    _, errors = interrupt_command(*words, cwd=tmp_path, at="runs/facades/checkpoints/000000", after=1)
    assert errors.splitlines()[-1] == f"imtrans {' '.join(words)} --resume"
