"""What a training run gives to the world."""

import copy
import json

import pytest
import torch
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from torch import nn
from torch.optim import SGD

from imtrans import (
    PatchDiscriminator,
    Pix2Pix,
    PixelDiscriminator,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    load_pretrained,
)
from imtrans.errors import HubError, SavedModelError
from imtrans.methods import Translation
from imtrans.training import publish as room
from imtrans.training.publish import TrainingSummary, publish, save_method

WITH_PICTURES = ["README.md", "config.json", "model.safetensors", "samples.png", "source.png"]
WITHOUT = ["README.md", "config.json", "model.safetensors"]


def generator():
    return UNetGenerator(base_channels=2, depth=2)


def columns(source=3, fake=3):
    return {"source": torch.zeros(2, source, 8, 8), "fake": torch.ones(2, fake, 8, 8)}


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def small(out=None, *, data=True, discriminator=True):
    torch.manual_seed(3)
    critic = PatchDiscriminator(6, base_channels=4, n_layers=1) if discriminator else None
    facades = ProceduralFacades(3, size=16, augment=False) if data else None
    return Trainer(
        Pix2Pix(UNetGenerator(base_channels=4, depth=3), critic), facades, val_data=facades, out=out, epochs=1,
        device="cpu", precision="fp32", progress=False,
    )  # fmt: skip


class TwoWays(nn.Module):
    """A method with a translator for each direction, one of them a plain module's child."""

    def __init__(self):
        super().__init__()
        self.there, self.back = generator(), ResnetGenerator(base_channels=2, num_blocks=0)
        self.critic = PixelDiscriminator(3, base_channels=2)
        self.other = nn.Linear(1, 1)

    def make_optimizers(self, lr, betas):
        return {"all": SGD(self.parameters(), lr=lr)}

    def step(self, batch, optimizers):
        return {"loss": self.there(batch["picture"]).mean().detach()}

    def translations(self):
        return (Translation("there", self.there), Translation("back", self.back, "target", "back", "source"))


class Nothing(TwoWays):
    def __init__(self):
        nn.Module.__init__(self)
        self.there = nn.Conv2d(3, 3, 1)

    def translations(self):
        return ()


# One network


@pytest.mark.parametrize(
    ("shown", "files"),
    [
        (None, WITHOUT),
        ({}, WITHOUT),
        (columns(), WITH_PICTURES),
        (columns(1, 3), WITH_PICTURES),
        (columns(2, 3), WITHOUT),
        (columns(3, 4), WITHOUT),
        ({"fake": torch.zeros(1, 3, 8, 8)}, WITHOUT),
    ],
)
def test_pictures_are_there_where_there_are_some(tmp_path, shown, files):
    publish(tmp_path / "g", generator(), TrainingSummary({}, columns=shown))
    assert names(tmp_path / "g") == files
    assert ("samples.png" in (tmp_path / "g" / "README.md").read_text()) is (files == WITH_PICTURES)


def test_the_pictures_are_a_source_and_the_rows(tmp_path):
    publish(tmp_path, generator(), TrainingSummary({}, columns=columns(source=1)))
    with Image.open(tmp_path / "source.png") as source, Image.open(tmp_path / "samples.png") as samples:
        assert source.size == (8, 8)
        assert samples.size == (2 * 8 + 4, 2 * 8 + 4)


def test_the_card_is_of_the_folder_or_of_the_repo(tmp_path):
    publish(tmp_path, generator(), TrainingSummary({}))
    assert f"# {tmp_path.as_posix()}\n" in (tmp_path / "README.md").read_text()
    publish(tmp_path, generator(), TrainingSummary({}), repo_id="user/repo")
    assert "# user/repo\n" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("room_of", ["to_image", "write_atomic"])
def test_a_full_disk(tmp_path, monkeypatch, room_of):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, room_of, full)
    with pytest.raises(SavedModelError) as caught:
        publish(tmp_path, generator(), TrainingSummary({}, columns=columns()))
    assert str(caught.value) == (
        f"{tmp_path} cannot be written: No space left on device. Make room, or choose another folder."
    )


# A method


def test_one_product_is_the_root_and_the_rest_are_subfolders(tmp_path):
    method = Pix2Pix(generator(), PatchDiscriminator(6, base_channels=2))
    save_method(tmp_path, "user/repo", method, TrainingSummary({}, columns=columns()))
    assert names(tmp_path) == [
        *WITH_PICTURES[:2], "discriminator/config.json", "discriminator/model.safetensors", *WITH_PICTURES[2:]
    ]  # fmt: skip


def test_several_products_are_subfolders(tmp_path):
    save_method(tmp_path, "user/repo", TwoWays(), TrainingSummary({}))
    assert names(tmp_path) == sorted(
        [
            "README.md",
            *(f"critic/{file}" for file in WITHOUT[1:]),
            *(f"{name}/{file}" for name in ("back", "there") for file in WITHOUT),
        ]
    )
    card = (tmp_path / "README.md").read_text()
    assert "| [there](there) | `UNetGenerator` |\n| [back](back) | `ResnetGenerator` |\n| [critic](critic) |" in card
    assert "# user/repo\n" in card
    assert "# user/repo/there\n" in (tmp_path / "there" / "README.md").read_text()


