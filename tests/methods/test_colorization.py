import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from torch import nn

from imtrans import (
    Colorization,
    LabFacades,
    PatchDiscriminator,
    Pix2Pix,
    ResnetGenerator,
    Trainer,
    Translator,
    UNetGenerator,
    evaluate,
    init_net,
    load_pretrained,
    running_as,
    translate,
)
from imtrans.colours import join_lab, rgb_to_lab, split_lab
from imtrans.data.images import to_image
from imtrans.errors import ArgumentError, SavedModelError, ShapeError
from imtrans.methods.base import sample_columns

ROUNDING = 0.3
"""The most that 8 bit change a lightness, of 100."""


def unet():
    return init_net(UNetGenerator(1, 2, base_channels=4, depth=3), "cpu", seed=0)


def colourful(network):
    """So that it gives strong colours, which differ from place to place."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6)
    network.colours = "lab"
    return network.eval()


@pytest.fixture
def generator():
    return colourful(unet())


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def lightness_of(rgb):
    """Of pixels ``(h, w, 3)``, uint8, in [0, 100]."""
    return rgb_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] / 127.5 - 1)[0, 0].numpy()


# The method


def patch():
    return init_net(PatchDiscriminator(3, base_channels=4, n_layers=1), "cpu", seed=1)


def method(**options):
    return Colorization(unet(), patch(), **options)


def test_it_is_pix2pix_on_lightness_and_colours():
    batch = {name: tensor[None] for name, tensor in LabFacades(1, size=16)[0].items()}
    weights = []
    for kind in (Colorization, Pix2Pix):
        torch.manual_seed(0)
        made = kind(unet(), patch(), l1_weight=7.0)
        losses = made.step(batch, made.make_optimizers(1e-3, (0.5, 0.999)))
        assert list(losses) == ["D_fake", "D_real", "G_gan", "G_l1"]
        weights.append([*made.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_it_shows_pictures_in_rgb():
    data = LabFacades(2, size=16, augment=False)
    batch = {name: torch.stack([sample[name] for sample in data]) for name in ("source", "target")}
    made = method()
    made.eval()
    columns = sample_columns(made, batch)
    assert list(columns) == ["source", "fake", "target"]
    assert all(column.shape == (2, 3, 16, 16) for column in columns.values())
    grey = columns["source"]
    torch.testing.assert_close(grey, grey[:, :1].expand_as(grey), atol=1e-4, rtol=0)
    rgb = torch.stack([data.jitter.crop(data.load(i)["rgb"][None], torch.tensor([[0, 0, 0]]))[0] for i in range(2)])
    torch.testing.assert_close(columns["target"], rgb, atol=1e-3, rtol=0)
    for column in columns.values():
        torch.testing.assert_close(split_lab(column)[0], batch["source"], atol=1e-4, rtol=0)
    with torch.no_grad():
        assert torch.equal(columns["fake"], join_lab(batch["source"], made.generator(batch["source"])))
    assert list(sample_columns(made, {"source": batch["source"]})) == ["source", "fake"]


def test_the_discriminator_may_see_the_colours_alone_or_be_absent():
    batch = {name: tensor[None] for name, tensor in LabFacades(1, size=16)[0].items()}
    for discriminator, terms in ((PatchDiscriminator(2, base_channels=4, n_layers=1), 4), (None, 1)):
        made = Colorization(unet(), discriminator, conditional=False)
        losses = made.step(batch, made.make_optimizers(1e-3, (0.5, 0.999)))
        assert len(losses) == terms
        assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("channels", [(3, 3), (1, 3), (3, 2)])
def test_a_generator_of_other_channels_is_refused(channels):
    with pytest.raises(ArgumentError) as caught:
        Colorization(UNetGenerator(*channels, base_channels=2, depth=2), None)
    assert str(caught.value) == (
        "UNetGenerator: colours='lab' is for a network from 1 channel (lightness) to 2 (a and b), and this one has "
        f"in_channels={channels[0]}, out_channels={channels[1]}. Build it with 1 and 2."
    )


def test_what_channels_stand_for_is_lab_or_nothing():
    network = unet()
    assert network.colours is None
    with pytest.raises(ArgumentError, match="UNetGenerator: colours='rgb' is not one of"):
        network.colours = "rgb"
    with pytest.raises(ArgumentError, match=r"PatchDiscriminator: colours='lab' is for .* out_channels=None"):
        PatchDiscriminator(1, base_channels=2).colours = "lab"
    network.colours = "lab"
    assert network.colours == "lab"
    network.colours = None
    assert network.colours is None


# Training


def small(out, **settings):
    settings = {"epochs": 12, "device": "cpu", "progress": False, "precision": "fp32", "lr": 2e-3} | settings
    val = LabFacades(2, size=16, seed=1, augment=False)
    return Trainer(method(), LabFacades(4, size=16, augment=False), val_data=val, out=out, **settings)


def test_a_run_learns_and_leaves_a_generator_that_translates(tmp_path):
    trainer = small(tmp_path / "run", log_every=4)
    validation = trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    l1 = [line["losses"]["G_l1"] for line in lines if line["kind"] == "train"]
    assert np.mean(l1[-3:]) < 0.7 * l1[0]

    generator = load_pretrained(tmp_path / "run" / "generator")
    assert generator.colours == "lab"
    assert generator.inference_mode == validation["best"]
    with Image.open(tmp_path / "run" / "generator" / "source.png") as source:
        pixels = np.asarray(source)
    made = translate(generator, tmp_path / "run" / "generator" / "source.png")
    assert made.mode == "RGB"
    assert np.abs(lightness_of(np.asarray(made)) - lightness_of(pixels)).max() <= ROUNDING
    # The first row of the samples has the same picture: between its source and its target.
    with Image.open(tmp_path / "run" / "generator" / "samples.png") as rows:
        shown = np.asarray(rows)[:16]
    assert np.array_equal(shown[:, :16], pixels)
    assert np.abs(shown[:, 20:36].astype(int) - np.asarray(made)).max() <= 3
    card = (tmp_path / "run" / "generator" / "README.md").read_text()
    assert "It gives colours to a grey picture, and to the lightness of a coloured one." in card


def test_validation_and_evaluate_compare_in_rgb():
    trainer = small(None, max_steps=1)
    trainer.fit()
    found, data = trainer.validate(), LabFacades(2, size=16, seed=1, augment=False)
    generator, sample = trainer.method.generator, data[0]
    assert found["eval"] == pytest.approx(evaluate(generator, data, metrics=("l1", "psnr", "swd"), mode="eval"))
    with torch.no_grad(), running_as(generator, "eval"):
        ab = generator(sample["source"][None])
    fake, target = join_lab(sample["source"][None], ab), join_lab(sample["source"], sample["target"])
    one = evaluate(generator, [sample], metrics=("l1", "histogram"), mode="eval")
    assert one["l1"] == pytest.approx((fake - target).abs().mean().item() / 2)
    assert one["histogram_l"] > 0.9


def test_resuming_is_the_run_that_was_never_interrupted(tmp_path):
    whole = small(None, epochs=2)
    whole.fit()
    small(tmp_path, epochs=2, max_steps=3).fit()
    resumed = small(tmp_path, epochs=2)
    resumed.fit(resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.method.parameters(), resumed.method.parameters(), strict=True))


# Saved generators


def test_saved_and_pushed_it_still_gives_colours(generator, tmp_path, hub):
    generator.save_pretrained(tmp_path)
    generator.push_to_hub("user/colours", token=hub.token)
    grey = noise(20, 30)
    expected = translate(generator, grey)
    for loaded in (
        load_pretrained(tmp_path),
        UNetGenerator.from_pretrained(tmp_path),
        load_pretrained("user/colours", token=hub.token),
    ):
        assert loaded.colours == "lab"
        assert np.array_equal(translate(loaded, grey), expected)


def test_a_plain_generator_s_description_is_as_before(tmp_path):
    unet().save_pretrained(tmp_path)
    assert "colours" not in json.loads((tmp_path / "config.json").read_text())
    loaded = load_pretrained(tmp_path)
    assert loaded.colours is None
    assert translate(loaded, torch.zeros(1, 8, 8)).shape == (2, 8, 8)


def test_a_description_that_gives_colours_to_what_has_none_is_refused(tmp_path):
    UNetGenerator(base_channels=2, depth=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "colours": "lab"}))
    with pytest.raises(SavedModelError) as caught:
        load_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: config.json does not describe a network. UNetGenerator: colours='lab' is for a network from 1 "
        "channel (lightness) to 2 (a and b), and this one has in_channels=3, out_channels=3. Build it with 1 and 2."
    )


def test_what_is_not_saved_is_computed_and_keeps_the_colours(tmp_path):
    class Blurred(UNetGenerator):
        def __init__(self, in_channels=3, out_channels=3, *, base_channels=64, depth=8):
            super().__init__(in_channels, out_channels, base_channels=base_channels, depth=depth)
            self.register_buffer("kernel", torch.ones(3), persistent=False)

    network = Blurred(1, 2, base_channels=2, depth=2)
    network.colours = "lab"
    network.save_pretrained(tmp_path)
    assert Blurred.from_pretrained(tmp_path).colours == "lab"


# Translating


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99), colour=st.booleans())
def test_the_lightness_is_the_source_s(height, width, seed, colour):
    torch.manual_seed(seed)
    generator = colourful(unet())
    source = noise(height, width, *[3] * colour, seed=seed)
    made = translate(generator, source)
    assert (made.shape, made.dtype) == ((height, width, 3), np.uint8)
    rgb = source if colour else np.repeat(source[..., None], 3, axis=2)
    assert np.abs(lightness_of(made) - lightness_of(rgb)).max() <= ROUNDING


def test_colours_are_the_generator_s(generator):
    source = torch.rand(1, 1, 24, 24) * 2 - 1
    lightness, _ = split_lab(source.expand(-1, 3, -1, -1))
    with torch.no_grad():
        expected = join_lab(lightness, generator(lightness))
    assert (expected.amax(1) - expected.amin(1)).mean() > 0.1
    assert torch.equal(translate(generator, source), expected)


def test_every_kind_of_picture_comes_back_as_its_kind(generator, tmp_path):
    grey = noise(20, 30)
    image = Image.fromarray(grey)
    image.save(tmp_path / "grey.png")
    expected = translate(generator, grey)
    for given_ in (image, image.convert("RGB"), tmp_path / "grey.png", str(tmp_path / "grey.png")):
        made = translate(generator, given_)
        assert (made.mode, made.size) == ("RGB", (30, 20))
        assert np.array_equal(np.asarray(made), expected)
    unit = grey.astype(np.float32) / 255
    made = translate(generator, unit)
    assert (made.dtype, made.shape) == (np.float32, (20, 30, 3))
    assert np.array_equal((made * 255).round(), expected)
    for array in (grey[..., None], np.repeat(grey[..., None], 3, axis=2)):
        assert np.array_equal(translate(generator, array), expected)
        batch = translate(generator, np.stack([array, array]))
        assert np.abs(batch.astype(int) - expected).max() <= 1
    tensor = torch.from_numpy(unit)[None] * 2 - 1
    for given_ in (tensor, tensor[None], tensor.expand(3, -1, -1), tensor.expand(2, 3, -1, -1)):
        made = translate(generator, given_)
        assert made.shape == (*given_.shape[:-3], 3, 20, 30)
        first = made if made.ndim == 3 else made[0]
        assert np.abs(np.asarray(to_image(first)).astype(int) - expected).max() <= 1
    assert translate(generator, tensor.half()).dtype == torch.float16
    assert translate(generator, tensor.double()).dtype == torch.float64


def test_sixteen_bit_grey_floats_and_alpha(generator):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    expected = translate(generator, deep)
    assert (expected.dtype, expected.shape) == (np.uint16, (20, 30, 3))
    for image in (Image.fromarray(deep), Image.fromarray((deep / 65535).astype(np.float32))):
        made = translate(generator, image)
        assert made.mode == "RGB"
        assert np.abs(np.asarray(made) - expected / 257).max() <= 1
    grey = noise(20, 30)
    clear = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(noise(20, 30, seed=1))])
    for image in (clear, clear.convert("RGBA")):
        assert np.array_equal(np.asarray(translate(generator, image)), translate(generator, grey))


@pytest.mark.parametrize("mode", ["eval", "batch_stats", "paper", None])
def test_modes_and_precision(generator, mode):
    generator.inference_mode = "batch_stats"
    grey = noise(24, 24)
    torch.manual_seed(0)
    one = translate(generator, grey, mode=mode)
    torch.manual_seed(0)
    lightness, _ = split_lab(torch.from_numpy(grey).expand(1, 3, -1, -1) / 127.5 - 1)
    with torch.no_grad(), running_as(generator, mode or "batch_stats"):
        expected = join_lab(lightness, generator(lightness))[0]
    assert np.abs(one.astype(int) - np.asarray(to_image(expected))).max() <= 1
    rough = translate(generator, grey, mode="eval", precision="bf16")
    assert np.abs(lightness_of(rough) - lightness_of(np.repeat(grey[..., None], 3, axis=2))).max() <= ROUNDING
    assert not np.array_equal(rough, translate(generator, grey, mode="eval"))


def test_tiles_are_the_whole():
    network = colourful(init_net(ResnetGenerator(1, 2, base_channels=4, num_blocks=1), "cpu"))
    source = torch.rand(1, 90, 100) * 2 - 1
    whole, tiled = translate(network, source), translate(network, source, tile=64)
    assert tiled.shape == (3, 90, 100)
    torch.testing.assert_close(tiled, whole, atol=1e-3, rtol=0)


def test_a_translator_does_the_same(generator, tmp_path):
    translator = Translator(generator, compile=False)
    for picture in (noise(20, 30), noise(20, 30, 3)):
        made = translator(picture)
        assert np.abs(made.astype(int) - translate(generator, picture)).max() <= 1
        assert np.array_equal(np.asarray(translator(Image.fromarray(picture))), made)


class Stranger(nn.Module):
    """A generator that is not of imtrans."""

    in_channels = 1

    def forward(self, x):
        return torch.cat([x, -x], dim=1)


def test_any_module_can_give_colours():
    generator = Colorization(Stranger(), PatchDiscriminator(3, base_channels=4)).generator
    assert translate(generator, noise(9, 9)).shape == (9, 9, 3)


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        (torch.zeros(2, 9, 9), (2, 9, 9)),
        (np.zeros((9, 9, 4), np.uint8), (9, 9, 4)),
        (np.zeros((2, 9, 9, 2), np.uint8), (2, 9, 9, 2)),
    ],
)
@pytest.mark.parametrize("owner", ["translate", "Translator"])
def test_other_channels_are_refused(generator, owner, picture, shape):
    call = Translator(generator) if owner == "Translator" else lambda picture: translate(generator, picture)
    with pytest.raises(ShapeError) as caught:
        call(picture)
    assert str(caught.value) == (
        f"{owner}: the generator adds colour to an image of 1 channel (grey) or 3 (RGB, of which it uses the "
        f"lightness), got shape {shape}."
    )


@pytest.mark.parametrize("picture", [torch.zeros(9, 9), torch.zeros(9), np.zeros(9, np.uint8), np.zeros((1,) * 5)])
def test_other_axes_are_refused(generator, picture):
    with pytest.raises(ShapeError, match="translate: expects a"):
        translate(generator, picture)
