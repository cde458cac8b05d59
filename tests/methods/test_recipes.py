"""Recipes: what each sets, that each trains, and that a run names its recipe."""

import json
import re

import pytest
import torch

from imtrans import (
    Colorization,
    CycleGAN,
    DerivedPairs,
    GANLoss,
    Inpainting,
    LabFacades,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    UnpairedFacades,
    init_net,
    load_pretrained,
    recipe,
)
from imtrans.errors import ArgumentError
from imtrans.hub.saved_model import CONFIG
from imtrans.methods.recipes import RECIPES

DATA = {
    Pix2Pix: ProceduralFacades,
    Colorization: LabFacades,
    Inpainting: lambda length, size: DerivedPairs(ProceduralFacades(length, size=size), "holes"),
    CycleGAN: UnpairedFacades,
}
EVERY = [(name, method) for name, methods in RECIPES.items() for method in methods]


def same_weights(a, b):
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_paper_recipe_of_pix2pix_is_the_defaults_of_the_classes():
    method, arguments = recipe("paper", size=64, base_channels=8, seed=3, device="cpu")
    generator = init_net(UNetGenerator(base_channels=8, depth=6), "cpu", seed=3)
    discriminator = init_net(PatchDiscriminator(6, base_channels=8), "cpu", seed=4)
    assert same_weights(method, Pix2Pix(generator, discriminator))
    assert method.settings() == Pix2Pix(generator, discriminator).settings()
    assert method.generator.config == generator.config
    assert method.discriminator.config == discriminator.config
    defaults = {"lr": 2e-4, "betas": (0.5, 0.999), "lr_policy": "linear", "batch_size": 1, "seed": 3}
    assert arguments == {**defaults, "config": {"recipe": "paper"}}


def test_the_paper_recipe_of_cyclegan_is_the_defaults_of_the_classes():
    method, _ = recipe("paper", CycleGAN, size=64, base_channels=4, seed=3, device="cpu")
    to_target, to_source = (
        init_net(ResnetGenerator(num_blocks=6, base_channels=4), "cpu", seed=seed) for seed in (3, 4)
    )
    critics = [init_net(PatchDiscriminator(3, base_channels=4, norm="instance"), "cpu", seed=seed) for seed in (5, 6)]
    same = CycleGAN(to_target, to_source, target_discriminator=critics[0], source_discriminator=critics[1])
    assert same_weights(method, same)
    assert method.settings() == same.settings()


def test_the_sharp_recipe_of_pix2pix():
    method, _ = recipe("sharp", size=(64, 128), base_channels=8, in_channels=2, out_channels=1, device="cpu")
    assert method.generator.config | {"upsample": "nearest", "depth": 6} == method.generator.config
    assert (method.generator.in_channels, method.generator.out_channels) == (2, 1)
    assert method.discriminator.config | {"spectral_norm": True, "in_channels": 3} == method.discriminator.config
    expected = {**GANLoss("vanilla").settings(), "gan_weight": 1.0, "l1_weight": 100.0, "feature_weight": 10.0}
    assert method.settings() | expected == method.settings()


@pytest.mark.parametrize(("size", "depth", "blocks"), [(255, 7, 6), (256, 8, 9), (512, 8, 9), (32, 5, 6)])
def test_the_depth_follows_the_size(size, depth, blocks):
    assert recipe("sharp", size=size, base_channels=1, device="cpu").method.generator.depth == depth
    cyclegan = recipe("paper", CycleGAN, size=size, base_channels=1, device="cpu").method
    assert cyclegan.to_target.config["num_blocks"] == blocks


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_each_recipe_trains_and_its_run_names_it(tmp_path, name, method):
    data = DATA[method](4, size=32)
    made = recipe(name, method, size=32, base_channels=4, device="cpu")
    assert type(made.method) is method
    before = {key: weight.clone() for key, weight in made.method.named_parameters()}
    Trainer(
        made.method, data, out=tmp_path, epochs=1, sample_every=4, device="cpu", progress=False, **made.trainer
    ).fit()
    trained = [key for key, weight in made.method.named_parameters() if not torch.equal(weight, before[key])]
    assert any("generator" in key or "to_target" in key for key in trained)
    assert any("discriminator" in key for key in trained)
    assert json.loads((tmp_path / CONFIG).read_text())["recipe"] == name
    assert f">{name}<" in re.sub(r"\s+", "", (tmp_path / "index.html").read_text())
    for translation in made.method.translations():
        folder = tmp_path / translation.name
        assert f"| recipe | {name} |" in (folder / "README.md").read_text()
        assert same_weights(load_pretrained(folder), made.method.get_submodule(translation.name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sharpe"}, "recipe: name='sharpe' is not one of ['paper', 'sharp']. Did you mean 'sharp'?"),
        ({"name": "sharp", "size": 3}, "recipe: size must be a whole number >= 4, got 3."),
        (
            {"name": "sharp", "method": torch.nn.Linear},
            "recipe 'sharp' is for Pix2Pix, Colorization, Inpainting, got the method 'Linear'.",
        ),
        (
            {"name": "paper", "method": "cyclegan"},
            "is for Pix2Pix, Colorization, Inpainting, CycleGAN, got the method 'cyc",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        recipe(**arguments)
