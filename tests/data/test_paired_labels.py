"""Label maps as sources: one-hot channels from painted pictures, in training and in `translate`."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from imtrans import PairedImages, Pix2Pix, Trainer, Translator, UNetGenerator, load_pretrained, one_hot, translate
from imtrans.colours import CITYSCAPES_PALETTE, CMP_PALETTE, PALETTES, check_palette, hues
from imtrans.data.cache import make_cache
from imtrans.data.images import to_image, to_tensor
from imtrans.data.labels import edges, one_hot_from_colours
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, DataError, SavedModelError, ShapeError

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
        (3.5, "PairedImages: labels must be a palette, a collection of colours (r, g, b), got 3.5."),
        (0, "PairedImages: labels must be a whole number from 1 to 256, got 0."),
        (True, "PairedImages: labels must be a whole number from 1 to 256, got True."),
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


# Class ids, and instances


def save_ids(path, ids):
    """As the suffix and the folder ask for: `P` has a colour table, as gtFine of Cityscapes may have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, ids)
        return
    image = Image.fromarray(ids.astype(np.uint8))
    if path.stem.endswith("p"):
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tolist())
        assert image.mode == "P"
    image.save(path)


@pytest.fixture
def ids_folder(tmp_path):
    """Maps of the ids of 5 classes (grey, with a colour table, an array), photos, and instances of 16 and 32 bits."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "ids"
    for number, name in enumerate(["0.png", "1p.png", "2.npy"]):
        ids = rng.integers(0, 5, (6, 6)).repeat(6, 0).repeat(6, 1)
        objects = rng.integers(24000, 40000, (9, 9)).repeat(4, 0).repeat(4, 1)
        save_ids(folder / "A" / name, ids)
        stem = name.partition(".")[0]
        (folder / "B").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(folder / "B" / f"{stem}.jpg")
        (folder / "instances").mkdir(exist_ok=True)
        if number == 1:
            Image.fromarray(objects.astype(np.int32) * 1000).save(folder / "instances" / f"{stem}.tif")
        else:
            Image.fromarray(objects.astype(np.uint16)).save(folder / "instances" / f"{stem}.png")
        np.save(tmp_path / f"ids{number}.npy", ids)
        np.save(tmp_path / f"objects{number}.npy", objects)
    return folder


def known(folder, index):
    """The ids and objects of a sample, each ``(1, 36, 36)``."""
    return [torch.from_numpy(np.load(folder.parent / f"{name}{index}.npy"))[None] for name in ("ids", "objects")]


def test_ids_are_read_as_they_are_and_instances_become_edges(ids_folder):
    data = PairedImages(ids_folder, labels=5, instances=True, size=36, augment=False)
    assert data.channels == {"source": 6, "target": 3}
    assert "source of 5 labels and edges" in repr(data)
    for index in range(3):
        ids, objects = known(ids_folder, index)
        assert torch.equal(data[index]["source"], one_hot(ids, 5, instances=objects)[0])
    without = PairedImages(ids_folder, labels=5, size=36, augment=False)
    assert torch.equal(without[1]["source"], data[1]["source"][:5])


def test_edges_are_those_of_the_resized_instances_and_cropped_like_the_rest(ids_folder):
    data = PairedImages(ids_folder, labels=5, instances=True, size=16, load_size=20)
    _, objects = known(ids_folder, 0)
    small = Image.fromarray(objects[0].int().numpy()).resize((20, 20), Image.Resampling.NEAREST)
    whole = edges(torch.from_numpy(np.array(small))[None])[0]
    for epoch in range(4):
        [(_, left, top, flipped)] = data.crop_params(0, epoch)
        crop = whole[:, top : top + 16, left : left + 16]
        assert torch.equal(data.draw(0, epoch)["source"][5:], crop.flip(-1) if flipped else crop)


@pytest.mark.parametrize("labels", [5, "cmp"])
@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("channels", ["rgb", "grey"])
def test_cached_batches_with_edges_are_those_that_are_loaded(folder, ids_folder, labels, augment, channels):
    if labels == "cmp":
        (ids_folder / "instances").rename(folder / "instances")
        for old, new in {"1p.tif": "1.tif"}.items():
            (folder / "instances" / old).rename(folder / "instances" / new)
        ids_folder = folder
    data = PairedImages(
        ids_folder, labels=labels, instances=True, channels=channels, size=16, load_size=20, augment=augment
    )
    assert data.channels["target"] == (3 if channels == "rgb" else 1)
    cache = make_cache(data, CPU)
    for cached, loaded in zip(cache.batches(2, epoch=3), batches(data, 2, epoch=3), strict=True):
        assert all(torch.equal(cached[name], loaded[name]) for name in ("source", "target"))
        assert cached["target"].shape[1] == data.channels["target"]
    stored = cache._sources[0].source.load(0)["source"]
    assert (stored.dtype, len(stored)) == (torch.uint8, 2)


def test_side_by_side_painted_maps_have_instances_too(tmp_path):
    colours = COLOURS[np.array([[0, 1], [2, 3]]).repeat(8, 0).repeat(8, 1)]
    Image.fromarray(np.concatenate([colours, 255 - colours], axis=1)).save(tmp_path / "1.png")
    objects = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(8, 0).repeat(8, 1)
    save_ids(tmp_path / "instances" / "1.png", objects)
    sample = PairedImages(tmp_path, labels="cmp", instances=True, size=16, augment=False)[0]
    assert torch.equal(sample["source"][12:], edges(torch.from_numpy(objects)[None])[0])
    assert sample["source"][:4].sum() == 256


def test_16_bit_targets_of_a_label_map(tmp_path):
    rng = np.random.default_rng(0)
    save_ids(tmp_path / "B" / "1.png", rng.integers(0, 3, (16, 16)))
    (tmp_path / "A").mkdir()
    values = rng.integers(0, 4096, (16, 16, 2)).astype(np.uint16)
    np.save(tmp_path / "A" / "1.npy", values)
    data = PairedImages(
        tmp_path, labels=3, direction="BtoA", channels="as they are", value_range=(0, 4095), size=16, augment=False
    )
    assert data.channels == {"source": 3, "target": 2}
    assert np.allclose(data[0]["target"].numpy(), values.transpose(2, 0, 1) / 2047.5 - 1, atol=1e-6)


def test_ids_that_are_no_class_are_an_error_that_names_the_file(ids_folder):
    path = ids_folder / "A" / "0.png"
    ids = np.array(Image.open(path))
    ids[3:5] = 255
    save_ids(path, ids)
    with pytest.raises(DataError) as caught:
        PairedImages(ids_folder, labels=5)[0]
    assert str(caught.value).startswith(
        f"{path} has ids 255, and labels=5 takes 0 to 4. Raise the number of labels, or give such pixels a class of "
        "their own in the files. To train without such files:"
    )
    assert PairedImages(ids_folder, labels=256)[0]["source"].shape[0] == 256
    with pytest.warns(UserWarning, match="1 of 3 samples is bad and left out"):
        assert PairedImages(ids_folder, labels=5, on_bad_image="skip").files == ["1p.png", "2.npy"]


def test_files_that_hold_no_ids(ids_folder):
    Image.fromarray(np.zeros((36, 36, 3), dtype=np.uint8)).save(ids_folder / "A" / "0.png")
    np.save(ids_folder / "A" / "2.npy", np.zeros((36, 36)))
    for index, found in ((0, "mode 'RGB'"), (2, "float64 in shape (36, 36)")):
        with pytest.raises(DataError, match=re.escape(f"holds no ids, but {found}. Save them as a grey image")):
            PairedImages(ids_folder, labels=5)[index]
    hint = "They are read from B; for the other folder, use direction='AtoB' (--direction AtoB)."
    with pytest.raises(DataError, match=re.escape(hint)):
        PairedImages(ids_folder, labels=5, direction="BtoA")[1]


def test_instances_that_are_missing_or_of_another_size(ids_folder):
    path = ids_folder / "instances" / "0.png"
    save_ids(path, np.zeros((36, 35)))
    with pytest.raises(DataError, match=r"instances/0\.png is 35x36, and the pair .*A/0\.png is 36x36"):
        PairedImages(ids_folder, labels=5, instances=True)
    path.unlink()
    with pytest.raises(DataError, match=r"A/0\.png has no file of the same name in .*instances\. To train without"):
        PairedImages(ids_folder, labels=5, instances=True)
    with pytest.warns(UserWarning, match="1 of 3 samples is bad and left out"):
        assert len(PairedImages(ids_folder, labels=5, instances=True, on_bad_image="skip")) == 2


@pytest.mark.parametrize("settings", [{"labels": 12}, {"labels": "cmp", "channels": 3}])
def test_side_by_side_pairs_have_painted_maps_and_rgb_targets(tmp_path, settings):
    Image.fromarray(np.zeros((8, 16, 3), dtype=np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(ArgumentError, match=r"side-by-side pairs have label maps in RGB .* two folders, A and B\.$"):
        PairedImages(tmp_path, **settings)


@pytest.mark.parametrize("instances", [True, False])
def test_a_trained_generator_takes_maps_of_ids(ids_folder, tmp_path, instances):
    data = PairedImages(ids_folder, labels=5, instances=instances, size=16)
    method, out = Pix2Pix(UNetGenerator(5 + instances, base_channels=4, depth=3), None), tmp_path / "run"
    Trainer(method, data, out=out, epochs=1, device="cpu", precision="fp32", progress=False).fit()
    generator = load_pretrained(out / "generator")
    assert (generator.num_labels, generator.instances, generator.palette) == (5, instances, None)
    card = (out / "generator" / "README.md").read_text()
    assert "It takes label maps of class ids from 0 to 4." in card
    assert ("instances=..." in card) is instances
    assert (out / "generator" / "samples.png").exists()
    assert not (out / "generator" / "source.png").exists()

    ids, objects = known(ids_folder, 1)
    source = one_hot(ids, 5, instances=objects if instances else None)
    expected = translate(generator, source)  # a tensor is one-hot already
    shown = to_image(expected[0])
    pictures = [ids_folder / "A" / "1p.png", Image.open(ids_folder / "A" / "1p.png"), ids[0].numpy()]
    others = [ids_folder / "instances" / "1p.tif", Image.fromarray(objects[0].int().numpy()), objects[0].numpy()]
    for image, given in zip(pictures, others, strict=True):
        options = {"instances": given} if instances else {}
        made = translate(generator, image, **options)
        assert isinstance(made, np.ndarray if isinstance(image, np.ndarray) else Image.Image)
        assert np.array_equal(np.asarray(made), np.asarray(shown))
        error = np.asarray(Translator(generator)(image, **options)).astype(int) - np.asarray(shown)
        assert np.abs(error).max() <= 1
    options = {"instances": objects[..., None].numpy()} if instances else {}
    many = translate(generator, ids[..., None].numpy(), **options)
    assert (many.shape, many.dtype) == ((1, 36, 36, 3), np.uint8)
    saved = ids_folder / "A" / "2.npy"
    options = {"instances": ids_folder / "instances" / "2.png"} if instances else {}
    assert translate(generator, saved, **options).shape == (36, 36, 3)


def test_a_trained_generator_takes_a_painted_map_and_instances(folder, tmp_path):
    for i in range(3):
        save_ids(folder / "instances" / f"{i}.png", np.load(tmp_path / f"ids{i}.npy") * 20)
    data = PairedImages(folder, labels="cmp", instances=True, size=16)
    method, out = Pix2Pix(UNetGenerator(13, base_channels=4, depth=3), None), tmp_path / "run"
    Trainer(method, data, out=out, epochs=1, device="cpu", precision="fp32", progress=False).fit()
    generator = load_pretrained(out / "generator")
    assert (generator.palette, generator.instances) == (tuple(CMP_PALETTE.values()), True)
    with Image.open(folder / "A" / "0.png") as image:
        painted = to_tensor(image)
    ids = np.load(tmp_path / "ids0.npy")
    source = one_hot_from_colours(painted[None], generator.palette, instances=torch.from_numpy(ids)[None])
    expected = to_image(translate(generator, source)[0])
    made = translate(generator, folder / "A" / "0.png", instances=folder / "instances" / "0.png")
    assert made.tobytes() == expected.tobytes()
    # The sample grid is painted.
    column = next(iter(method.translations())).columns({"source": source, "target": painted[None]})["source"]
    assert {tuple(c) for c in np.asarray(to_image(column[0])).reshape(-1, 3)} <= set(CMP_PALETTE.values())


def test_instances_that_translate_cannot_take_or_misses():
    generator = UNetGenerator(4, base_channels=4, depth=2)
    generator.instances = True
    generator.num_labels = 3
    ids = np.zeros((8, 8), dtype=np.uint8)
    with pytest.raises(ArgumentError, match=r"^translate: the generator takes the edges of instances too\. Give insta"):
        translate(generator, ids)
    with pytest.raises(ArgumentError, match=r"^translate: instances are for a generator whose attribute"):
        translate(generator, torch.zeros(4, 8, 8), instances=ids)
    with pytest.raises(ArgumentError, match=r"^translate: instances are for a generator whose attribute"):
        translate(UNetGenerator(base_channels=4, depth=2), ids, instances=ids)
    with pytest.raises(ShapeError, match="must be of one batch and size"):
        translate(generator, ids, instances=ids[1:])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((8, 8)), "ndarray of float64 in shape (8, 8)."),
        (np.zeros((8, 8, 3), dtype=np.uint8), "ndarray of uint8 in shape (8, 8, 3)."),
        (Image.new("RGB", (8, 8)), "Image of mode 'RGB'."),
        (7, "int."),
    ],
)
def test_what_translate_cannot_read_ids_from(image, found):
    generator = UNetGenerator(3, base_channels=4, depth=2)
    generator.num_labels = 3
    with pytest.raises(ArgumentError) as caught:
        translate(generator, image)
    assert str(caught.value) == (
        "translate: expects an id for each pixel, in a file, a grey PIL image, one with a colour table, or an array of "
        f"integers (h, w), (h, w, 1) or (b, h, w, 1); got {found}"
    )


def test_a_file_with_other_ids_is_named_by_translate(tmp_path):
    generator = UNetGenerator(3, base_channels=4, depth=2)
    generator.num_labels = 3
    save_ids(tmp_path / "1.png", np.full((8, 8), 7))
    with pytest.raises(DataError, match=r"1\.png has ids 7, and labels=3 takes 0 to 2\."):
        translate(generator, tmp_path / "1.png")
    with pytest.raises(ArgumentError, match=r"one_hot: ids 7 are out of range: with num_classes=3"):
        translate(generator, np.full((8, 8), 7))


def test_labels_that_do_not_fit_the_network(tmp_path):
    generator = UNetGenerator(3, base_channels=4, depth=2)
    with pytest.raises(ArgumentError, match=r"UNetGenerator: num_labels=5 is for a network with in_channels=5, and"):
        generator.num_labels = 5
    with pytest.raises(ArgumentError, match="UNetGenerator: num_labels must be a whole number from 1 to 256"):
        generator.num_labels = 257
    with pytest.raises(ArgumentError, match="UNetGenerator: instances must be True or False"):
        generator.instances = 1
    generator.instances = True
    with pytest.raises(ArgumentError, match=r"num_labels=3 with edges of instances is .* in_channels=4"):
        generator.num_labels = 3
    generator.num_labels = 2
    generator.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ({"num_labels": 5}, {"num_labels": "2"}, {"instances": "yes"}, {"instances": False}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(SavedModelError, match="does not describe a network"):
            load_pretrained(tmp_path)


def test_classes_without_a_palette_are_shown_in_different_colours():
    for count in range(1, 257):
        assert check_palette("test", hues(count)) == hues(count)
