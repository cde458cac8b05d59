import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imtrans import (
    DerivedPairs,
    Inpainting,
    PatchDiscriminator,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    Translator,
    UNetGenerator,
    evaluate,
    init_net,
    load_pretrained,
    translate,
)
from imtrans.colours import fill_holes, split_holes
from imtrans.errors import ArgumentError, ShapeError
from imtrans.methods.base import sample_columns


def unet():
    return init_net(UNetGenerator(4, 3, base_channels=4, depth=3), "cpu", seed=0)


@pytest.fixture
def generator():
    network = unet()
    network.colours = "rgba"
    return network.eval()


def patch(in_channels=7):
    return init_net(PatchDiscriminator(in_channels, base_channels=4, n_layers=1), "cpu", seed=1)


def holes(length=2, **settings):
    return DerivedPairs(ProceduralFacades(length, size=16, **settings), "holes")


def batch_of(data):
    samples = [data[i] for i in range(len(data))]
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_known_pixels_are_the_source_s_and_holes_the_generator_s():
    image = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    source, rgb = split_holes(image)
    hole = (image[:, 3:] <= 0).expand(-1, 3, -1, -1)
    assert torch.equal(rgb, image[:, :3])
    assert (source[:, :3][hole] == 0).all()
    assert torch.equal(source[:, :3][~hole], rgb[~hole])
    assert torch.equal(source[:, 3:], torch.where(image[:, 3:] > 0, 1.0, -1.0))
    output = torch.rand(2, 3, 8, 8)
    filled = fill_holes(source, output)
    assert torch.equal(filled[hole], output[hole])
    assert torch.equal(filled[~hole], rgb[~hole])
    assert torch.equal(split_holes(source)[0], source)


# Training


def test_the_losses_see_the_source_around_the_holes():
    batch, made = batch_of(holes()), Inpainting(unet(), patch())
    known = (batch["source"][:, 3:] > 0).expand(-1, 3, -1, -1)
    fake = made.translated(batch["source"])
    assert torch.equal(fake[known], batch["target"][known])
    made.generator.train()
    losses = made.step(batch, made.make_optimizers(1e-3, (0.5, 0.999)))
    assert list(losses) == ["D_fake", "D_real", "G_gan", "G_l1"]
    batch = {**batch, "target": torch.where(known, batch["source"][:, :3], batch["target"])}
    made = Inpainting(unet(), None)
    made.generator.eval()
    output = made.generator(batch["source"])
    expected = 1000 * (output - batch["target"]).abs()[~known].sum() / known.numel()
    torch.testing.assert_close(made.step(batch, made.make_optimizers(0.0, (0.5, 0.999)))["G_l1"], expected.detach())


def test_no_gradient_comes_from_known_pixels():
    batch, made = batch_of(holes()), Inpainting(unet(), None)
    fake = made.translated(batch["source"])
    output = made.generator(batch["source"]).detach().requires_grad_()
    fill_holes(batch["source"], output).sum().backward()
    assert torch.equal(output.grad, (batch["source"][:, 3:] < 0).float().expand_as(output))
    assert fake.requires_grad


def test_its_pictures_are_rgb():
    batch, made = batch_of(holes(augment=False)), Inpainting(unet(), patch()).eval()
    columns = sample_columns(made, batch)
    assert {name: column.shape for name, column in columns.items()} == dict.fromkeys(
        ["source", "fake", "target"], (2, 3, 16, 16)
    )
    assert torch.equal(columns["source"], batch["source"][:, :3])
    assert torch.equal(columns["target"], batch["target"])
    with torch.no_grad():
        assert torch.equal(columns["fake"], made.translated(batch["source"]))


@pytest.mark.parametrize("channels", [(3, 3), (4, 4)])
def test_a_generator_of_other_channels_is_refused(channels):
    with pytest.raises(ArgumentError) as caught:
        Inpainting(UNetGenerator(*channels, base_channels=2, depth=2), None)
    assert str(caught.value) == (
        "UNetGenerator: colours='rgba' is for a network from 4 channels (red and green and blue and alpha) to 3 "
        f"(red and green and blue), and this one has in_channels={channels[0]}, out_channels={channels[1]}. Build it "
        "with 4 and 3."
    )


