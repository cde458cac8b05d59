import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from imtrans import Colorization, UNetGenerator, translate, uncertainty, uncertainty_map
from imtrans.data.images import to_tensor
from imtrans.errors import ArgumentError, ShapeError


def network(in_channels=3, out_channels=3, **changes):
    torch.manual_seed(7)
    generator = UNetGenerator(in_channels, out_channels, base_channels=4, depth=4, **changes)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(6)
    return generator.eval()


NOISY = {"noise_channels": 5, "dropout": ()}
by_source = pytest.mark.parametrize(("settings", "mode"), [(NOISY, "eval"), ({}, "paper")], ids=["noise", "dropout"])


@by_source
def test_mean_and_deviation_are_of_the_samples_of_translate(settings, mode):
    generator, image = network(**settings), torch.rand(3, 20, 30) * 2 - 1
    outputs = torch.stack(translate(generator, image, mode=mode, samples=5, seed=3))
    mean, std = uncertainty(generator, image, samples=5, seed=3)
    assert torch.allclose(mean, outputs.mean(dim=0), atol=1e-6)
    expected = ((outputs - outputs.mean(dim=0)) ** 2).mean(dim=(0, 1)).sqrt()
    assert torch.allclose(std[0], expected, atol=1e-6)
    assert std.max() > 0.01


@by_source
def test_a_batch_has_a_map_for_each_image(settings, mode):
    generator, images = network(**settings), torch.rand(2, 3, 16, 16) * 2 - 1
    outputs = torch.stack(translate(generator, images, mode=mode, samples=3, seed=0))
    mean, std = uncertainty(generator, images, samples=3)
    assert (mean.shape, std.shape) == ((2, 3, 16, 16), (2, 1, 16, 16))
    assert torch.allclose(mean, outputs.mean(dim=0), atol=1e-6)
    assert not torch.equal(std[0], std[1])


def test_the_mean_has_the_type_of_the_source(tmp_path):
    generator = network(**NOISY)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    of_tensor = uncertainty(generator, to_tensor(Image.fromarray(pixels)), samples=4)
    for source in (tmp_path / "a.png", Image.fromarray(pixels), pixels, pixels[None]):
        mean, std = uncertainty(generator, source, samples=4)
        is_array = isinstance(source, np.ndarray)
        assert isinstance(mean, np.ndarray if is_array else Image.Image)
        values = np.asarray(mean).reshape(20, 30, 3)
        assert np.abs(values / 127.5 - 1 - of_tensor.mean.permute(1, 2, 0).numpy()).max() < 2 / 255
        assert std.shape == ((1, 1, 20, 30) if is_array and source.ndim == 4 else (1, 20, 30))
        assert (std.reshape(20, 30) - of_tensor.std[0]).abs().max() < 2 / 255


def test_outputs_outside_the_range_of_images_are_kept():
    generator = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))
    nn.init.constant_(generator[0].weight, 1.0)
    generator.in_channels = 3
    outputs = torch.stack(translate(generator, torch.ones(3, 16, 16), mode="paper", samples=3, seed=0))
    assert outputs.abs().max() > 1.1
    assert torch.allclose(uncertainty(generator, torch.ones(3, 16, 16), samples=3).mean, outputs.mean(dim=0), atol=1e-5)


def test_colours_and_class_ids():
    lab = network(1, 2, **NOISY)
    Colorization(lab, None)
    grey = Image.fromarray(np.full((16, 16), 120, np.uint8))
    mean, std = uncertainty(lab, grey, samples=3)
    assert (mean.mode, std.shape) == ("RGB", (1, 16, 16))
    by_id = network(4, 3, **NOISY)
    by_id.num_labels = 4
    ids = np.random.default_rng(0).integers(0, 4, (16, 16), dtype=np.uint8)
    assert uncertainty(by_id, ids, samples=3).mean.shape == (16, 16, 3)


def test_tiles_have_the_same_noise():
    generator = network(**NOISY)
    image = torch.rand(3, 64, 64) * 2 - 1
    tiled = uncertainty(generator, image, samples=2, tile=64)
    assert torch.allclose(tiled.std, uncertainty(generator, image, samples=2).std, atol=1e-5)


def test_a_seed_repeats_it_and_leaves_the_global_state():
    generator, image = network(), torch.rand(3, 16, 16)
    before = torch.get_rng_state()
    one, again, other = (uncertainty(generator, image, samples=2, seed=seed).std for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(*(uncertainty(generator, image, samples=2, seed=None).std for _ in range(2)))


@pytest.mark.parametrize(
    ("settings", "arguments", "text"),
    [
        (NOISY, {"samples": 1}, r"uncertainty: samples must be a whole number >= 2, got 1\."),
        ({"dropout": ()}, {}, "uncertainty: .* noise"),
        ({}, {"mode": "eval"}, "uncertainty: .* noise"),
        (NOISY, {"mode": "training"}, "uncertainty: mode='training' is not one of"),
        (NOISY, {"image": [torch.zeros(3, 16, 16)]}, r"uncertainty: takes one image, got a list\. Call it for each"),
    ],
)
def test_errors(settings, arguments, text):
    with pytest.raises(ArgumentError, match=text):
        uncertainty(network(**settings), **{"image": torch.zeros(3, 16, 16), **arguments})


def test_a_map_goes_from_black_to_white():
    pixels = np.asarray(uncertainty_map(torch.linspace(0, 0.6, 61).reshape(1, 1, 61)).convert("L"))[0].astype(int)
    assert pixels[0] == 0
    assert (np.diff(pixels[:51]) > 0).all()
    assert set(pixels[50:]) == {pixels[-1]}
    half = np.asarray(uncertainty_map(torch.full((1, 1, 1), 0.25)))
    assert np.array_equal(half, np.asarray(uncertainty_map(torch.full((1, 1, 1), 0.5), top=1.0)))


def test_errors_of_a_map():
    with pytest.raises(ShapeError, match=r"uncertainty_map: expects \(1, h, w\), got \(2, 1, 4, 4\)"):
        uncertainty_map(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ArgumentError, match="uncertainty_map: top must be a number"):
        uncertainty_map(torch.zeros(1, 4, 4), top=0)
