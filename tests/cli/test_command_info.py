"""`imtrans info`: what it says of each network is what the network has and does."""

import json
import re

import networks
import pytest
import torch
from authors_server import FACADES, ZEBRA, checkpoint, home_fixture, site_fixture  # noqa: F401
from command_runs import failed, succeeded
from loopback_hub import hub_fixture  # noqa: F401
from torch import nn

from imtrans import (
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    receptive_field,
)
from imtrans.cli.measure import measure
from imtrans.convert.auto import CLASSES
from imtrans.errors import ShapeError
from imtrans.hub.pretrained import Pretrained


def facts_of(name, *flags, **options):
    return json.loads(succeeded("info", name, "--device", "cpu", "--json", *flags, **options))


@pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda cls: cls.__name__)
def test_each_network_is_described(tmp_path, cls):
    network = cls(**networks.SMALL[cls])
    network.save_pretrained(tmp_path / "saved")
    facts = facts_of("saved", "--size", 64, 96, cwd=tmp_path)
    levels = facts["levels"]
    assert facts["class"] == cls.__name__
    assert facts["arguments"] == json.loads(json.dumps(network.config))
    assert facts["parameters"] == sum(level["parameters"] for level in levels) == network.num_parameters()
    assert facts["bytes"] == sum(t.numel() * t.element_size() for t in network.state_dict().values())
    assert (facts["in_channels"], facts["inference_mode"], facts["training"]) == (network.in_channels, "eval", {})
    with torch.no_grad():
        output = network.eval()(torch.zeros(1, network.in_channels, 64, 96))
    last = output[-1] if isinstance(output, list) else output
    assert (facts["out_channels"], levels[-1]["size"]) == (last.shape[1], list(last.shape[2:]))
    expected = getattr(network, "receptive_field", None) or receptive_field(network).size
    assert facts["receptive_field"] == (list(expected) if isinstance(expected, tuple) else expected)
    assert facts["pass"]["size"] == [64, 96]
    assert facts["pass"]["seconds"] > 0
    assert facts["pass"]["bytes"] > 0

    text = succeeded("info", "saved", "--device", "cpu", "--size", 64, 96, cwd=tmp_path)
    assert text.startswith(
        f"saved\n  class            {cls.__name__}, {network.in_channels} -> {last.shape[1]} channels\n"
    )
    rows = re.findall(r"^  (\S+) +\w+ +(\d+) +(\d+)x(\d+) +([\d,]+) +([\w ]+)$", text, re.M)
    assert [(r[0], int(r[1]), [int(r[2]), int(r[3])], int(r[4].replace(",", "")), int(r[5])) for r in rows] == [
        (each["name"], each["channels"], each["size"], each["parameters"], each["receptive_field"]) for each in levels
    ]
    assert "training\n    not recorded\n" in text
    assert "  image   64x96 on cpu (" in text


def test_the_levels_of_a_unet_are_those_of_its_summary(tmp_path):
    network = UNetGenerator(base_channels=4, depth=4, attention=(2,), skips=["add", "concat", "none"])
    network.save_pretrained(tmp_path / "saved")
    facts = facts_of("saved", "--size", 32, cwd=tmp_path)
    levels = {level["name"]: level for level in facts["levels"]}
    decoder = ["decoder.0", "decoder.1", "decoder.2", "head"]
    assert list(levels) == ["encoder.0", "encoder.1", "encoder.2", "attention.2", "encoder.3", *decoder]
    assert [levels[f"encoder.{i}"]["receptive_field"] for i in range(4)] == [4, 10, 22, None]
    assert (levels["attention.2"]["receptive_field"], facts["receptive_field"]) == (None, None)
    assert [level["size"][0] for level in levels.values()] == [16, 8, 4, 4, 2, 4, 8, 16, 32]
    text = succeeded("info", "saved", "--size", 32, "--device", "cpu", cwd=tmp_path)
    assert "  receptive field  whole image\n" in text
    assert "  arguments        base_channels=4, depth=4, skips=('add', 'concat', 'none'), attention=(2,)\n" in text
    assert "  sizes            multiples of 16; others are padded\n" in text


