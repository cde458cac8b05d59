"""The examples that train the segmenter of the FCN-score, and the ablations of the paper."""

import importlib
import json
import re

import numpy as np
import pytest
import torch
from example_runs import EXAMPLES, run_example
from PIL import Image

from imtrans import PairedImages, Trainer, UNetGenerator, load_pretrained, receptive_field
from imtrans.data.facades.plan import LABELS
from imtrans.errors import DataError
from imtrans.nn.skips import NoSkip

COLOURS = np.array(list(LABELS.values()), dtype=np.uint8)
PHOTO_OF = COLOURS // 2
PHOTO_OF[[4, 5, 6]] = (230, 40, 40), (40, 230, 40), (40, 40, 230)  # window, wall, sky


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs, photo | labels, of big blocks of three classes, which the photo's colours tell."""
    folder = tmp_path_factory.mktemp("pairs")
    for part, count in (("train", 8), ("val", 3)):
        (folder / part).mkdir()
        for n in range(count):
            ids = np.random.default_rng((n, count)).integers(4, 7, (2, 2)).repeat(16, 0).repeat(16, 1)
            Image.fromarray(np.hstack([PHOTO_OF[ids], COLOURS[ids]])).save(folder / part / f"{n}.png")
    return folder


LABELLED = ("--direction", "BtoA", "--data")


def run(script, *arguments, **options):
    return run_example(script, *arguments, "--device", "cpu", **options)


def rows_of(output, columns=3):
    """The last numbers of each row of a table, by its title; None where there is a dash."""
    rows = {}
    for line in output.splitlines():
        title, numbers = line.split()[:-columns], line.split()[-columns:]
        if title and numbers[-1].replace(".", "").isdigit():
            rows[" ".join(title)] = [None if number == "-" else float(number) for number in numbers]
    return rows


def test_the_segmenter_learns_scores_the_real_photos_first_and_is_saved(data, tmp_path):
    for path in (data / "val").iterdir():
        (tmp_path / "photos").mkdir(exist_ok=True)
        with Image.open(path) as pair:
            pair.crop((0, 0, 32, 32)).save(tmp_path / "photos" / path.name)
    UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path / "untrained")
    Image.new("RGB", (8, 8)).save(tmp_path / "untrained" / "samples.png")  # as a run leaves it
    fit = (*LABELLED, data, "--size", 32, "--base-channels", 4, "--epochs", 30, "--lr", 0.02, "--precision", "fp32")
    done = run("train_segmenter.py", *fit, "--score", "photos", "untrained", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout, columns=6)
    training = rows.pop("real photos of the training set")
    assert training[:3] == [None] * 3
    assert list(rows) == ["real photos", "the mean colour of each class", "photos", "untrained"]
    assert rows["real photos"][3:] == [0, 0, 0]
    assert all(0 < near < far for near, far in zip(training[3:], rows["untrained"][3:], strict=True))
    assert rows["real photos"] == rows["photos"]
    # The photos of this set are their classes' mean colours.
    assert rows["the mean colour of each class"] == pytest.approx(rows["real photos"], abs=0.05)
    assert rows["real photos"][0] > 0.6 > 0.4 > rows["untrained"][0]
    saved = tmp_path / "runs" / "segmenter"
    with Image.open(saved / "segmented.png") as sheet:
        assert sheet.size == (9 * 32 + 8 * 4, 3 * 32 + 2 * 4)  # the labels; of each row, photos and what was found
        seen = np.asarray(sheet.convert("RGB"))
    assert sheet.text["columns"].startswith(
        "labels, real photos, found in real photos, the mean colour of each class, "
    )
    assert {tuple(colour) for colour in seen[:32, 72:104].reshape(-1, 3)} <= {tuple(colour) for colour in COLOURS}
    assert load_pretrained(saved).config["out_channels"] == 8
    assert json.loads((saved / "palette.json").read_text()) == {name: list(colour) for name, colour in LABELS.items()}

    again = run("train_segmenter.py", *LABELLED, data, "--size", 32, "--segmenter", saved, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert rows_of(again.stdout, columns=6)["real photos"] == rows["real photos"]


@pytest.mark.parametrize(
    ("script", "flag", "message"),
    [
        ("train_segmenter.py", "--epochs", "train_segmenter: --epochs must be a whole number >= 1, got 0."),
        ("train_segmenter.py", "--batch-size", "train_segmenter: --batch-size must be a whole number >= 1, got 0."),
        ("train_segmenter.py", "--size", "size must be a whole number >= 1, got 0."),
        ("ablations.py", "--segmenter-epochs", "ablations: --segmenter-epochs must be a whole number >= 1, got 0."),
        ("ablations.py", "--size", "size must be a whole number >= 1, got 0."),
    ],
)
def test_0_is_a_value_and_refused(data, tmp_path, script, flag, message):
    done = run(script, "--data", data, flag, 0, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_segmenter_takes_other_classes(data, tmp_path):
    (tmp_path / "two.json").write_text('{"dark": [0, 0, 100], "bright": [200, 200, 255]}')
    fit = (*LABELLED, data, "--size", 32, "--base-channels", 2, "--epochs", 1, "--palette", "two.json")
    done = run("train_segmenter.py", *fit, cwd=tmp_path, new_process=True)
    assert done.returncode == 0, done.stderr
    assert load_pretrained(tmp_path / "runs" / "segmenter").config["out_channels"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "palette.json is not a palette: "),
        ("[1, 2]", "palette.json is not a palette: "),
        ('{"a": 3}', "is not a palette"),
    ],
)
def test_what_is_no_palette_is_refused(example, content, message, tmp_path):
    if content is not None:
        (tmp_path / "palette.json").write_text(content)
    with pytest.raises(DataError, match=message):
        example("train_segmenter").read_palette(tmp_path / "palette.json")


