import json
from functools import partial

import command_runs
import numpy as np
import pytest
import test_examples
from PIL import Image
from test_example_flags import TESTED, TESTED_PAIRED
from test_examples import config_of, fill

from imtrans import UNetGenerator, load_pretrained, translate

SCRIPT = "colorize.py"
TINY = ["--size", "32", "--base-channels", "4", "--device", "cpu"]


run = partial(test_examples.run, script=SCRIPT)
succeeded = partial(test_examples.succeeded, script=SCRIPT)


def test_with_no_data_it_trains_on_procedural_facades_and_gives_colours(tmp_path):
    output = succeeded(*TINY, "--max-steps", "2", cwd=tmp_path)
    out = tmp_path / "runs" / "colorize"
    assert "training on   400 procedural facades of seed 0, grey to colour" in output
    assert "validating on 20 procedural facades of seed 1, grey to colour" in output
    assert "2 steps of batch 1 on cpu in " in output
    assert "<- saved with the generator" in output
    assert f"gallery    {(out / 'index.html').as_uri()}" in output
    generator = load_pretrained(out / "generator")
    assert (generator.colours, generator.config["base_channels"]) == ("lab", 4)
    with Image.open(out / "samples" / "000002.png") as rows:
        assert rows.size == (3 * 36 - 4, 4 * 36 - 4)

    Image.new("L", (50, 40), 90).save(tmp_path / "grey.png")
    flags = ("--weights", out / "generator", "grey.png", "--out", "made", "--device", "cpu")
    assert "1 of 1 translated, 0 skipped" in command_runs.succeeded("translate", *flags, cwd=tmp_path)
    with Image.open(tmp_path / "made" / "grey.png") as made:
        assert made.mode == "RGB"
        assert np.array_equal(np.asarray(made), np.asarray(translate(generator, tmp_path / "grey.png")))

    assert run(*TINY, cwd=tmp_path).stderr.strip().splitlines()[-1].startswith("error: runs/colorize already holds")
    assert "3 steps of batch 1" in succeeded(*TINY, "--max-steps", "3", "--resume", cwd=tmp_path)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 3]


def test_every_flag_on_a_folder_with_held_out_photos(tmp_path):
    fill(tmp_path / "mine" / "train", 3)
    fill(tmp_path / "mine" / "test", 2)
    (tmp_path / "mine" / "train" / "bad.jpg").write_bytes(b"<html>")
    flags = {
        "--data": "mine", "--lr-policy": "linear", "--warmup-epochs": 1,
        "--on-bad-image": "skip", "--epochs": 3, "--decay-epochs": 1, "--max-steps": 4, "--size": 32,
        "--base-channels": 4, "--batch-size": 2, "--precision": "bf16", "--device": "cpu", "--seed": 5,
        "--num-workers": 1, "--checkpoint-every": 2, "--out": "runs/mine",
        "--segmenter": "segmenter",
    }  # fmt: skip
    UNetGenerator.preset("unet_2015", 3, 4, base_channels=2, depth=3).save_pretrained(tmp_path / "segmenter")
    words = [word for pair in flags.items() for word in pair]
    failed = run(*[w for w in words if w not in ("--on-bad-image", "skip")], cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: mine/train/bad.jpg cannot be read as a picture")

    with pytest.warns(UserWarning, match=r"1 of 4 samples is bad and left out\. mine/train/bad.jpg cannot be read"):
        output = succeeded(*words, "--no-compile", cwd=tmp_path)
    assert "training on   3 pictures in mine/train (1 bad one left out), 24x18 pixels, grey to colour" in output
    assert "validating on 2 pictures in mine/test, 24x18 pixels, grey to colour" in output
    assert "4 steps of batch 2 on cpu in bf16" in output
    assert "PSNR     SWD   texture    layout" in output
    config = config_of(tmp_path / "runs" / "mine")
    given = {"epochs": 3, "decay_epochs": 1, "steps": 4, "batch_size": 2, "precision": "bf16", "seed": 5, "size": 32}
    assert {name: config[name] for name in given} == given
    assert config["method"] == "Colorization"
    checkpoints = sorted(p.name for p in (tmp_path / "runs" / "mine" / "checkpoints").iterdir())
    assert checkpoints == ["000002", "000004"]

    listed = succeeded("--help", cwd=tmp_path)
    tested = {
        *flags, "--no-compile", "--help", "--nproc-per-node=4", "--resume", "--push-to-hub",
        *TESTED, *TESTED_PAIRED,
    }  # fmt: skip
    assert {word.strip("[],)") for word in listed.split() if word.strip("[],)").startswith("--")} == tested


def test_a_folder_of_photos_alone(tmp_path):
    fill(tmp_path / "mine", 2)
    output = succeeded(
        *TINY, "--data", "mine", "--epochs", 1, "--max-steps", 1, "--out", "run", cwd=tmp_path, new_process=True
    )
    assert "training on   2 pictures in mine, 24x18 pixels" in output
    assert "validating on nothing: there is no train/ with val/ or test/ beside it" in output
    assert load_pretrained(tmp_path / "run" / "generator").inference_mode == "batch_stats"
