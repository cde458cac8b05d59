"""``--data hf:``: rows of the datasets library as pairs, here in local folders."""

import json
from functools import partial

import pytest
import test_examples
import torch
from example_runs import run_example
from PIL import Image

from imtrans import load_pretrained
from imtrans.cli.train import rows
from imtrans.cli.train.data import pairs_of
from imtrans.cli.train.flags import pair_parser, parse_flags
from imtrans.errors import ArgumentError, DataError

datasets = pytest.importorskip("datasets")
TINY = ["--size", 32, "--base-channels", 4, "--device", "cpu"]
DAY, NIGHT = "white", "black"


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def save(folder, columns=("imageA", "imageB"), **counts):
    """Write pairs of a white and a black picture as parquet files, a split for each name."""
    features = datasets.Features({name: datasets.Image() for name in columns})
    for name, count in counts.items():
        pictures = [[Image.new("RGB", (40, 40), colour)] * count for colour in (DAY, NIGHT)]
        split = datasets.Dataset.from_dict(dict(zip(columns, pictures, strict=True)), features=features)
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def described(folder, split, order, end):
    return f"of rows in hf:{folder}, {split}, 40x40 pixels, {order}, {end}"


JITTER = "as Jitter(size=32, load_size=None, flip=True)"


def test_facades_are_trained_from_labels_to_photos_and_resumed(tmp_path):
    save(tmp_path / "pairs", train=4, test=2)
    run = partial(test_examples.succeeded, *TINY, "--data", "hf:pairs", "--epochs", 2, cwd=tmp_path)
    output = run("--max-steps", 3)
    assert f"training on   4 pairs {described('pairs', 'train', 'imageB to imageA', JITTER)}" in output
    assert f"validating on 2 pairs {described('pairs', 'test', 'imageB to imageA', 'resized to 32x32')}" in output
    out = tmp_path / "runs" / "facades"
    assert json.loads((out / "config.json").read_text())["files"] == [f"row {i}" for i in range(4)]
    run("--resume")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines if line["kind"] == "train") == 8
    assert load_pretrained(out / "generator").in_channels == 3
    assert "data was " in test_examples.failed(
        *TINY, "--data", "hf:pairs", "--epochs", 2, "--direction", "AtoB", "--resume", cwd=tmp_path
    )


def test_the_options_of_pictures_reach_the_rows(tmp_path):
    save(tmp_path / "pairs", train=2)
    flags = ["--data", "hf:pairs", "--max-steps", 1, "--labels", "facades", "--preprocess", "crop", "--no-flip"]
    output = test_examples.succeeded(*TINY, *flags, "--value-range", 0, 4095, cwd=tmp_path)
    facts = "values 0 to 4095, source of 12 labels, preprocess crop, imageB to imageA, as Jitter(size=32, "
    assert f"40x40 pixels, {facts}load_size=None, flip=False)" in output
    assert "validating on nothing" in output


@pytest.mark.parametrize("script", ["day2night.py", "maps.py"])
def test_the_other_examples_on_pairs_take_rows_too(tmp_path, script):
    save(tmp_path / "pairs", ("day", "night"), rest=2, mine=3, other=1)
    flags = ["--data", "hf:pairs", "--splits", "mine", "other", "--columns", "day", "night", "--max-steps", 1]
    output = test_examples.succeeded(*TINY, *flags, cwd=tmp_path, script=script)
    crop = "preprocess crop, " if script == "maps.py" else ""
    assert f"3 pairs {described('pairs', 'mine', f'{crop}day to night', JITTER)}" in output
    assert f"1 pair {described('pairs', 'other', f'{crop}day to night', 'resized to 32x32')}" in output