def test_a_run_learns_resumes_and_leaves_a_generator_that_keeps_pixels(tmp_path):
    def small(out, **settings):
        val = holes(2, seed=1, augment=False)
        data = holes(4, augment=False)
        settings = {"epochs": 8, "device": "cpu", "progress": False, "precision": "fp32", "lr": 2e-3} | settings
        return Trainer(Inpainting(unet(), patch()), data, val_data=val, out=out, **settings)

    trainer = small(tmp_path / "run", log_every=4)
    validation = trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    l1 = [line["losses"]["G_l1"] for line in lines if line["kind"] == "train"]
    assert np.mean(l1[-2:]) < 0.8 * l1[0]

    generator = load_pretrained(tmp_path / "run" / "generator")
    assert (generator.colours, generator.inference_mode) == ("rgba", validation["best"])
    val = holes(2, seed=1, augment=False)
    scores = evaluate(generator, val, metrics=("l1",))
    grey = [(s["target"] - s["source"][:3]).abs().mean().item() / 2 for s in (val[0], val[1])]
    assert scores["l1"] == pytest.approx(validation[validation["best"]]["l1"])
    assert 0 < scores["l1"] < np.mean(grey)
    card = (tmp_path / "run" / "generator" / "README.md").read_text()
    assert "It fills the transparent part of a picture, and keeps the other pixels." in card
    assert "torch.zeros(4, 256, 256)" in card
    assert not (tmp_path / "run" / "generator" / "source.png").exists()
    assert (tmp_path / "run" / "generator" / "samples.png").is_file()

    small(tmp_path / "part", epochs=2, max_steps=3).fit()
    resumed, whole = small(tmp_path / "part", epochs=2), small(None, epochs=2)
    resumed.fit(resume=True)
    whole.fit()
    assert all(torch.equal(a, b) for a, b in zip(whole.method.parameters(), resumed.method.parameters(), strict=True))


# Translating


@given(height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99))
def test_known_pixels_come_back_exactly(height, width, seed):
    network = unet()
    network.colours = "rgba"
    rgba = noise(height, width, 4, seed=seed)
    made = translate(network, rgba)
    assert (made.shape, made.dtype) == ((height, width, 3), np.uint8)
    known = rgba[..., 3] > 127
    assert np.array_equal(made[known], rgba[known][:, :3])


def test_what_a_file_has_where_it_is_transparent_does_not_matter(generator):
    rgba = noise(24, 24, 4)
    rgba[..., 3] = 255
    rgba[5:15, 6:20, 3] = 0
    other = rgba.copy()
    other[5:15, 6:20, :3] = 7
    made = translate(generator, rgba)
    assert np.array_equal(translate(generator, other), made)
    source, _ = split_holes(torch.from_numpy(rgba).permute(2, 0, 1)[None] / 127.5 - 1)
    with torch.no_grad():
        output = generator(source)[0].permute(1, 2, 0)[5:15, 6:20]
    assert np.abs(made[5:15, 6:20] - ((output + 1) * 127.5).numpy()).max() <= 0.51


def test_every_kind_of_picture(generator, tmp_path):
    rgba = noise(20, 30, 4)
    image = Image.fromarray(rgba)
    image.save(tmp_path / "holes.png")
    expected = translate(generator, rgba)
    for given_ in (image, tmp_path / "holes.png"):
        made = translate(generator, given_)
        assert (made.mode, made.size) == ("RGB", (30, 20))
        assert np.array_equal(np.asarray(made), expected)
    tensor = torch.from_numpy(rgba).permute(2, 0, 1) / 127.5 - 1
    assert np.abs((translate(generator, tensor).permute(1, 2, 0).numpy() + 1) * 127.5 - expected).max() <= 0.51
    assert translate(generator, tensor[None].half()).dtype == torch.float16
    opaque = image.convert("RGB")
    assert np.array_equal(np.asarray(translate(generator, opaque)), np.asarray(opaque))
    palette = Image.fromarray(noise(20, 30) % 4, "P")
    palette.putpalette([0, 0, 0, 90, 0, 0, 0, 90, 0, 0, 0, 90])
    palette.info["transparency"] = 1
    known = np.asarray(palette) != 1
    made = np.asarray(translate(generator, palette))
    assert np.array_equal(made[known], np.asarray(palette.convert("RGB"))[known])
    assert (made[~known] != (90, 0, 0)).any(axis=1).all()


@pytest.mark.parametrize("owner", ["translate", "Translator"])
def test_other_channels_are_refused(generator, owner):
    call = Translator(generator) if owner == "Translator" else lambda picture: translate(generator, picture)
    for picture in (torch.zeros(3, 9, 9), np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)):
        with pytest.raises(ShapeError) as caught:
            call(picture)
        assert str(caught.value) == (
            f"{owner}: the generator fills the holes of an image of 4 channels (RGBA, whose alpha is 0 in the holes), "
            f"got shape {tuple(picture.shape)}."
        )


def test_a_translator_tiles_and_bf16_keep_pixels():
    network = init_net(ResnetGenerator(4, 3, base_channels=4, num_blocks=1), "cpu")
    network.colours = "rgba"
    rgba = noise(70, 80, 4)
    known = rgba[..., 3] > 127
    whole = translate(network, rgba)
    made = {
        "tiles": translate(network, rgba, tile=64),
        "bf16": translate(network, rgba, precision="bf16"),
        "translator": Translator(network, compile=False)(rgba),
    }
    assert all(np.array_equal(each[known], rgba[known][:, :3]) for each in made.values())
    assert np.abs(made["tiles"].astype(int) - whole).max() <= 1
    assert np.abs(made["translator"].astype(int) - whole).max() <= 1
    assert not np.array_equal(made["bf16"], whole)


def test_saved_it_still_keeps_pixels(generator, tmp_path):
    generator.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["colours"] == "rgba"
    assert np.array_equal(
        translate(load_pretrained(tmp_path), noise(20, 30, 4)), translate(generator, noise(20, 30, 4))
    )