def test_settings_and_the_default_size(tmp_path):
    network = UNetGenerator(1, 2, base_channels=4, depth=2)
    network.colours, network.inference_mode, network.value_range = "lab", "batch_stats", (0, 4095)
    network.save_pretrained(tmp_path / "saved" / "to_source")
    facts = facts_of("saved", "--subfolder", "to_source", cwd=tmp_path)
    assert (facts["name"], facts["inference_mode"]) == ("saved/to_source", "batch_stats")
    assert (facts["colours"], facts["value_range"]) == ("lab", [0, 4095])
    assert "palette" not in facts
    assert facts["pass"]["size"] == [256, 256]
    text = succeeded("info", "saved/to_source", "--device", "cpu", cwd=tmp_path)
    assert "  colours          lab\n  value_range      (0.0, 4095.0)\n" in text


def test_half_precision_is_named_and_measured_in_float32(tmp_path):
    UNetGenerator(base_channels=4, depth=2).half().save_pretrained(tmp_path / "half")
    UNetGenerator(base_channels=4, depth=2).save_pretrained(tmp_path / "whole")
    half, whole = (facts_of(name, "--size", 16, cwd=tmp_path) for name in ("half", "whole"))
    assert (half["dtype"], whole["dtype"]) == ("float16", "float32")
    assert half["bytes"] < 0.6 * whole["bytes"]
    assert half["pass"]["bytes"] == whole["pass"]["bytes"]


def trained(out):
    torch.manual_seed(0)
    method = Pix2Pix(UNetGenerator(base_channels=2, depth=3), PatchDiscriminator(base_channels=2, n_layers=1))
    data = ProceduralFacades(2, size=16)
    trainer = Trainer(method, data, out=out, epochs=2, device="cpu", precision="fp32", config={"recipe": "a|b"})
    trainer.fit()
    return trainer


def test_the_training_is_the_one_of_the_run(tmp_path, hub, monkeypatch):
    trainer = trained(tmp_path / "run")
    facts = facts_of("run/generator", "--size", 16, cwd=tmp_path)
    expected = {"method": "Pix2Pix", "recipe": "a|b", "steps": 4, "epochs": 2, "batch_size": 1, "lr": 0.0002, "seed": 0}
    assert expected.items() <= facts["training"].items()
    assert facts["training"]["data"].startswith("2 procedural facades of seed 0")
    assert facts["inference_mode"] == "batch_stats"
    text = succeeded("info", "run/generator", "--device", "cpu", "--size", 16, cwd=tmp_path)
    assert re.search(r"^training\n  method +Pix2Pix\n  recipe +a\|b\n", text, re.M)

    monkeypatch.setenv("HF_TOKEN", hub.token)
    trainer.push_to_hub("user/facades")
    again = facts_of("user/facades", "--size", 16, cwd=tmp_path)
    assert again["training"] == facts["training"]
    assert facts_of("user/facades", "--subfolder", "discriminator", "--size", 16, cwd=tmp_path)["training"] == {}


@pytest.mark.parametrize("name", [FACADES, ZEBRA])
def test_the_authors_weights(site, name, tmp_path):
    preset = UNetGenerator.preset("junyanz/unet_256", base_channels=2)
    network = preset if name == FACADES else ResnetGenerator.preset("junyanz/resnet_9blocks", base_channels=2)
    site.content = checkpoint(network)
    facts = facts_of(name, "--size", 32, cwd=tmp_path)
    digest = facts["training"].pop("sha256")
    assert facts["training"] == {
        "by": "the authors, https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix",
        "task": "facades" if name == FACADES else "horses and zebras",
        "source": "label map" if name == FACADES else "photo of horses",
        "target": "photo" if name == FACADES else "photo of zebras",
        "file": facts["training"]["file"],
    }
    assert facts["training"]["file"].endswith(f"/{name.rpartition('/')[2]}.pth")
    assert facts["inference_mode"] == ("paper" if name == FACADES else "eval")
    assert facts_of(name, "--size", 32, "--sha256", digest, cwd=tmp_path)["class"] == type(network).__name__
    error = failed("info", name, "--sha256", "0" * 64, cwd=tmp_path)
    assert error.startswith(f"error: {name} in the cache was converted from a file with the SHA-256 {digest}, not 000")


