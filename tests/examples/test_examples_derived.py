"""The examples whose sources are made from photos: edges2photo.py, inpaint.py and superres.py."""

import re

import command_runs
import numpy as np
import pytest
import test_examples
import torch
from PIL import Image
from test_example_flags import SHARED_PAIRED
from test_examples import config_of, fill

from imtrans import load_pretrained, translate
from imtrans.data import Holes
from imtrans.data.images import read_image, to_image, to_tensor

TINY = ["--size", "32", "--base-channels", "4", "--device", "cpu"]
EXAMPLES = {
    "edges2photo.py": ((1, 3), "Edges(threshold=(0.03, 0.15), sigma=(0.6, 1.4))", {"--threshold", "--sigma"}),
    "inpaint.py": ((4, 3), "Holes(kind='strokes', size=0.5)", {"--holes", "--hole-size"}),
    "superres.py": ((3, 3), "Small(factor=4)", {"--factor"}),
}
SCRIPT = pytest.mark.parametrize("script", EXAMPLES)


def succeeded(script, *arguments, **options):
    return test_examples.succeeded(*arguments, script=script, **options)


@SCRIPT
def test_with_no_data_it_trains_on_procedural_facades(tmp_path, script):
    channels, source, own = EXAMPLES[script]
    output = succeeded(script, *TINY, "--max-steps", 2, cwd=tmp_path)
    out = tmp_path / "runs" / script.removesuffix(".py")
    assert f"training on   400 procedural facades of seed 0, {source}, as Jitter" in output
    assert f"validating on 20 procedural facades of seed 1, {source}, resized to 32x32" in output
    assert f"gallery    {(out / 'index.html').as_uri()}" in output
    generator = load_pretrained(out / "generator")
    assert (generator.in_channels, generator.out_channels) == channels
    config = config_of(out)
    assert config["recipe"] == "sharp"
    assert config["networks"]["discriminator"]["arguments"]["in_channels"] == str(sum(channels))
    with Image.open(out / "samples" / "000002.png") as rows:
        assert rows.size == (3 * 36 - 4, 4 * 36 - 4)
    assert "3 steps of batch 1" in succeeded(script, *TINY, "--max-steps", 3, "--resume", cwd=tmp_path)

    listed = succeeded(script, "--help", cwd=tmp_path)
    found = {word.strip("[],)") for word in listed.split() if word.strip("[],)").startswith("--")}
    assert found - {"--weights"} == SHARED_PAIRED | own  # it is of `imtrans translate`, which the text names


@SCRIPT
def test_photos_with_and_without_held_out_ones(tmp_path, script):
    fill(tmp_path / "mine" / "train", 3)
    fill(tmp_path / "mine" / "val", 2)
    source = EXAMPLES[script][1]
    output = succeeded(script, *TINY, "--data", "mine", "--max-steps", 1, "--out", "one", cwd=tmp_path)
    assert f"training on   3 pictures in mine/train, 24x18 pixels, {source}, as Jitter(size=32" in output
    assert f"validating on 2 pictures in mine/val, 24x18 pixels, {source}, resized to 32x32" in output
    flags = ["--data", "mine/train", "--max-steps", 1, "--out", "two"]
    output = succeeded(script, *TINY, *flags, cwd=tmp_path, new_process=script == "inpaint.py")
    assert "training on   3 pictures in mine/train, 24x18 pixels" in output
    assert "validating on nothing: there is no train/ with val/ or test/ beside it" in output


@pytest.mark.parametrize(
    ("script", "flags", "source"),
    [
        ("edges2photo.py", ["--threshold", 0.1, 0.2, "--sigma", 1, 1], "Edges(threshold=(0.1, 0.2), sigma=(1.0, 1.0))"),
        ("inpaint.py", ["--holes", "centre", "--hole-size", 0.4], "Holes(kind='centre', size=0.4)"),
        ("superres.py", ["--factor", 2], "Small(factor=2)"),
    ],
)
def test_flags_of_the_source(tmp_path, script, flags, source):
    output = succeeded(script, *TINY, "--max-steps", 1, *flags, cwd=tmp_path)
    assert f"400 procedural facades of seed 0, {source}, " in output


@pytest.mark.parametrize(
    ("script", "flags", "text"),
    [
        ("edges2photo.py", ["--threshold", 0.3, 0.2], "Edges: threshold must be bounds (low, high) in this order"),
        ("inpaint.py", ["--hole-size", 2], "Holes: size must be a number between 0 and 1, got 2.0."),
        ("superres.py", ["--factor", 1], "Small: factor must be a whole number >= 2, got 1."),
        ("superres.py", ["--data", "none"], "none cannot be read as a folder of pictures"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, script, flags, text):
    assert test_examples.failed(*TINY, *flags, script=script, cwd=tmp_path).startswith(f"error: {text}")


def test_a_drawing_becomes_a_photo(tmp_path):
    succeeded("edges2photo.py", *TINY, "--max-steps", 1, cwd=tmp_path)
    Image.fromarray(np.random.default_rng(0).choice([0, 255], (40, 50)).astype(np.uint8)).convert("RGB").save(
        tmp_path / "drawing.png"
    )
    flags = ["--weights", "runs/edges2photo/generator", "drawing.png", "--out", "photo.png"]
    command_runs.succeeded("translate", *flags, "--device", "cpu", cwd=tmp_path)
    with Image.open(tmp_path / "photo.png") as photo:
        assert (photo.mode, photo.size) == ("RGB", (50, 40))


def test_inpaint_tells_the_error_in_holes_apart_and_fills_a_transparent_part(tmp_path):
    output = succeeded("inpaint.py", *TINY, "--max-steps", 1, cwd=tmp_path)
    hole, around = map(float, re.search(r"mean L1 +in the holes ([\d.]+), around them ([\d.]+)", output).groups())
    assert 0 < hole < 1
    assert around == 0
    # The whole picture's L1 is a mean over both.
    whole = float(re.search(r"([\d.]+) .*<- saved", output)[1])
    assert whole < hole

    photo = to_tensor(Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)))
    source = Holes("strokes")(photo)
    rgb, alpha = to_image(source[:3]), to_image(source[3:]).convert("L")
    rgb.putalpha(alpha)
    rgb.save(tmp_path / "holes.png")
    flags = ["--weights", "runs/inpaint/generator", "holes.png", "--device", "cpu"]
    command_runs.succeeded("translate", *flags, "--out", "filled.png", cwd=tmp_path)
    filled, known = to_tensor(read_image(tmp_path / "filled.png")), (source[3] > 0).expand(3, -1, -1)
    assert torch.equal(filled[known], photo[known])
    assert (filled[~known] != source[:3][~known]).any()
    generator = load_pretrained(tmp_path / "runs" / "inpaint" / "generator")
    assert np.array_equal(np.asarray(translate(generator, rgb)), np.asarray(read_image(tmp_path / "filled.png")))


def test_superres_compares_with_bicubic(tmp_path):
    output = succeeded("superres.py", *TINY, "--max-steps", 1, cwd=tmp_path)
    rows = {row[0]: [float(x) for x in row[2::2]] for row in map(str.split, output.splitlines()[-2:])}
    assert list(rows) == ["bicubic", "output"]
    assert all(0 < l1 < 1 < psnr < 60 < swd and -1 < ssim < 1 for l1, psnr, ssim, swd in rows.values())
    assert rows["bicubic"] != rows["output"]