@pytest.mark.parametrize(("direction", "source"), [("AtoB", 1.0), ("BtoA", -1.0)])
def test_the_direction_names_the_columns(tmp_path, monkeypatch, direction, source):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "pairs", train=2, validation=1)
    monkeypatch.setattr("sys.argv", ["a", "--data", "hf:pairs", "--direction", direction, "--seed", "3", "--size", "8"])
    args = parse_flags(pair_parser(None, out="runs/a", direction="white to black"))
    train, val = pairs_of(args, None)
    for sample in (train[1], val[0]):
        assert torch.equal(sample["source"], torch.full((3, 8, 8), source))
        assert torch.equal(sample["target"], -sample["source"])
    assert (train.seed, train.augment, val.augment) == (3, True, False)


@pytest.mark.parametrize(
    ("splits", "asked", "expected"),
    [
        ("train", None, ("train", None)),
        ("test train", None, ("train", "test")),
        ("test train validation", None, ("train", "validation")),
        ("test train val validation", None, ("train", "val")),
        ("test train", ["train"], ("train", None)),
        ("mine test", ["mine"], ("mine", None)),
        ("a b", ["b", "a"], ("b", "a")),
    ],
)
def test_splits_are_found_or_named(splits, asked, expected):
    assert rows.choose_splits("hf:user/pairs", dict.fromkeys(splits.split()), asked) == expected


@pytest.mark.parametrize(
    ("asked", "missing"), [(None, "train"), (["mine"], "mine"), (["a", "val"], "val"), (["a", "b", "c"], "c")]
)
def test_a_split_that_is_not_there_lists_the_others(asked, missing):
    with pytest.raises(DataError) as caught:
        rows.choose_splits("hf:user/pairs", dict.fromkeys("ab"), asked)
    assert str(caught.value) == (
        f"--data hf:user/pairs has no split {missing!r}, but 'a', 'b'. Name the ones for training and, if there is "
        "one, for validation: --splits TRAIN VAL."
    )


def test_without_the_library_the_error_names_the_command(monkeypatch):
    monkeypatch.setattr(rows, "find_spec", {}.get)
    with pytest.raises(ArgumentError) as caught:
        rows.load_splits("hf:huggan/facades")
    assert str(caught.value) == (
        "--data hf:huggan/facades needs datasets, which is not installed. Install it with: "
        'pip install "imtrans[datasets]".'
    )


@pytest.mark.parametrize(("name", "reason"), [("user/none", "Couldn't reach 'user/none'"), ("/none", "Couldn't find")])
def test_an_error_of_the_library_is_one_line(tmp_path, name, reason):
    error = test_examples.failed(*TINY, "--data", f"hf:{name}", cwd=tmp_path)
    assert error.startswith(f"error: --data hf:{name} cannot be loaded by the datasets library: {reason}")
    assert error.endswith(". Check the name and the network.")


def test_errors_of_rows(tmp_path):
    save(tmp_path / "pairs", ("photo", "label"), train=2)
    assert test_examples.failed(*TINY, "--data", "hf:pairs", cwd=tmp_path) == (
        "error: PairedImages.from_rows: hf:pairs, train has no column 'imageB'. Its columns are 'photo', 'label'. Name "
        "two of them: source=..., target=... (--columns)."
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--splits", "a"], "--splits is for the rows of --data hf:USER/NAME"),
        (["--data", "pairs", "--columns", "a", "b"], "--columns is for the rows of --data hf:USER/NAME"),
        (["--data", "hf:pairs", "--splits", "a", "b", "c"], "argument --splits: give one name, for training, or two"),
    ],
)
@pytest.mark.parametrize("script", ["pix2pix_facades.py", "maps.py"])
def test_flags_of_rows_that_have_no_meaning(tmp_path, script, flags, text):
    done = run_example(script, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("flags", [["--instances"], ["--channels", "grey"]])
def test_options_of_files_are_refused(tmp_path, flags):
    done = run_example("pix2pix_facades.py", "--data", "hf:pairs", *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert "--instances and --channels are for files, and --data hf:... gives pictures" in done.stderr
