"""Model cards: metadata that the Hub reads, tables, and code that runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from processes import environment

from imtrans import (
    HugGANGenerator,
    LocalEnhancer,
    PatchDiscriminator,
    Pix2Pix,
    PixelDiscriminator,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
)
from imtrans.hub.model_card import model_card, training_in
from imtrans.hub.pretrained import Pretrained

VALIDATION = {
    "eval": {"l1": 0.123456, "psnr": 12.3456},
    "batch_stats": {"l1": 0.1, "psnr": 13.0},
    "paper": {"l1": 0.11, "psnr": 12.0},
    "best": "batch_stats",
}
NETWORKS = {
    "unet": lambda: UNetGenerator(base_channels=2, depth=2),
    "resnet": lambda: ResnetGenerator(5, 2, base_channels=2, num_blocks=1),
    "enhancer": lambda: LocalEnhancer(base_channels=2, num_blocks=0, global_blocks=0, global_downs=1),
    "huggan": lambda: HugGANGenerator(base_channels=2, depth=4),
    "patch": lambda: PatchDiscriminator(4, base_channels=2, n_layers=1),
    "pixel": lambda: PixelDiscriminator(base_channels=2),
}


def front_matter(card):
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(matter)


def snippet(card):
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    return code


def table(card, heading):
    """The cells of the table under a heading."""
    part = card.split(f"## {heading}\n\n")[1].split("\n\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def card_of(network, name="user/repo", **options):
    return model_card(name, network.description(), network.num_parameters(), **options)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_front_matter_is_what_the_hub_reads(kind):
    network = NETWORKS[kind]()
    assert front_matter(card_of(network)) == {
        "library_name": "imtrans",
        "pipeline_tag": "image-to-image",
        "tags": ["imtrans", "image-to-image", type(network).__name__],
    }


def test_a_whole_card():
    network = UNetGenerator(base_channels=2, depth=1)
    network.inference_mode = "paper"
    card = card_of(
        network, training={"data": "400 facades", "lr": 2e-4}, validation=VALIDATION, columns="source, output"
    )
    matter, rest = card.split("---\n\n")
    assert yaml.safe_load(matter.removeprefix("---"))["model-index"] == [
        {
            "name": "user/repo",
            "results": [
                {
                    "task": {"type": "image-to-image"},
                    "dataset": {"name": "Validation data of the training run", "type": "validation"},
                    "metrics": [
                        {"type": "l1", "name": "l1", "value": 0.11},
                        {"type": "psnr", "name": "psnr", "value": 12.0},
                    ],
                }
            ],
        }
    ]
    start, end = rest.split("## Architecture")
    assert start == (
        "# user/repo\n\nA `UNetGenerator` with 195 parameters, made with imtrans.\n\n"
        "![source, output](samples.png)\n\n"
        "```python\n"
        "from huggingface_hub import hf_hub_download\n"
        "from imtrans import load_pretrained, translate\n\n"
        'generator = load_pretrained("user/repo")\n'
        'picture = hf_hub_download("user/repo", "source.png")  # or one of your own\n'
        'translate(generator, picture).save("output.png")\n'
        "```\n\n"
        "Its default inference mode is `paper`.\n\n"
    )
    assert end.endswith(
        "## Training\n\n|  |  |\n| --- | --- |\n| data | 400 facades |\n| lr | 0.0002 |\n\n"
        "## Validation\n\nMeans over images in [0, 1]; PSNR in dB.\n\n"
        "| mode | l1 | psnr |\n| --- | --- | --- |\n| eval | 0.1235 | 12.35 |\n| batch_stats | 0.1 | 13 |\n"
        "| paper | 0.11 | 12 |\n"
    )


def test_a_card_says_what_the_sliced_wasserstein_distance_is():
    card = card_of(NETWORKS["unet"](), validation={"eval": {"to_target_l1": 0.5, "to_target_swd": 61.56}})
    assert "PSNR in dB. swd: sliced Wasserstein distance, lower is better.\n\n| mode |" in card
    assert "| eval | 0.5 | 61.56 |" in card


def test_numbers_that_json_does_not_have_are_left_out_of_the_metadata():
    card = card_of(NETWORKS["unet"](), validation={"eval": {"l1": float("nan"), "psnr": 9.5}, "best": "eval"})
    (result,) = front_matter(card)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "psnr", "name": "psnr", "value": 9.5}]
    assert ["eval", "nan", "9.5"] in table(card, "Validation")
    assert "model-index" not in front_matter(card_of(NETWORKS["unet"](), validation={"eval": {"l1": float("inf")}}))


def test_without_training_validation_and_pictures_there_is_nothing_of_them():
    card = card_of(NETWORKS["unet"]())
    for word in ("## Training", "## Validation", "![", "samples.png", "source.png"):
        assert word not in card


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_argument_is_in_the_table(kind):
    network = NETWORKS[kind]()
    head, line, *rows = table(card_of(network), "Architecture")
    assert (head, line) == (["argument", "value"], ["---", "---"])
    assert [row[0] for row in rows] == list(network.config)
    assert ["base_channels", "2"] in rows
    assert ["bias", "null"] in rows or kind == "huggan"  # it has no such argument


def test_cells_escape_what_would_break_a_table():
    card = card_of(NETWORKS["unet"](), training={"a|b": "one | two\nthree", "path": Path("x|y"), "list": [1, "|"]})
    assert table(card, "Training")[2:] == [
        ["a\\|b", "one \\| two three"],
        ["path", '"x\\|y"'],
        ["list", '[1, "\\|"]'],
    ]


def test_a_network_of_ones_own_needs_no_channels():
    class MyGenerator(Pretrained):
        def __init__(self, width=1):
            super().__init__()

    assert snippet(card_of(MyGenerator())) == (
        'from imtrans import load_pretrained\n\nnetwork = load_pretrained("user/repo")'
    )


# The code runs


def run(card, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(snippet(card), names)
    return names


def trainer_of(out, generator=None, *, channels=3):
    generator = generator or UNetGenerator(channels, 3, base_channels=4, depth=3)
    method = Pix2Pix(generator, PatchDiscriminator(channels + 3, base_channels=4, n_layers=1))
    facades = ProceduralFacades(2, size=16, augment=False)
    data = [{"source": pair["source"][:channels], "target": pair["target"]} for pair in facades]
    return Trainer(
        method, data, val_data=data, out=out, epochs=1, device="cpu", precision="fp32", progress=False
    )  # fmt: skip


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_code_runs_after_a_push_of_a_network(hub, tmp_path, monkeypatch, kind):
    network = NETWORKS[kind]().eval()
    network.push_to_hub("user/repo", token=hub.token)
    names = run(hub.files("user/repo")["README.md"].decode(), tmp_path, monkeypatch)
    if kind in ("unet", "resnet", "enhancer", "huggan"):
        assert names["output"].shape == (network.out_channels, 256, 256)
        assert names["source"].shape == (network.in_channels, 256, 256)
    else:
        assert type(names["network"]) is type(network)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_runs_after_a_push_of_a_training_run(hub, tmp_path, monkeypatch, channels):
    trainer = trainer_of(None, channels=channels)
    trainer.fit()
    trainer.push_to_hub("user/repo", token=hub.token)
    card = hub.files("user/repo")["README.md"].decode()
    run(card, tmp_path, monkeypatch)
    with Image.open(tmp_path / "output.png") as output:
        assert (output.size, output.mode) == ((16, 16), "RGB")
    assert [row[0] for row in table(card, "Validation")[2:]] == ["eval", "batch_stats", "paper"]
    assert ["steps", "2"] in table(card, "Training")
    assert ["method", "Pix2Pix"] in table(card, "Training")
    assert f"Its default inference mode is `{trainer.validation['best']}`." in card
    (result,) = front_matter(card)["model-index"][0]["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics == trainer.validation[trainer.validation["best"]]


def test_channels_that_make_no_picture_leave_the_pictures_out(hub, tmp_path, monkeypatch):
    trainer = trainer_of(None, channels=2)
    trainer.fit()
    trainer.push_to_hub("user/repo", token=hub.token)
    assert not [name for name in hub.files("user/repo") if name.endswith(".png")]
    names = run(hub.files("user/repo")["README.md"].decode(), tmp_path, monkeypatch)
    assert names["output"].shape == (3, 256, 256)


@pytest.mark.parametrize("out", ["runs/mine", "mine", 'odd "name" of \\ a run'])
def test_the_code_runs_beside_a_run_folder(tmp_path, monkeypatch, out):
    """Whether or not the folder has the form of a repo."""
    monkeypatch.chdir(tmp_path)
    trainer_of(out).fit()
    run((Path(out) / "generator" / "README.md").read_text(), tmp_path, monkeypatch)
    with Image.open(tmp_path / "output.png") as output:
        assert output.size == (16, 16)


def test_a_card_needs_no_network():
    code = (
        "import socket, sys, imtrans\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from imtrans.hub.model_card import model_card\n"
        "network = imtrans.PixelDiscriminator(base_channels=2)\n"
        "print(model_card('a', network.description(), 1, validation={'eval': {'l1': 0.5}}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert front_matter(done.stdout)["model-index"][0]["name"] == "a"


def test_the_random_state_is_left_alone_by_a_push(hub):
    trainer = trainer_of(None)
    state = torch.get_rng_state()
    trainer.push_to_hub("user/repo", token=hub.token)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_training_can_be_read_from_a_card():
    training = {"data": "400 facades | \u00e4", "lr": 2e-4, "steps": 5, "betas": [0.5, 0.999], "ema": None, "on": True}
    card = card_of(NETWORKS["unet"](), training=training, validation=VALIDATION)
    assert training_in(card) == training
    assert training_in(card_of(NETWORKS["unet"](), validation=VALIDATION)) == {}
    assert training_in("") == {}
