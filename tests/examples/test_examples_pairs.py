"""The examples maps.py, day2night.py and cityscapes.py."""

import importlib.util
import json
import sys
from functools import partial

import numpy as np
import pytest
import test_examples
from example_runs import EXAMPLES
from PIL import Image
from test_example_flags import SHARED_PAIRED
from test_examples import config_of, side_by_side

from imtrans import CityscapesImages, load_pretrained
from imtrans.data.cityscapes import TRAIN_PALETTE
from imtrans.data.streets import save_streets

TINY = ["--size", 32, "--base-channels", 4, "--device", "cpu"]
SHARED = SHARED_PAIRED | {"--direction"}


def flags_of(text):
    return {word.strip("[],):.") for word in text.split() if word.strip("[],):.").startswith("--")}


@pytest.mark.parametrize(
    ("script", "a", "b", "subject"),
    [("maps.py", "aerial pictures", "maps", "towns"), ("day2night.py", "day", "night", "facades")],
)
def test_without_data_it_trains_in_both_directions(tmp_path, script, a, b, subject):
    run = partial(test_examples.succeeded, *TINY, "--max-steps", 2, cwd=tmp_path, script=script)
    output = run()
    assert f"training on   400 procedural {subject} of seed 0, {a} to {b}" in output
    assert f"validating on 20 procedural {subject} of seed 1, {a} to {b}, resized to 32x32" in output
    assert "2 steps of batch 1 on cpu in " in output
    assert "<- saved with the generator" in output
    out = tmp_path / "runs" / script.removesuffix(".py")
    config = config_of(out)
    assert (config["recipe"], config["epochs"]) == ("sharp", 5)
    with Image.open(out / "samples" / "000002.png") as grid:
        assert grid.size == (3 * 36 - 4, 4 * 36 - 4)
    assert f", {b} to {a}, " in run("--direction", "BtoA", "--out", "back")
    assert "3 steps of batch 1" in test_examples.succeeded(
        *TINY, "--max-steps", 3, "--resume", cwd=tmp_path, script=script
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 3]


@pytest.mark.parametrize(("script", "more"), [("maps.py", {"--preprocess"}), ("day2night.py", set())])
def test_flags_of_pairs(tmp_path, script, more):
    assert (
        flags_of(test_examples.succeeded("--help", cwd=tmp_path, script=script))
        == SHARED | {"--splits", "--columns"} | more
    )


def test_maps_are_cropped_and_not_resized(tmp_path):
    """In a pair, the left half is a gradient of 60 pixels, the right one has its number in red."""
    for name, count in {"train": 3, "val": 1}.items():
        (tmp_path / "maps" / name).mkdir(parents=True)
        for n in range(count):
            ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (60, 1))
            pair = np.concatenate([np.stack([ramp, ramp.T, ramp * 0], -1), np.full((60, 60, 3), (n, 0, 0))], axis=1)
            Image.fromarray(pair.astype(np.uint8)).save(tmp_path / "maps" / name / f"{n}.png")
    run = partial(test_examples.succeeded, *TINY, "--data", "maps", "--max-steps", 1, cwd=tmp_path, script="maps.py")
    output = run()
    assert "training on   3 pairs side by side in maps/train, 60x60 pixels, preprocess crop, AtoB, as Jitter(" in output
    assert "validating on 1 pair side by side in maps/val, 60x60 pixels, preprocess crop, AtoB" in output
    with Image.open(tmp_path / "runs" / "maps" / "samples" / "000001.png") as grid:
        source = np.asarray(grid.convert("RGB"))[:32, :32]
    expected = 4 * np.arange(14, 46)  # the centre, pixel by pixel
    assert np.abs(source[0, :, 0] - expected).max() <= 1
    assert np.abs(source[:, 0, 1] - expected).max() <= 1

    assert "preprocess crop" not in run("--preprocess", "resize_and_crop", "--load-size", 40, "--out", "resized")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--preprocess", "crop"], "--preprocess is for the images of a folder, and there is no --data"),
        (["--data", "maps", "--load-size", 40], "--load-size is for images that are resized"),
        (["--size", 32, 64], "--size HEIGHT WIDTH is for the images of a folder, and there is no --data"),
    ],
)
def test_flags_of_maps_that_have_no_meaning(tmp_path, flags, text):
    done = test_examples.run(*flags, cwd=tmp_path, script="maps.py")
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("script", ["maps.py", "day2night.py"])
def test_a_folder_without_train(tmp_path, script):
    side_by_side(tmp_path / "mine")
    assert test_examples.failed("--data", "mine", *TINY, cwd=tmp_path, script=script) == (
        "error: mine has no folder train/. Put the training pairs there, and validation pairs in val/."
    )


