"""The script that trains the generator in examples/weights, and the scores of that generator on unseen houses."""

import importlib
import json
import re

import pytest
import torch
from example_runs import EXAMPLES
from PIL import Image
from safetensors.torch import load_file

from imtrans import ProceduralFacades, evaluate, load_pretrained, translate
from imtrans.data.facades.plan import LABELS
from imtrans.files import sha256_of

WEIGHTS = EXAMPLES / "weights" / "facades"
TINY = ["--houses", "6", "--size", "64", "--epochs", "2", "1", "--base-channels", "4", "--device", "cpu"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("train_weights")


@pytest.fixture
def train(script, monkeypatch, tmp_path):
    """Run the script with a tiny segmenter: ``train(name, *flags)`` returns the folder."""
    for name, value in {"HELD_OUT": 4, "SEGMENTER_HOUSES": 4}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setitem(script.SEGMENTER, "epochs", 1)

    def train(name, *flags):
        monkeypatch.setattr("sys.argv", ["train_weights.py", *TINY, "--out", str(tmp_path / name), *map(str, flags)])
        assert script.main(script.run, script.arguments()) == 0
        return tmp_path / name

    return train


def test_the_script_saves_half_precision_with_a_card_of_its_scores(train, capsys):
    folder = train("made")
    assert {path.name for path in folder.iterdir()} == {path.name for path in WEIGHTS.iterdir()}
    tensors = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int64}
    assert tensors["encoder.1.norm.num_batches_tracked"] == 2  # batches of the last pass
    generator = load_pretrained(folder)
    assert (generator.inference_mode, generator.config["upsample"], generator.depth) == ("eval", "nearest", 6)
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in generator.modules())
    card = (folder / "README.md").read_text()
    assert "python train_weights.py --houses 6 --size 64" in card
    assert "6 procedural facades of seed 0 in clear weather" in card
    assert "2 of crops of half the height and width, and 1 of whole pictures" in card
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(printed) == ["l1", "psnr", "swd", "grid", "iou", "iou_of_targets", "generator"]
    val = ProceduralFacades(4, size=64, seed=1, augment=False, weather="clear")
    for name, score in evaluate(generator, val, metrics=("l1", "psnr", "swd", "grid")).items():
        assert float(printed[name]) == pytest.approx(score, rel=1e-3)
        assert f"name: {name}" in card
    with Image.open(folder / "samples.png") as grid:
        assert grid.size == (3 * 64 + 2 * 4, 4 * 64 + 3 * 4)


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(train):
    first, again, other = train("first"), train("again"), train("other", "--seed", 1)
    digests = [sha256_of((folder / "model.safetensors").read_bytes()) for folder in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


# The generator in the repository


@pytest.fixture(scope="module")
def generator():
    return load_pretrained(WEIGHTS)


def test_it_is_a_saved_model_of_at_most_8_mb_that_loads_in_single_precision(generator):
    assert sorted(path.name for path in WEIGHTS.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "samples.png", "source.png",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 8_000_000
    assert {tensor.dtype for tensor in load_file(WEIGHTS / "model.safetensors").values()} == {
        torch.float16,
        torch.int64,
    }
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.float32}
    assert generator.inference_mode == "eval"


def test_its_card_names_the_command_and_every_argument(generator):
    card = (WEIGHTS / "README.md").read_text()
    assert "python examples/train_weights.py --out examples/weights/facades" in card
    assert 'load_pretrained("examples/weights/facades")' in card
    saved = json.loads((WEIGHTS / "config.json").read_text())
    assert saved["arguments"] == json.loads(json.dumps(generator.config))
    assert f"{generator.num_parameters():,} parameters" in card


def test_its_example_is_a_label_map_and_becomes_the_first_picture_of_the_card(generator):
    with Image.open(WEIGHTS / "source.png") as labels, Image.open(WEIGHTS / "samples.png") as samples:
        assert set(labels.convert("RGB").get_flattened_data()) <= set(LABELS.values())
        made = translate(generator, labels)
        assert made.size == labels.size == (256, 256)
        shown = samples.convert("RGB").crop((260, 0, 516, 256))
    difference = torch.tensor(list(made.get_flattened_data())) - torch.tensor(list(shown.get_flattened_data()))
    assert difference.abs().float().mean() < 0.5


@pytest.mark.parametrize("size", [(256, 256), (300, 200)])
def test_a_picture_of_it_depends_on_the_label_map_alone(generator, size):
    source = torch.rand(2, 3, *size) * 2 - 1
    both, alone = translate(generator, source), translate(generator, source[:1])
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=0)
    assert torch.equal(alone, translate(generator, source[:1]))


def test_its_pictures_of_unseen_houses_are_those_of_the_card(generator):
    unseen = ProceduralFacades(20, size=256, seed=1, augment=False, weather="clear")
    scores = evaluate(generator, unseen, metrics=("l1", "grid", "swd"))
    assert scores["grid"] <= 1.1
    card = (WEIGHTS / "README.md").read_text()
    for name, score in scores.items():
        shown = float(re.search(rf"type: {name}\n      value: ([0-9.]+)", card)[1])
        assert score == pytest.approx(shown, rel=0.02)


@pytest.mark.slow
def test_a_segmenter_finds_the_label_map_in_its_pictures_of_unseen_houses(script, generator):
    unseen = ProceduralFacades(10, size=256, seed=5, augment=False, weather="clear")
    device = torch.device("cpu")
    fakes = list(script.translations(generator, unseen, device, "eval"))
    scores = script.segmenter_scores(fakes, unseen, device)
    assert scores["iou_of_targets"] > 0.8
    assert scores["iou"] >= 0.9 * scores["iou_of_targets"]
