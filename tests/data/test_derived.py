import io
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from imtrans import (
    DerivedPairs,
    LabFacades,
    LabImages,
    PairedImages,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    UNetGenerator,
)
from imtrans.data import Blur, Edges, Grey, Holes, Jpeg, Lab, Noise, Small
from imtrans.data.cache import make_cache
from imtrans.data.crop_dataset import Jitter
from imtrans.data.derivations import DERIVATIONS, Derivation
from imtrans.data.images import read_image, resized, to_image, to_tensor
from imtrans.data.loader import EpochDataset, batches
from imtrans.errors import ArgumentError, CheckpointError, DataError, ShapeError
from imtrans.training.resume import data_config

CPU = torch.device("cpu")


def inverted(photo, generator):
    """A source of one channel, with noise."""
    return -photo[:1] * torch.rand(photo[:1].shape, generator=generator)


SOURCES = [*DERIVATIONS, Holes("centre"), Holes("strokes"), Small(3), Blur(2.0), Jpeg(30), Noise(0.1), inverted]
EACH_SOURCE = pytest.mark.parametrize("source", SOURCES, ids=lambda source: getattr(source, "__name__", str(source)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five photos, smooth enough to have lines and of several sizes."""
    path = tmp_path_factory.mktemp("photos")
    for n in range(5):
        coarse = np.random.default_rng(n).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40 + n, 30), Image.Resampling.NEAREST).save(path / f"{n}.png")
    return path


@cache
def make(folder, source, **options):
    return DerivedPairs(folder, source, size=24, load_size=28, seed=3, **options)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Samples


@EACH_SOURCE
@pytest.mark.parametrize("augment", [True, False])
def test_a_sample_is_a_pair_in_range(folder, source, augment):
    data = make(folder, source, augment=augment)
    assert len(data) == len(list(data)) == 5
    channels = data.derivation.channels or 1
    target = 2 if source == "lab" else 3
    for epoch in range(3):
        sample = data.draw(1, epoch)
        assert {name: each.shape for name, each in sample.items()} == {
            "source": (channels, 24, 24), "target": (target, 24, 24)
        }  # fmt: skip
        for each in sample.values():
            assert each.dtype == torch.float32
            assert -1 <= each.min() < each.max() <= 1


@EACH_SOURCE
@pytest.mark.parametrize("augment", [True, False])
@settings(max_examples=12)
@given(epoch=st.integers(0, 400), batch_size=st.integers(1, 5), shuffle_seed=st.none() | st.integers(0, 9))
def test_cached_batches_are_the_loaded_ones(folder, source, augment, epoch, batch_size, shuffle_seed):
    data, order = make(folder, source, augment=augment), {"epoch": epoch, "shuffle_seed": shuffle_seed}
    cached = [*make_cache(data, CPU).batches(batch_size, **order)]
    loaded = [*batches(data, batch_size, **order)]
    assert len(cached) == len(loaded) == -(-5 // batch_size)
    assert all(equal(one, other) for one, other in zip(cached, loaded, strict=True))


@pytest.mark.parametrize("source", ["edges", "holes", "noise", "jpeg", inverted])
def test_skipped_batches_are_not_drawn(folder, source):
    cached = make_cache(make(folder, source), CPU)
    whole = [*cached.batches(2, epoch=1)]
    assert equal(next(cached.batches(2, epoch=1, skip=2)), whole[2])
    assert [*cached.batches(2, epoch=1, skip=3)] == []


@EACH_SOURCE
def test_a_sample_depends_on_seed_epoch_and_index_alone(folder, source):
    data = make(folder, source)
    again = pickle.loads(pickle.dumps(DerivedPairs(folder, source, size=24, load_size=28, seed=3)))
    loaded = DataLoader(EpochDataset(data, 2), batch_size=1, num_workers=2)
    for index, sample in enumerate(loaded):
        assert equal({name: each[0] for name, each in sample.items()}, again.draw(index, 2))
    assert not equal(data.draw(0, 0), data.draw(0, 1))


@EACH_SOURCE
def test_without_augmentation_a_sample_is_the_same_in_each_epoch(folder, source):
    data = make(folder, source, augment=False)
    assert equal(data.draw(3, 0), data.draw(3, 7))
    assert equal(data.draw(3, 0), data[3])


@pytest.mark.parametrize("source", [name for name in DERIVATIONS if name not in ("grey", "lab", "small")])
def test_what_is_random_is_drawn_anew_for_each_epoch(folder, source):
    data = DerivedPairs(folder, source, size=24, load_size=24, flip=False)
    one, other = data.draw(0, 0), data.draw(0, 1)
    assert torch.equal(one["target"], other["target"])
    assert not torch.equal(one["source"], other["source"])


@EACH_SOURCE
def test_the_source_is_computed_from_the_mirrored_crop(folder, source):
    data = make(folder, source)
    epochs = [epoch for epoch in range(20) if data.crop_params(1, epoch)[0][3]]
    assert 0 < len(epochs) < 20
    for epoch in epochs[:2]:
        _, *crop = data.crop_params(1, epoch)[0]
        photo = data.jitter.crop(resized(read_image(folder / "1.png"), 28)[None], torch.tensor([crop]))
        sample = data.draw(1, epoch)
        target = Lab().pair(photo, photo)[1] if source == "lab" else photo
        assert torch.equal(sample["target"], target[0])
        params = data.sample_params(1, epoch)["params"]
        assert torch.equal(sample["source"], data.derivation.apply(photo, params[None])[0])


def test_the_global_random_state_is_left_alone(folder):
    state = torch.get_rng_state()
    for source in SOURCES:
        make(folder, source).draw(0, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [kind for kind in DERIVATIONS.values() if kind is not Jpeg])
def test_on_the_device_no_value_is_read(kind):
    """The meta device has no values."""
    made, photos = kind(), torch.rand(2, 3, 24, 24, device="meta")
    params = torch.tensor([made.draw(np.random.default_rng(0), vary=True)] * 2).to("meta")
    source, target = made.pair(photos, params)
    assert source.shape == (2, made.channels, 24, 24)
    assert source.device == target.device == torch.device("meta")


# Photos


def test_the_targets_of_a_data_set_are_photos(folder, tmp_path):
    facades = ProceduralFacades(3, size=16, seed=4)
    data = DerivedPairs(facades, "grey")
    for epoch in range(3):
        assert torch.equal(data.draw(1, epoch)["target"], facades.draw(1, epoch)["target"])
    assert repr(data) == ("3 procedural facades of seed 4, grey to RGB, as Jitter(size=16, load_size=None, flip=True)")
    assert not hasattr(data, "files")
    assert data_config(data) == data_config(facades)
    with pytest.raises(IndexError, match="ProceduralFacades has 3 samples, no index 3"):
        data[3]

    for n in range(2):
        pair = [Image.open(folder / f"{n + k}.png").resize((20, 20)) for k in range(2)]
        both = Image.new("RGB", (40, 20))
        both.paste(pair[0], (0, 0))
        both.paste(pair[1], (20, 0))
        both.save(tmp_path / f"{n}.png")
    pairs = PairedImages(tmp_path, size=16, preprocess="crop", seed=2)
    data = DerivedPairs(pairs, "edges")
    assert torch.equal(data.draw(1, 5)["target"], pairs.draw(1, 5)["target"])
    assert data.files == pairs.files
    assert data.settings == f"{pairs.settings}, {Edges()}, {data._describe_crops()}"
    cached = next(make_cache(data, CPU).batches(2, epoch=5))
    assert torch.equal(cached["source"][1], data.draw(1, 5)["source"])


def test_whole_pictures_of_several_sizes(folder, tmp_path):
    for n in range(2):
        Image.open(folder / f"{n}.png").resize((40 + 40 * n, 24)).save(tmp_path / f"{n}.png")
    data = DerivedPairs(PairedImages(tmp_path, preprocess="none"), "holes")
    assert [sample["source"].shape for sample in data] == [(4, 24, 20), (4, 24, 40)]
    assert make_cache(data, CPU) is None


def test_lab_images_and_facades_are_cases(folder):
    settings = {"size": 24, "load_size": 28, "seed": 3}
    one, other = LabImages(folder, **settings), make(folder, "lab")
    assert repr(one) == repr(other)
    assert data_config(one) == data_config(other)
    assert all(equal(one.draw(i, i), other.draw(i, i)) for i in range(5))
    facades = DerivedPairs(ProceduralFacades(2, size=16), "lab")
    assert repr(facades) == repr(LabFacades(2, size=16))
    assert equal(facades.draw(1, 1), LabFacades(2, size=16).draw(1, 1))


def test_it_says_what_it_is(folder):
    sizes = "40x30, 41x30, 42x30 and 2 more pixels"
    data = DerivedPairs(folder, Small(2), size=16)
    assert repr(data) == (
        f"5 pictures in {folder}, {sizes}, Small(factor=2), as Jitter(size=16, load_size=None, flip=True)"
    )
    assert repr(DerivedPairs(folder, inverted, size=16, augment=False)) == (
        f"5 pictures in {folder}, {sizes}, source inverted, resized to 16x16"
    )
    assert (data.jitter, data.seed, data.augment) == (Jitter(16), 0, True)
    assert data.files == [f"{n}.png" for n in range(5)]
    assert data.settings == f"pictures in {folder}, Small(factor=2), {data._describe_crops()}"


def test_bad_photos_are_an_error_or_left_out(folder, tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes((folder / f"{n}.png").read_bytes()[: -30 if n == 1 else None])
    with pytest.raises(DataError, match=r"1\.png cannot be read as a picture"):
        DerivedPairs(tmp_path, size=16)[1]
    with pytest.warns(UserWarning, match="DerivedPairs: 1 of 3 samples is bad and left out"):
        data = DerivedPairs(tmp_path, size=16, on_bad_image="skip")
    assert (len(list(data)), len(data.bad_images), data.on_bad_image) == (2, 1, "skip")


def test_a_run_on_derived_pairs_resumes_to_the_uninterrupted_one(folder, tmp_path):
    def trainer(out, source="edges", **settings):
        torch.manual_seed(0)
        method = Pix2Pix(UNetGenerator(1, 3, base_channels=4, depth=3), None)
        data = DerivedPairs(folder, source, size=16, load_size=20)
        return Trainer(method, data, out=out, epochs=2, device="cpu", precision="fp32", progress=False, **settings)

    whole = trainer(None)
    whole.fit()
    trainer(tmp_path, max_steps=3).fit()
    resumed = trainer(tmp_path)
    resumed.fit(resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.method.parameters(), resumed.method.parameters(), strict=True))
    with pytest.raises(CheckpointError, match=r"threshold=0\.1"):
        trainer(tmp_path, Edges(threshold=0.1)).fit(resume=True)


# Derivations


def step(height=24, width=24, contrast=1.0, at=12):
    """A photo that is dark left of a column."""
    photo = torch.full((1, 3, height, width), -contrast)
    photo[..., at:] = contrast
    return photo


def test_edges_are_thin_and_black_on_white():
    lines = Edges()(step()[0])
    assert set(lines.unique().tolist()) == {-1.0, 1.0}
    rows = (lines[0] < 0).sum(dim=1)
    assert rows.tolist() == [1] * 24  # one pixel in each row
    assert (lines[0] < 0).any(dim=0).nonzero().flatten().tolist() in ([11], [12])
    down = Edges()(step()[0].transpose(1, 2))
    assert torch.equal(down, lines.transpose(1, 2))


@given(contrast=st.floats(0.05, 1.0), sigma=st.floats(0.7, 3.0))
def test_the_threshold_of_edges_is_the_contrast_of_a_step(contrast, sigma):
    photo = step(contrast=0.98 * contrast)[0]
    assert (Edges(threshold=0.97 * contrast, sigma=sigma)(photo) < 0).any()
    assert not (Edges(threshold=0.99 * contrast, sigma=sigma)(photo) < 0).any()


def test_a_weak_edge_is_kept_where_it_continues_a_strong_one():
    photo = step(contrast=0.5)
    photo[:, :, :12] *= 0.6  # the upper half has less contrast
    kept = Edges(threshold=0.45, sigma=1.0)(photo[0])[0] < 0
    assert kept.any(dim=1).all()
    alone = Edges(threshold=0.45, sigma=1.0)(step(contrast=0.3)[0])[0] < 0
    assert not alone.any()


def test_a_plain_photo_has_no_edges():
    assert (Edges(threshold=0.0)(torch.full((3, 16, 16), 0.3)) == 1).all()


def test_slanted_edges_are_thin():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    for slope in (0.3, 1.0, 2.0, -0.5, -1.0):
        photo = torch.where(columns - 20 > slope * (rows - 20), 1.0, -1.0).expand(3, -1, -1)
        lines = Edges(sigma=1.0)(photo)[0, 5:-5, 5:-5] < 0
        assert 25 <= lines.sum() <= 65  # of 900; a line of one pixel, with steps
        thick = lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]
        assert not thick.any()


@pytest.mark.parametrize("kind", ["centre", "squares", "strokes"])
@given(seed=st.integers(0, 99))
def test_holes_are_0_with_a_mask_and_the_rest_is_the_photo(kind, seed):
    photo = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    source = Holes(kind)(photo, seed=seed)
    rgb, alpha = source.split([3, 1])
    hole = alpha[0] < 0
    assert set(alpha.unique().tolist()) == {-1.0, 1.0}
    assert (rgb[:, hole] == 0).all()
    assert torch.equal(rgb[:, ~hole], photo[:, ~hole])
    assert 0.005 < hole.float().mean() < 0.6


def test_the_hole_in_the_centre_is_a_square():
    hole = Holes("centre", size=0.5)(torch.ones(3, 40, 60))[3] < 0
    assert hole[10:30, 20:40].all()
    assert hole.sum() == 20 * 20
    assert not (Holes("centre", size=0.0)(torch.ones(3, 40, 60))[3] < 0).any()


def test_squares_are_squares():
    params = torch.tensor([[0.25, 0.5, 0.25, 0.5, 0.125, 0.75, 0.25, 0.75, 0.25, 0.05]])
    hole = Holes("squares").apply(torch.ones(1, 3, 40, 80), params)[0, 3] < 0
    assert hole[5:15, 35:45].all()
    assert hole[28:32, 18:22].all()
    assert hole.sum() == 10 * 10 + 4 * 4


def test_a_stroke_is_as_thick_as_drawn():
    params = torch.tensor([[0.5, 0.25, 0.5, 0.75, 0.1]])  # across the middle
    hole = Holes("strokes").apply(torch.ones(1, 3, 40, 40), params)[0, 3] < 0
    assert hole[:, 20].sum() == 8
    assert hole[20].sum() in (27, 28)  # with round ends


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 24, 30), (4, 40, 32), (3, 25, 31)])
def test_small_is_what_pillow_makes_of_a_photo(factor, height, width):
    pixels = np.random.default_rng(0).integers(60, 196, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    small = image.resize((round(width / factor), round(height / factor)), Image.Resampling.BICUBIC)
    expected = to_tensor(small.resize((width, height), Image.Resampling.BICUBIC))
    found = Small(factor)(to_tensor(image))
    assert (found - expected).abs().max() < 3 / 127.5  # Pillow rounds to 8 bit after each step
    assert Small(64)(to_tensor(image)).std(dim=(1, 2)).max() < 1e-3


def test_blur_is_gaussian():
    point = torch.full((3, 31, 31), -1.0)
    point[:, 15, 15] = 1.0
    blurred = (Blur(sigma=2.0)(point) + 1) / 2
    offset = torch.arange(-15, 16.0)
    line = torch.exp(-(offset**2) / 8)
    line = torch.where(offset.abs() <= 6, line, 0.0) / line[9:22].sum()
    torch.testing.assert_close(blurred[0], line[:, None] * line, atol=1e-6, rtol=1e-4)


def test_strengths_are_drawn_between_their_bounds():
    rng = np.random.default_rng(0)
    drawn = [Edges(threshold=(0.1, 0.3), sigma=(1, 2)).draw(rng, vary=True) for _ in range(200)]
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    np.testing.assert_allclose(low, [0.1, 1.0], atol=0.03)
    np.testing.assert_allclose(high, [0.3, 2.0], atol=0.03)
    assert Edges(threshold=(0.1, 0.3), sigma=(1, 2)).draw(rng, vary=False) == pytest.approx([0.2, 1.5])
    assert Blur(2.0).draw(rng, vary=True) == [2.0]
    assert {Jpeg((10, 12)).draw(rng, vary=True)[0] for _ in range(60)} == {10, 11, 12}


def test_jpeg_is_pillow_s():
    photo = torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    file = io.BytesIO()
    to_image(photo).save(file, "JPEG", quality=20)
    assert torch.equal(Jpeg(20)(photo), to_tensor(Image.open(file)))


def test_noise_is_white_and_normal():
    photo, sigma = torch.zeros(3, 100, 100), 0.1
    one, other = (Noise(sigma)(photo, seed=seed) / (2 * sigma) for seed in (0, 1))
    for noise in (one, other):
        assert abs(noise.mean()) < 0.02
        assert abs(noise.std() - 1) < 0.02
        assert abs((noise**3).mean()) < 0.05
        assert abs((noise**4).mean() - 3) < 0.15
        for shift in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
            assert abs((noise * noise.roll(shift, (0, 1, 2))).mean()) < 0.03
    assert abs((one * other).mean()) < 0.03
    assert Noise((0.5, 0.6))(photo).abs().max() == 1


def test_grey_is_pillow_s():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L")).copy())[None]
    assert (Grey()(to_tensor(Image.fromarray(pixels))) - (grey / 127.5 - 1)).abs().max() < 1.1 / 127.5


@pytest.mark.parametrize("made", [kind() for kind in DERIVATIONS.values()], ids=str)
def test_called_it_gives_the_source_of_a_validation_sample(folder, made):
    data = DerivedPairs(folder, made, size=24, augment=False)
    photo = to_tensor(read_image(folder / "2.png").resize((24, 24), Image.Resampling.BICUBIC))
    if not isinstance(made, (Holes, Noise)):  # these draw places and noise for each sample
        assert torch.equal(made(photo), data[2]["source"])
    assert torch.equal(made(photo, seed=1), made(photo, seed=1))
    with pytest.raises(ShapeError) as caught:
        made(torch.zeros(1, 8, 8))
    assert str(caught.value) == f"{type(made).__name__}: expects a photo (3, h, w) in [-1, 1], got (1, 8, 8)."


@EACH_SOURCE
def test_tiny_photos(tmp_path, source):
    Image.new("RGB", (3, 2), (200, 10, 90)).save(tmp_path / "0.png")
    sample = DerivedPairs(tmp_path, source, size=(1, 2), load_size=(2, 3))[0]
    assert sample["source"].shape[1:] == sample["target"].shape[1:] == (1, 2)
    assert sample["source"].isfinite().all()


# Errors


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Edges(threshold=2), "Edges: threshold must be a number between 0 and 1, got 2."),
        (lambda: Edges(sigma=(0.1, 2)), "Edges: sigma must be a number between 0.5 and 5, got 0.1."),
        (lambda: Blur((3, 1)), "Blur: sigma must be bounds (low, high) in this order, got (3, 1)."),
        (lambda: Blur((1, 2, 3)), "Blur: sigma must be a number, or bounds (low, high), got (1, 2, 3)."),
        (lambda: Blur("12"), "Blur: sigma must be a number, or bounds (low, high), got '12'."),
        (lambda: Noise(-0.1), "Noise: sigma must be a number between 0 and 1, got -0.1."),
        (lambda: Jpeg((0, 50)), "Jpeg: quality must be a number between 1 and 95, got 0."),
        (lambda: Small(1), "Small: factor must be a whole number >= 2, got 1."),
        (lambda: Holes("center"), "Holes: kind='center' is not one of ['centre', 'squares', 'strokes']. "
         "Did you mean 'centre'?"),
        (lambda: Holes(size=1.5), "Holes: size must be a number between 0 and 1, got 1.5."),
    ],
)  # fmt: skip
def test_settings_that_are_not_allowed(make, text):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert str(caught.value) == text


def test_bounds_may_be_a_list():
    assert Blur([1, 2]) == Blur((1, 2))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"source": "edge"},
            "DerivedPairs: source='edge' is not one of ['blur', 'edges', 'grey', 'holes', 'jpeg', 'lab', 'noise', "
            "'small']. Did you mean 'edges'?",
        ),
        (
            {"source": Edges},
            "DerivedPairs: source must be one of ['blur', 'edges', 'grey', 'holes', 'jpeg', 'lab', 'noise', 'small'], "
            "a derivation with settings such as Small(factor=4), or a function of photo and generator, got "
            "<class 'imtrans.data.derivations.Edges'>.",
        ),
        ({"on_bad_image": "skp"}, "DerivedPairs: on_bad_image='skp' is not one of ['error', 'skip']. "
         "Did you mean 'skip'?"),
        ({"seed": -1}, "DerivedPairs: seed must be a whole number >= 0, got -1."),
        ({"size": 0}, "Jitter: size must be a whole number >= 1, got 0."),
        (
            {"photos": 3},
            "DerivedPairs: photos must be a folder, or a data set with targets such as ProceduralFacades, got 3.",
        ),
        (
            {"photos": ProceduralFacades(1, size=16), "size": 16},
            "DerivedPairs: size is for a folder of photos, and a ProceduralFacades has its own. Give the arguments to "
            "it.",
        ),
        (
            {"photos": ProceduralFacades(1, size=16), "size": 16, "seed": 1},
            "DerivedPairs: size, seed are for a folder of photos, and a ProceduralFacades has its own. Give the "
            "arguments to it.",
        ),
        (
            {"photos": LabFacades(1, size=16)},
            "DerivedPairs: photos must be targets of 3 channels without a transform, as ProceduralFacades and "
            "PairedImages have, got 1 procedural facade of seed 0, grey to colour, "
            "as Jitter(size=16, load_size=None, flip=True).",
        ),
    ],
)  # fmt: skip
def test_arguments_that_are_not_allowed(folder, arguments, text):
    with pytest.raises(ArgumentError) as caught:
        DerivedPairs(**{"photos": folder, **arguments})
    assert str(caught.value) == text


def test_a_missing_folder():
    with pytest.raises(DataError, match="cannot be read as a folder of pictures"):
        DerivedPairs("nowhere")


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (None, "NoneType"),
        (torch.zeros(24, 24), "Tensor (24, 24) of torch.float32"),
        (torch.zeros(1, 24, 23), "Tensor (1, 24, 23) of torch.float32"),
        (torch.zeros(1, 24, 24, dtype=torch.uint8), "Tensor (1, 24, 24) of torch.uint8"),
    ],
)
def test_a_function_that_returns_no_source(folder, result, found):
    def wrong(photo, generator):
        return result

    with pytest.raises(ArgumentError) as caught:
        DerivedPairs(folder, wrong, size=24)[0]
    assert str(caught.value) == (
        f"source {wrong.__qualname__}: it must return a source, floats (c, 24, 24) with the same number of channels "
        f"for all photos, got {found}."
    )


def test_a_function_with_another_number_of_channels(folder):
    def wrong(photo, generator):
        return photo[: 1 + int(torch.randint(2, (), generator=generator))]

    with pytest.raises(ArgumentError, match="the same number of channels for all photos"):
        [*make_cache(DerivedPairs(folder, wrong, size=24), CPU).batches(5)]


def test_a_derivation_of_one_s_own(folder):
    class Darker(Derivation):
        def apply(self, photos, params):
            return (photos - 1) / 2

    sample = DerivedPairs(folder, Darker(), size=24)[0]
    assert torch.equal(sample["source"], (sample["target"] - 1) / 2)