def test_day_and_night_of_a_folder(tmp_path):
    side_by_side(tmp_path / "mine" / "train")
    flags = [*TINY, "--data", "mine", "--direction", "BtoA", "--max-steps", 1]
    output = test_examples.succeeded(*flags, cwd=tmp_path, script="day2night.py")
    assert "training on   4 pairs side by side in mine/train, 24x24 pixels, BtoA, as Jitter(" in output
    assert "validating on nothing" in output


@pytest.fixture
def cityscapes(monkeypatch, tmp_path, capsys):
    """Run cityscapes.py with small streets: ``cityscapes(*flags)`` returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("cityscapes_example", EXAMPLES / "cityscapes.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    asked = []

    def save_few(folder, count, **settings):
        asked.append((count, settings["split"], settings["seed"]))
        save_streets(folder, 3 if settings["split"] == "train" else 2, height=32, **settings)

    def run(*flags):
        monkeypatch.setattr(example, "save_streets", save_few)
        monkeypatch.setattr(sys, "argv", ["cityscapes.py", *map(str, flags)])
        code = example.main(example.run, example.arguments())
        out, err = capsys.readouterr()
        return out if code == 0 else err.strip().splitlines()[-1]

    run.asked = asked
    return run


SMALL = ["--base-channels", 4, "--segmenter-epochs", 1, "--device", "cpu"]


def scores_of(output):
    """Pixel accuracy, class accuracy and IoU, as printed."""
    rows = [line.rsplit(maxsplit=3) for line in output.splitlines()]
    return {row[0]: tuple(map(float, row[1:])) for row in rows if row and row[0] in ("real photos", "output")}


def test_streets_without_data(cityscapes, tmp_path):
    output = cityscapes(*SMALL, "--max-steps", 2, "--seed", 3)
    assert cityscapes.asked == [(240, "train", 6), (20, "val", 7)]
    found = "pairs in leftImg8bit/{0} and gtFine/{0} in data/streets-3, 64x32 pixels, source of 20 labels, BtoA"
    jitter = "as Jitter(size=(128, 256), load_size=(128, 256), flip=True)"
    assert f"training on   3 {found.format('train')}, {jitter}" in output
    assert f"validating on 2 {found.format('val')}, resized to 256x128" in output
    scores = scores_of(output)
    assert list(scores) == ["real photos", "output"]
    assert all(0 <= score <= 1 for row in scores.values() for score in row)
    out = tmp_path / "runs" / "cityscapes"
    generator = load_pretrained(out / "generator")
    assert (generator.in_channels, generator.palette) == (20, tuple(TRAIN_PALETTE.values()))
    assert load_pretrained(out / "segmenter").config["out_channels"] == 20
    assert json.loads((out / "segmenter" / "palette.json").read_text()) == {
        k: list(v) for k, v in TRAIN_PALETTE.items()
    }
    with Image.open(out / "samples" / "000002.png") as grid:
        assert grid.size == (3 * 260 - 4, 2 * 132 - 4)
        assert TRAIN_PALETTE["road"] in set(grid.convert("RGB").get_flattened_data())

    again = cityscapes(*SMALL, "--max-steps", 3, "--seed", 3, "--resume")
    assert len(cityscapes.asked) == 2, "the streets are drawn once"
    assert scores_of(again)["real photos"] == scores["real photos"], "by the segmenter of the first run"


def test_the_official_folders(cityscapes, tmp_path):
    save_streets(tmp_path / "mine", 2, height=40)
    save_streets(tmp_path / "mine", 1, split="val", height=40, seed=1)
    output = cityscapes(*SMALL, "--data", "mine", "--size", 32, 64, "--max-steps", 1)
    assert "training on   2 pairs in leftImg8bit/train and gtFine/train in mine, 80x40 pixels" in output
    assert cityscapes.asked == []
    config = config_of(tmp_path / "runs" / "cityscapes")
    assert (config["recipe"], config["size"], config["epochs"]) == ("sharp", [32, 64], 200)
    assert len(scores_of(output)) == 2
    assert repr(CityscapesImages("mine", size=(32, 64), load_size=None)) in output


def test_a_folder_without_cityscapes(cityscapes, tmp_path):
    (tmp_path / "mine").mkdir()
    assert cityscapes(*SMALL, "--data", "mine").startswith(
        "error: mine has no files leftImg8bit/train/CITY/*_leftImg8bit"
    )


def test_flags_of_cityscapes(tmp_path):
    listed = flags_of(test_examples.succeeded("--help", cwd=tmp_path, script="cityscapes.py"))
    assert listed == SHARED - {"--direction"} | {"--segmenter-epochs"}