def test_a_card_cannot_write_to_the_terminal(tmp_path):
    UNetGenerator(base_channels=2, depth=2).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_bytes(
        b"# a\n\n## Training\n\n|  |  |\n| --- | --- |\n| a\x1b[2J | \x07b\xff |\n| deep | " + b"[" * 100_000 + b" |\n"
        b"\n## Validation\n\n| mode | l1 |\n| --- | --- |\n| eval | 0.1 |\n"
    )
    text = succeeded("info", "saved", "--size", 16, "--device", "cpu", cwd=tmp_path)
    assert "\ntraining\n  a\\x1b[2J  \\x07b\ufffd\n  deep      [[[[" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "0.1 " not in text.partition("\ntraining\n")[2].partition("\none image\n")[0]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--size", 0], "error: imtrans info: --size must be a whole number >= 1, got 0."),
        (["--size", 16, -2], "error: imtrans info: --size must be a whole number >= 1, got -2."),
        (["--size", 4], "error: PatchDiscriminator: "),
        (["--device", "abacus"], "error: device='abacus' cannot be used here: "),
        (["--subfolder", "none"], "error: saved/none is not a saved model: config.json cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, flags, text):
    PatchDiscriminator(base_channels=2).save_pretrained(tmp_path / "saved")
    assert failed("info", "saved", *flags, cwd=tmp_path).startswith(text)


def test_a_run_folder_and_a_network_of_another_library_are_named(tmp_path):
    trained(tmp_path / "run")
    assert failed("info", "run", cwd=tmp_path) == (
        "error: run is the folder of a training run. Load a network in it: run/generator."
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"library": "imtrans", "module": "torch.nn", "class": "Conv2d"}')
    assert failed("info", "other", cwd=tmp_path).startswith("error: other holds a torch.nn.Conv2d, which is not")


# The measurement


class TwoConvs(Pretrained):
    def __init__(self, width: int = 4):
        super().__init__()
        self.in_channels = 1
        self.wide, self.narrow = nn.Conv2d(1, width, 1), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.narrow(self.wide(x).tanh())


def test_the_memory_is_the_largest_sum_of_living_tensors():
    pixels = 16 * 16 * 4  # bytes of a channel
    found = measure(TwoConvs(), torch.zeros(1, 1, 16, 16))
    assert found.bytes == 8 * pixels  # tanh: its input and its output, of 4 channels each
    assert list(map(tuple, found.shapes.values())) == [(1, 4, 16, 16), (1, 2, 16, 16), (1, 2, 16, 16)]
    assert measure(TwoConvs(), torch.zeros(1, 1, 32, 16)).bytes == 16 * pixels
    assert measure(TwoConvs(width=8), torch.zeros(1, 1, 16, 16)).bytes == 16 * pixels
    assert measure(TwoConvs().half(), torch.zeros(1, 1, 16, 16).half()).bytes == 4 * pixels


def test_a_measurement_leaves_the_network_as_it_is():
    network = UNetGenerator(base_channels=2, depth=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert measure(network, torch.randn(1, 3, 16, 16)).seconds > 0
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(ShapeError):
        measure(network, torch.randn(1, 2, 16, 16))
    assert not any(module._forward_hooks for module in network.modules())


def test_too_large_an_image_is_an_error(tmp_path, monkeypatch):
    UNetGenerator(base_channels=2, depth=2).save_pretrained(tmp_path / "saved")

    def exhausted(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("imtrans.cli.measure._memory", exhausted)
    error = failed("info", "saved", "--size", 512, "--device", "cpu", cwd=tmp_path)
    assert (
        error == "error: imtrans info: an image of 512x512 is too large for the memory of cpu. Give a smaller --size."
    )
