"""Label maps as sources: one-hot channels from painted pictures, in training and in `translate`."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from imtrans import PairedImages, Pix2Pix, Trainer, UNetGenerator, load_pretrained, translate
from imtrans.colours import CITYSCAPES_PALETTE, CMP_PALETTE, PALETTES, check_palette
from imtrans.data.cache import make_cache
from imtrans.data.images import to_image, to_tensor
from imtrans.data.labels import one_hot_from_colours
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, SavedModelError, ShapeError

COLOURS = np.array(list(CMP_PALETTE.values()), dtype=np.uint8)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Three label maps in nearly the colours of CMP, as a JPEG has them, and photos of noise."""
    rng = np.random.default_rng(0)
    for side in "AB":
        (tmp_path / "pairs" / side).mkdir(parents=True)
    for i in range(3):
        ids = rng.integers(0, 12, (6, 6)).repeat(6, 0).repeat(6, 1)
        near = (COLOURS[ids].astype(int) + rng.integers(-20, 21, (36, 36, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(near).save(tmp_path / "pairs" / "A" / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(tmp_path / "pairs" / "B" / f"{i}.png")
        np.save(tmp_path / f"ids{i}.npy", ids)
    return tmp_path / "pairs"


def test_the_source_is_the_class_of_each_pixel(folder):
    sample = PairedImages(folder, labels="facades", size=36, augment=False)[1]
    assert sample["source"].shape == (12, 36, 36)
    assert sample["source"].unique().tolist() == [0, 1]
    assert np.array_equal(sample["source"].argmax(0).numpy(), np.load(folder.parent / "ids1.npy"))
    assert sample["target"].shape == (3, 36, 36)


@pytest.mark.parametrize("size", [24, 50])
def test_resizing_makes_no_class_between_two_others(tmp_path, size):
    """Between the first colour and the last lies the second, which bicubic resizing would find at the edge."""
    palette = [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    halves = np.zeros((36, 36, 3), dtype=np.uint8)
    halves[:, 18:] = 255
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.fromarray(halves).save(tmp_path / side / "1.png")
    source = PairedImages(tmp_path, labels=palette, size=size, augment=False)[0]["source"]
    assert source.amax((1, 2)).tolist() == [1, 0, 1]
    assert torch.equal(source.sum(0), torch.ones(size, size))


def test_the_target_is_never_a_label_map(folder):
    data = PairedImages(folder, labels="cmp", direction="BtoA", size=16)
    assert {name: len(image) for name, image in data[0].items()} == {"source": 12, "target": 3}


@pytest.mark.parametrize("augment", [True, False])
def test_cached_batches_are_those_that_are_loaded(folder, augment):
    data = PairedImages(folder, labels=CMP_PALETTE, size=16, load_size=20, augment=augment)
    for cached, loaded in zip(make_cache(data, CPU).batches(2, epoch=3), batches(data, 2, epoch=3), strict=True):
        assert all(torch.equal(cached[name], loaded[name]) for name in ("source", "target"))
    assert make_cache(data, CPU)._sources[0].source.load(0)["source"].shape[0] == 1  # ids, not channels, are cached


def test_a_trained_generator_keeps_the_palette_and_takes_the_painted_picture(folder, tmp_path):
    data, out = PairedImages(folder, labels="cmp", size=16), tmp_path / "run"
    method = Pix2Pix(UNetGenerator(12, base_channels=4, depth=3), None)
    Trainer(method, data, out=out, epochs=1, device="cpu", precision="fp32", progress=False).fit()
    generator = load_pretrained(out / "generator")
    assert generator.palette == tuple(CMP_PALETTE.values())
    assert json.loads((out / "generator" / "config.json").read_text())["palette"][1] == [0, 0, 255]
    path = folder / "A" / "0.png"
    with Image.open(path) as image:
        painted = to_tensor(image)
        pixels = np.asarray(image)
    source = one_hot_from_colours(painted[None], generator.palette)
    expected = translate(generator, source)
    assert torch.equal(translate(generator, painted), expected[0])
    assert translate(generator, path).tobytes() == to_image(expected[0]).tobytes()
    assert np.array_equal(translate(generator, pixels), np.asarray(to_image(expected[0])))
    # The sample grid and the source of the model card are painted.
    with Image.open(out / "generator" / "source.png") as image:
        assert {tuple(colour) for colour in np.asarray(image).reshape(-1, 3)} <= set(CMP_PALETTE.values())


def test_a_palette_of_three_colours_takes_the_painted_picture_too():
    generator = UNetGenerator(3, base_channels=4, depth=2).eval()
    generator.palette = [(0, 0, 0), (255, 0, 0), (255, 255, 255)]
    painted = torch.full((3, 8, 8), -1.0)
    painted[0, :, 4:] = 1
    with torch.no_grad():
        expected = generator(one_hot_from_colours(painted[None], generator.palette))[0]
    assert torch.equal(translate(generator, painted), expected)
    assert translate(generator, to_image(painted)).tobytes() == to_image(expected).tobytes()


def test_an_array_is_a_painted_picture_for_it_has_no_one_hot_values():
    generator = UNetGenerator(12, base_channels=4, depth=2)
    generator.palette = "cmp"
    with pytest.raises(ShapeError, match=re.escape("expects an array (h, w, 3) or (b, h, w, 3), got shape (8, 8, 12)")):
        translate(generator, np.zeros((8, 8, 12), dtype=np.float32))


def test_a_generator_without_palette_is_saved_as_before(tmp_path):
    generator = UNetGenerator(base_channels=4, depth=2)
    assert "palette" not in generator.description()
    generator.save_pretrained(tmp_path)
    assert load_pretrained(tmp_path).palette is None


def test_a_generator_of_other_channels_is_refused_before_training(folder):
    method = Pix2Pix(UNetGenerator(base_channels=4, depth=2), None)
    with pytest.raises(ArgumentError) as caught:
        Trainer(method, PairedImages(folder, labels="cmp", size=16), out=None, device="cpu")
    assert str(caught.value) == (
        "UNetGenerator: a palette of 12 colours is for a network with in_channels=12, and this one has in_channels=3. "
        "Build it with in_channels=12."
    )


@pytest.mark.parametrize(
    "palette", ["cmp", [[0, 0, 0]] * 3, [[0, 0, 1.0], [0, 0, 2], [0, 0, 3]], 7, [[1] * 3, [2] * 3]]
)
def test_a_palette_in_a_file_is_checked(tmp_path, palette):
    UNetGenerator(base_channels=4, depth=2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "palette": palette}))
    with pytest.raises(SavedModelError, match="does not describe a network"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ("facade", "PairedImages: labels='facade' is not one of ['cityscapes', 'cmp', 'facades']. Did you mean 'facad"),
        (3, "PairedImages: labels must be a palette, a collection of colours (r, g, b), got 3."),
        ([(i, 0, 0) for i in range(256)] + [(0, 1, 0)], "PairedImages: the number of labels must be a whole number"),
    ],
)
def test_what_is_no_palette(folder, labels, text):
    with pytest.raises(ArgumentError, match="^" + re.escape(text)):
        PairedImages(folder, labels=labels)


def test_the_palettes_have_the_classes_of_their_data_sets():
    assert {name: len(check_palette("test", palette)) for name, palette in PALETTES.items()} == {
        "facades": 12, "cmp": 12, "cityscapes": 29
    }  # fmt: skip
    assert CMP_PALETTE["window"] == (0, 85, 255)
    assert CITYSCAPES_PALETTE["road"] == (128, 64, 128)