def test_each_network_has_the_picture_of_its_translation_s_source(tmp_path):
    shown = {name: torch.full((1, 3, 8, 8), value) for name, value in (("source", 0), ("target", 1), ("there", -1))}
    save_method(tmp_path, "user/repo", TwoWays(), TrainingSummary({}, columns=shown))
    for name, value in {"there": 128, "back": 255}.items():
        with Image.open(tmp_path / name / "source.png") as source:
            assert source.getpixel((0, 0)) == (value, value, value)
        assert "![source, target, there](samples.png)" in (tmp_path / name / "README.md").read_text()
    publish(tmp_path / "other", generator(), TrainingSummary({}, columns=shown), source="b")
    assert names(tmp_path / "other") == WITHOUT


def test_nothing_that_can_be_saved(hub, tmp_path):
    text = (
        "Nothing has no network that can be saved: none of its children is a network of imtrans, or derives from "
        "imtrans.hub.pretrained.Pretrained. Use one that does, or save tensors with safetensors."
    )
    with pytest.raises(SavedModelError) as caught:
        save_method(tmp_path, "user/repo", Nothing(), TrainingSummary({}))
    assert str(caught.value) == text
    with pytest.raises(SavedModelError) as caught:
        Trainer(Nothing(), None, out=None, device="cpu").push_to_hub("user/repo", token=hub.token)
    assert str(caught.value) == text
    assert hub.requests == []


# A run


def test_a_run_folder_has_what_goes_to_the_hub(tmp_path):
    small(tmp_path).fit()
    assert names(tmp_path / "generator") == WITH_PICTURES
    card = (tmp_path / "generator" / "README.md").read_text()
    assert f'load_pretrained("{tmp_path.as_posix()}/generator")' in card
    for word in ("| method | Pix2Pix |", "| steps | 3 |", "| mode | l1 | psnr |", "![source, output, target]"):
        assert word in card


def test_a_run_is_pushed_and_comes_back(hub):
    trainer = small()
    trainer.fit()
    assert trainer.push_to_hub("user/repo", token=hub.token) == f"{hub.endpoint}/user/repo"
    assert sorted(hub.files("user/repo")) == [
        *WITH_PICTURES[:2], "discriminator/config.json", "discriminator/model.safetensors", *WITH_PICTURES[2:]
    ]  # fmt: skip
    made, critic = load_pretrained("user/repo"), load_pretrained("user/repo", subfolder="discriminator")
    assert made.inference_mode == trainer.validation["best"]
    trainer.method.eval()
    images = torch.rand(2, 6, 16, 16)
    assert torch.equal(made(images[:, :3]), trainer.method.generator(images[:, :3]))
    assert torch.equal(critic(images), trainer.method.discriminator(images))


def test_an_unchanged_run_makes_no_commit(hub):
    trainer = small()
    trainer.fit()
    trainer.push_to_hub("user/repo", token=hub.token)
    torch.manual_seed(99)
    trainer.push_to_hub("user/repo", token=hub.token)
    assert len(hub.commits("user/repo")) == 2
    trainer.train_step({"source": torch.rand(1, 3, 16, 16) * 2 - 1, "target": torch.rand(1, 3, 16, 16) * 2 - 1})
    trainer.push_to_hub("user/repo", token=hub.token)
    assert len(hub.commits("user/repo")) == 3


def test_a_push_leaves_the_run_as_it_was(hub):
    trainer = small()
    trainer.fit()
    before = copy.deepcopy(list(trainer.method.parameters()) + list(trainer.method.buffers()))
    trainer.push_to_hub("user/repo", token=hub.token)
    after = [*trainer.method.parameters(), *trainer.method.buffers()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(module.training for module in trainer.method.modules())


def test_a_private_branch(hub):
    small().push_to_hub("user/repo", token=hub.token, private=True, revision="dev")
    assert hub.repo("user/repo").private
    assert hub.files("user/repo") == {}
    assert isinstance(load_pretrained("user/repo", revision="dev", token=hub.token), UNetGenerator)


@pytest.mark.parametrize("discriminator", [True, False])
def test_a_run_without_data_has_no_pictures(hub, discriminator):
    small(data=False, discriminator=discriminator).push_to_hub("user/repo", token=hub.token)
    critic = ["discriminator/config.json", "discriminator/model.safetensors"] if discriminator else []
    assert sorted(hub.files("user/repo")) == [*WITHOUT[:2], *critic, WITHOUT[2]]


def test_a_run_with_several_products_and_no_source(hub, tmp_path):
    data = [{"picture": torch.zeros(3, 8, 8)}]
    trainer = Trainer(TwoWays(), data, out=tmp_path, epochs=1, device="cpu", precision="fp32", progress=False)
    trainer.fit()
    for name in ("there", "back"):
        assert names(tmp_path / name) == WITHOUT
    trainer.push_to_hub("user/repo", token=hub.token)
    for name, network in {"there": trainer.method.there, "critic": trainer.method.critic}.items():
        loaded = load_pretrained("user/repo", subfolder=name)
        assert type(loaded) is type(network)
        assert json.loads(hub.files("user/repo")[f"{name}/config.json"])["class"] == type(network).__name__


def test_a_push_that_is_refused_says_so(hub):
    with pytest.raises(HubError, match=r"^user/repo: the token is missing or invalid"):
        small().push_to_hub("user/repo")
