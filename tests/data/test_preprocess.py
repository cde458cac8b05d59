"""From image to sample: the five ways of the reference, rectangles, and images of several sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from imtrans import LabImages, PairedImages, PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator, UnpairedImages
from imtrans.data.cache import make_cache
from imtrans.data.images import resized, to_float
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, DataError

CPU = torch.device("cpu")
PREPROCESS = ["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]


@pytest.fixture
def folder(tmp_path):
    """Pairs of 40x30 and of 50x61 pixels (width x height)."""
    rng = np.random.default_rng(0)
    for side in "AB":
        (tmp_path / side).mkdir()
        for i, shape in enumerate([(30, 40, 3), (61, 50, 3)]):
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / side / f"{i}.png")
    return tmp_path


def same_size(folder):
    (folder / "A" / "1.png").unlink()
    (folder / "B" / "1.png").unlink()
    return folder


@pytest.mark.parametrize(
    ("preprocess", "augmented", "plain"),
    [
        ("resize_and_crop", [(16, 24), (16, 24)], [(16, 24), (16, 24)]),
        ("crop", [(16, 24), (16, 24)], [(16, 24), (16, 24)]),
        # 32 wide: 32 * 30 // 40 and 32 * 61 // 50 high; without augmentation 24 wide
        ("scale_width", [(24, 32), (39, 32)], [(18, 24), (29, 24)]),
        ("scale_width_and_crop", [(16, 24), (16, 24)], [(16, 24), (16, 24)]),
        ("none", [(32, 40), (60, 48)], [(32, 40), (60, 48)]),
    ],
)
def test_sizes_of_samples(folder, preprocess, augmented, plain):
    for augment, expected in ((True, augmented), (False, plain)):
        data = PairedImages(folder, size=(16, 24), load_size=(20, 32), preprocess=preprocess, augment=augment)
        shapes = [tuple(data.draw(i, 3)[name].shape) for i in (0, 1) for name in ("source", "target")]
        assert shapes == [(3, *expected[i]) for i in (0, 0, 1, 1)]


def test_scaling_a_flat_picture_is_at_least_as_high_as_a_crop(folder):
    Image.new("RGB", (80, 8)).save(same_size(folder) / "A" / "0.png")
    Image.new("RGB", (80, 8)).save(folder / "B" / "0.png")
    data = PairedImages(folder, size=16, load_size=20, preprocess="scale_width")
    assert data[0]["source"].shape == (3, 16, 20)


def picture(folder, i=1):
    with Image.open(folder / "A" / f"{i}.png") as image:
        return image.copy()


def windows(sample, whole):
    """Where in `whole` a sample of the same scale was cut, mirrored or not."""
    h, w = sample.shape[1:]
    return [
        (x, y, mirrored)
        for y in range(whole.shape[1] - h + 1)
        for x in range(whole.shape[2] - w + 1)
        for mirrored in (False, True)
        if torch.equal(whole[:, y : y + h, x : x + w], sample.flip(-1) if mirrored else sample)
    ]


def test_a_crop_is_a_window_of_the_image_as_it_is(folder):
    data = PairedImages(folder, size=(28, 38), preprocess="crop")
    whole = to_float(resized(picture(folder), (61, 50)))
    found = [windows(data.draw(1, epoch)["source"], whole) for epoch in range(60)]
    assert all(len(each) == 1 for each in found)
    lefts, tops, mirrored = zip(*(each[0] for each in found), strict=True)
    assert max(lefts) > 9
    assert max(tops) > 27
    assert set(mirrored) == {False, True}
    (centre,) = windows(PairedImages(folder, size=(28, 38), preprocess="crop", augment=False)[1]["source"], whole)
    assert centre == (6, 16, False)


def test_no_preprocessing_is_the_image_or_its_mirror_image(folder):
    data = PairedImages(folder, size=8, preprocess="none")
    whole = to_float(resized(picture(folder, 0), (32, 40)))
    seen = {torch.equal(data.draw(0, epoch)["source"], whole) for epoch in range(12)}
    assert seen == {True, False}
    assert all(
        torch.equal(s, whole) or torch.equal(s.flip(-1), whole) for s in (data.draw(0, e)["source"] for e in range(12))
    )


@pytest.mark.parametrize("preprocess", PREPROCESS)
@pytest.mark.parametrize("augment", [True, False])
def test_images_of_one_size_are_cached(folder, preprocess, augment):
    settings = {"size": (20, 28), "load_size": (24, 36), "preprocess": preprocess, "augment": augment}
    data = PairedImages(same_size(folder), **settings)
    for cached, loaded in zip(make_cache(data, CPU).batches(1, epoch=2), batches(data, 1, epoch=2), strict=True):
        assert all(torch.equal(cached[name], loaded[name]) for name in ("source", "target"))


@pytest.mark.parametrize("preprocess", PREPROCESS)
def test_images_of_several_sizes_train(folder, preprocess, tmp_path):
    data = PairedImages(folder, size=16, preprocess=preprocess)
    assert (make_cache(data, CPU) is None) is (preprocess != "resize_and_crop")
    method = Pix2Pix(UNetGenerator(base_channels=4, depth=3), PatchDiscriminator(6, base_channels=4, n_layers=1))
    run = Trainer(method, data, out=tmp_path / "run", epochs=1, device="cpu", precision="fp32", progress=False)
    run.fit()
    assert run.step == 2
    said = "" if preprocess == "resize_and_crop" else f"preprocess {preprocess}, "
    assert f"{said}AtoB" in repr(data)


@pytest.mark.parametrize("preprocess", ["scale_width", "none"])
def test_samples_of_several_sizes_make_no_batch(folder, preprocess):
    with pytest.raises(DataError, match=r"samples of a batch differ in size: .* or batch_size=1"):
        list(batches(PairedImages(folder, size=16, preprocess=preprocess), 2))


@pytest.mark.parametrize(("channels", "deep"), [("rgb", False), ("as they are", False), ("as they are", True)])
def test_nearest_takes_the_pixel_at_the_centre_of_each_new_one(folder, channels, deep):
    """As tf.image.resize does."""
    pixels = np.random.default_rng(0).integers(0, 2**16 if deep else 256, (30, 40), dtype=np.uint16)
    same_size(folder)
    for side in "AB":
        Image.fromarray(pixels if deep else pixels.astype(np.uint8)).save(folder / side / "0.png")
    size = (44, 24)  # no centre lies between two pixels
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (30, 40), strict=True))
    expected = torch.from_numpy(pixels[rows][:, columns].astype(np.float32)) * (2 / (65535 if deep else 255)) - 1
    data = PairedImages(folder, size=size, augment=False, channels=channels, resample="nearest")
    torch.testing.assert_close(data[0]["source"][0], expected, atol=1e-6, rtol=0)
    assert "resample nearest, AtoB" in data.settings
    bicubic = PairedImages(folder, size=size, augment=False, channels=channels)
    assert (bicubic[0]["target"][0] - expected).abs().max() > 0.1
    assert "resample" not in bicubic.settings


def test_rectangles_in_every_folder_data_set(folder):
    one = LabImages(folder / "A", size=(16, 32))[0]
    other = UnpairedImages(folder / "A", folder / "B", size=(16, 32))[0]
    assert one["source"].shape == (1, 16, 32)
    assert other["target"].shape == (3, 16, 32)
    drawn = {
        tuple(PairedImages(folder, size=(16, 32), load_size=(17, 40)).crop_params(0, epoch)[0][1:3])
        for epoch in range(200)
    }
    assert {top for _, top in drawn} == {0, 1}
    assert {left for left, _ in drawn} == set(range(9))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"preprocess": "scale"},
            "PairedImages: preprocess='scale' is not one of ['crop', 'none', 'resize_and_crop', ",
        ),
        (
            {"resample": "nearst"},
            "PairedImages: resample='nearst' is not one of ['bicubic', 'nearest']. Did you mean 'nearest'?",
        ),
        ({"size": (0, 4)}, "Jitter: size must be a whole number >= 1, got 0."),
        ({"size": (4, 4, 4)}, "Jitter: size must be a whole number >= 1, got (4, 4, 4)."),
        ({"size": (16, 32), "load_size": 20}, "Jitter: load_size must be a whole number >= 32, got 20."),
    ],
)
def test_arguments_are_checked(folder, settings, text):
    with pytest.raises(ArgumentError) as caught:
        PairedImages(folder, **settings)
    assert str(caught.value).startswith(text)


def test_a_small_image_is_named_or_left_out(folder):
    with pytest.raises(DataError) as caught:
        PairedImages(folder, size=35, preprocess="crop")
    assert str(caught.value).startswith(
        f"{folder / 'A' / '0.png'} is 40x30, smaller than a crop of 35x35. Use a smaller size, or another preprocess "
        "than 'crop'."
    )
    with pytest.warns(UserWarning, match="1 of 2 samples is bad"):
        assert PairedImages(folder, size=35, preprocess="crop", on_bad_image="skip").files == ["1.png"]


def test_an_image_that_changes_its_size_is_named(folder):
    data = PairedImages(folder, size=8, preprocess="crop")
    for side in "AB":
        Image.new("RGB", (90, 90)).save(folder / side / "0.png")
    with pytest.raises(DataError, match=r"A/0\.png has another size than when the data set was made\."):
        data[0]