def test_the_source_is_a_by_default(example, data, monkeypatch):
    for script, default in (("train_segmenter", "AtoB"), ("ablations", "AtoB"), ("pix2pix_facades", "BtoA")):
        monkeypatch.setattr("sys.argv", [script])
        assert example(script).arguments().direction == default


def test_without_data_there_are_procedural_facades(example):
    train, val = example("train_segmenter").pairs(None, "BtoA", 32, 3)
    assert (len(train), train.seed, train.augment) == (200, 6, True)
    assert (len(val), val.seed, val.augment) == (20, 7, False)


def test_distort_moves_photos_and_labels_together(example):
    labels = torch.randint(0, 2, (6, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    photos = (labels[:, None] * 1.0 - 0.5).expand(-1, 3, -1, -1)
    cut, ids = example("train_segmenter").distort(photos, labels, torch.Generator().manual_seed(0))
    assert cut.shape == (6, 3, 48, 48)
    assert ids.shape == (6, 48, 48)
    assert set(ids.unique().tolist()) == {-1, 0, 1}
    grey = cut.mean(dim=1)
    middle = (grey.amax(dim=(1, 2), keepdim=True) + grey.amin(dim=(1, 2), keepdim=True)) / 2
    inside = ids >= 0
    assert ((grey > middle) == (ids == 1))[inside].float().mean() > 0.97
    assert not torch.equal(cut[0], cut[1])


def test_the_mean_colours_are_those_of_the_classes(example, data):
    segmenting = example("train_segmenter")
    train = PairedImages(data / "train", direction="BtoA", size=32, augment=False)
    means = segmenting.mean_colours(train, segmenting.read_palette(None))
    present = [4, 5, 6]
    torch.testing.assert_close(means[present], torch.from_numpy(PHOTO_OF[present]).float() / 127.5 - 1)
    assert means[[0, 1, 2, 3, 7]].eq(0).all()


def test_another_number_of_pictures_than_there_are_photos_is_refused(example, data, tmp_path):
    val = PairedImages(data / "val", size=32, augment=False)
    with pytest.raises(DataError, match=r"must hold 3 images, one for each validation pair by name, got 1\."):
        list(example("train_segmenter").from_folder("some", [tmp_path / "a.png"], val))


EXPECTED = {
    "l1": ({"G_l1"}, None, None),
    "gan": ({"D_real", "D_fake", "G_gan"}, 3, 70),
    "cgan": ({"D_real", "D_fake", "G_gan"}, 6, 70),
    "l1+gan": ({"D_real", "D_fake", "G_gan", "G_l1"}, 3, 70),
    "l1+cgan": ({"D_real", "D_fake", "G_gan", "G_l1"}, 6, 70),
    "encoder-decoder-l1": ({"G_l1"}, None, None),
    "encoder-decoder": ({"D_real", "D_fake", "G_gan", "G_l1"}, 6, 70),
    "1x1": ({"D_real", "D_fake", "G_gan", "G_l1"}, 6, 1),
    "16x16": ({"D_real", "D_fake", "G_gan", "G_l1"}, 6, 16),
    "286x286": ({"D_real", "D_fake", "G_gan", "G_l1"}, 6, 286),
}


def test_every_combination_is_expected(example):
    assert list(EXPECTED) == list(example("ablations").RUNS)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_combination_is_what_it_says_and_trains(example, name):
    terms, channels, field = EXPECTED[name]
    method = example("ablations").RUNS[name].method(5, 2, torch.device("cpu"), 0)
    kinds = {type(block.merge) for block in method.generator.decoder}
    assert (kinds == {NoSkip}) == name.startswith("encoder-decoder")
    if field is None:
        assert method.discriminator is None
    else:
        assert method.discriminator.in_channels == channels
        assert receptive_field(method.discriminator, in_channels=channels).size == field
    trainer = Trainer(method, None, out=None, device="cpu", precision="fp32")
    before = [p.clone() for p in method.parameters()]
    batch = {"source": torch.rand(1, 3, 96, 96) * 2 - 1, "target": torch.rand(1, 3, 96, 96) * 2 - 1}
    for _ in range(3):
        losses = trainer.train_step(batch)
    assert {term for term, value in losses.items() if value != 0} == terms
    assert all(value.isfinite() for value in losses.values())
    assert all(
        not torch.equal(p, was) for p, was in zip(method.parameters(), before, strict=True) if p.grad is not None
    )


def test_the_ablations_leave_a_table_and_a_picture(data, tmp_path):
    budget = ("--size", 32, "--base-channels", 2, "--max-steps", 2, "--segmenter-epochs", 1, "--precision", "fp32")
    done = run("ablations.py", *LABELLED, data, "--runs", "l1", "1x1", *budget, cwd=tmp_path, new_process=True)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert next(iter(rows)) == "real photos"
    assert len(rows) == 3
    out = tmp_path / "runs" / "ablations"
    found = json.loads((out / "ablations.json").read_text())
    assert list(found) == ["real photos", "l1", "1x1"]
    assert list(found["1x1"]) == ["l1", "psnr", "ssim", "pixel_accuracy", "class_accuracy", "iou"]
    assert found["l1"] != found["1x1"]
    with Image.open(out / "ablations.png") as sheet:
        assert sheet.size == (4 * 32 + 3 * 4, 3 * 32 + 2 * 4)
    config = json.loads((out / "1x1" / "config.json").read_text())
    assert config["combination"]["receptive_field"] == 1


def test_the_ablations_take_a_segmenter_go_on_and_refuse_an_unknown_run(data, tmp_path):
    UNetGenerator.preset("unet_2015", 3, 8, base_channels=2, depth=2).save_pretrained(tmp_path / "segmenter")
    (tmp_path / "segmenter" / "palette.json").write_text(json.dumps(LABELS))
    budget = ("--size", 32, "--base-channels", 2, "--max-steps", 1, "--segmenter", "segmenter")
    done = run("ablations.py", *LABELLED, data, "--runs", "l1", *budget, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(done.stdout)) == 2
    scores = tmp_path / "runs" / "ablations" / "ablations.json"
    first = json.loads(scores.read_text())

    there = run("ablations.py", *LABELLED, data, "--runs", "1x1", "l1", *budget, cwd=tmp_path)
    assert there.returncode == 1
    assert "runs/ablations already has runs of l1. Continue with --resume, or give another --out." in there.stderr
    assert not (tmp_path / "runs" / "ablations" / "1x1").exists()
    more = run("ablations.py", *LABELLED, data, "--runs", "l1", "1x1", "l1", *budget, "--resume", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    both = json.loads(scores.read_text())
    assert list(both) == ["real photos", "l1", "1x1"]
    assert both["l1"] == first["l1"]

    refused = run("ablations.py", "--runs", "l2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "invalid choice: 'l2'" in refused.stderr


def test_the_ablations_check_the_size_before_the_first_run(tmp_path):
    done = run("ablations.py", "--size", "32", cwd=tmp_path)
    assert done.stderr == (
        "error: ablations: images of 32x32 are too small for the discriminators of 286x286. Use a larger --size, or "
        "choose other --runs.\n"
    )
    assert not done.stdout
    assert not (tmp_path / "runs").exists()


def test_the_speedrun_trains_until_the_scores_are_reached(tmp_path):
    tiny = ["--size", "48", "--base-channels", "2", "--epochs", "1", "--segmenter-epochs", "1", "--device", "cpu"]
    done = run_example("speedrun.py", *tiny, "--tries", "1", "--batch-size", "8", "--lr", "0.001", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "runs/speedrun.json").read_text())
    assert (row["seed"], row["recipe"]) == (0, "sharp")
    assert row["paper"].keys() == row["tries"][0].keys()
    assert row["paper"].keys() == {"seconds", "small_epochs", "epochs", "iou", "texture", "layout"}
    assert [(each["small_epochs"], each["epochs"]) for each in (row["paper"], row["tries"][0])] == [(0, 1), (2, 1)]
    assert min(row["paper"]["seconds"], row["tries"][0]["seconds"]) > 0
    assert "seed 0  paper         1 epochs" in done.stdout
    assert "seed 0  sharp     2 + 1 epochs" in done.stdout
    assert re.search(r"^sharp (reaches|did not reach) the scores of paper in", done.stdout, re.MULTILINE)
