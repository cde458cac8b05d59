import json
from functools import partial

import pytest
import test_examples
import torch
from PIL import Image
from test_example_flags import TESTED
from test_examples import config_of, fill

from imtrans import load_pretrained

SCRIPT = "cyclegan.py"
TINY = ["--size", "32", "--base-channels", "4", "--device", "cpu"]


run = partial(test_examples.run, script=SCRIPT)
succeeded = partial(test_examples.succeeded, script=SCRIPT)


def test_with_no_data_it_trains_on_procedural_facades_and_resumes(tmp_path):
    output = succeeded(*TINY, "--max-steps", "2", "--direction", "BtoA", cwd=tmp_path)
    out = tmp_path / "runs" / "cyclegan"
    assert "training on   labels of 200, pictures of 200 other procedural facades of seed 0, BtoA" in output
    assert "samples of    labels of 4, pictures of 4 other procedural facades of seed 1, BtoA" in output
    assert "2 steps of batch 1 on cpu in " in output
    assert f"gallery    {(out / 'index.html').as_uri()}" in output
    for name in ("to_target", "to_source"):
        generator = load_pretrained(out / name)
        assert (generator.config["base_channels"], generator.config["num_blocks"]) == (4, 6)
    networks = config_of(out)["networks"]
    assert list(networks) == ["to_target", "to_source", "target_discriminator", "source_discriminator"]
    weights = [next(load_pretrained(out / name).parameters()) for name in ("to_target", "to_source")]
    assert not torch.allclose(*weights, atol=1e-2)
    with Image.open(out / "samples" / "000002.png") as rows:
        assert rows.size == (6 * 36 - 4, 4 * 36 - 4)

    assert run(*TINY, cwd=tmp_path).stderr.strip().splitlines()[-1].startswith("error: runs/cyclegan already holds")
    refused = run(*TINY, "--max-steps", "3", "--resume", cwd=tmp_path).stderr.strip().splitlines()[-1]
    assert refused.startswith("error: the run in runs/cyclegan has other arguments: data was 'labels of 200, ")
    longer = ("--direction", "BtoA", "--max-steps", "3", "--resume")
    assert "3 steps of batch 1" in succeeded(*TINY, *longer, cwd=tmp_path)
    assert config_of(out)["changes"][0]["max_steps"] == [2, 3]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]


def test_every_flag_on_a_folder_of_the_usual_layout(tmp_path):
    for name, count in {"trainA": 3, "trainB": 5, "testA": 2, "testB": 1}.items():
        fill(tmp_path / "mine" / name, count)
    flags = {
        "--data": "mine", "--on-bad-image": "skip", "--direction": "BtoA",
        "--epochs": 3, "--decay-epochs": 1, "--lr-policy": "linear", "--warmup-epochs": 1,
        "--max-steps": 4, "--size": 32,
        "--base-channels": 4, "--batch-size": 2, "--precision": "bf16", "--device": "cpu", "--seed": 5,
        "--num-workers": 1, "--checkpoint-every": 2, "--out": "runs/mine",
    }  # fmt: skip
    output = succeeded(*[word for pair in flags.items() for word in pair], "--no-compile", cwd=tmp_path)
    assert (
        "training on   3 pictures in mine/trainA, 24x18 pixels, and, without pairs, 5 pictures in mine/trainB" in output
    )
    assert "samples of    2 pictures in mine/testA, 24x18 pixels, and, without pairs, 1 picture in mine/testB" in output
    assert "BtoA" in output
    assert "4 steps of batch 2 on cpu in bf16" in output
    config = config_of(tmp_path / "runs" / "mine")
    given = {"epochs": 3, "decay_epochs": 1, "steps": 4, "batch_size": 2, "precision": "bf16", "seed": 5, "size": 32}
    assert {name: config[name] for name in given} == given
    checkpoints = sorted(p.name for p in (tmp_path / "runs" / "mine" / "checkpoints").iterdir())
    assert checkpoints == ["000002", "000004"]

    listed = succeeded("--help", cwd=tmp_path)
    tested = {
        *flags,
        "--no-compile",
        "--help",
        "--nproc-per-node=4",
        "--data-a",
        "--data-b",
        "--resume",
        "--push-to-hub",
        *TESTED,
        "--source-cycle-weight",
        "--target-cycle-weight",
        "--identity-weight",
    }
    assert {word.strip("[],)") for word in listed.split() if word.strip("[],)").startswith("--")} == tested


def test_two_folders_anywhere(tmp_path):
    fill(tmp_path / "horses", 2)
    fill(tmp_path / "zebras", 3)
    flags = ("--data-a", "horses", "--data-b", "zebras", "--epochs", 1, "--max-steps", 1, "--out", "run")
    output = succeeded(*TINY, *flags, cwd=tmp_path, new_process=True)
    assert "training on   2 pictures in horses" in output
    assert "samples of    the training data: there is no testA/ with testB/" in output
    assert (tmp_path / "run" / "samples" / "000001.png").is_file()


@pytest.mark.parametrize(
    "arguments", [["--data-a", "x"], ["--data-b", "x"], ["--data", "x", "--data-a", "y", "--data-b", "z"]]
)
def test_the_data_are_named_in_one_way(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("error: give --data, or --data-a and --data-b, or none of them\n")


def test_a_layout_that_is_not_there(tmp_path):
    fill(tmp_path / "mine" / "trainA", 1)
    (tmp_path / "empty").mkdir()
    for data, missing in (("mine", "trainB"), ("empty", "trainA and no trainB")):
        done = run("--data", data, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: {data} has no folder {missing}. Put the images of one set in trainA and of the other in trainB, "
            "or give two folders with --data-a and --data-b.\n"
        )
    assert run("--data", "mina", cwd=tmp_path).stderr == (
        "error: mina/trainA cannot be read as a folder of pictures: No such file or directory. Check the path. "
        "Did you mean mine?\n"
    )
