import re
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans import ProceduralFacades, sliced_wasserstein
from imtrans.errors import ArgumentError, ShapeError
from imtrans.evaluation.sliced_wasserstein import Patches, SlicedWasserstein, laplacian_pyramid

FEW = {"patches": 16, "directions": 8}


def pictures(count, *, seed=0, size=(32, 32), channels=3):
    """Smooth pictures with some detail."""
    noise = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (F.avg_pool2d(noise, 5, stride=1, padding=2) * 2 + noise / 4).clamp(-1, 1)


def blurred(images, size):
    return F.avg_pool2d(F.pad(images, [size // 2] * 4, mode="replicate"), size, stride=1)


def patches_of(images):
    patches = Patches(64, seed=0)
    patches.add(images)
    return patches.levels()


def wasserstein(one, other):
    """Area between the two distribution functions."""
    values = np.sort(np.concatenate([one, other]))
    cdfs = [np.searchsorted(np.sort(x), values[:-1], side="right") / len(x) for x in (one, other)]
    return float(np.sum(np.abs(cdfs[0] - cdfs[1]) * np.diff(values)))


def mirror(i, size):
    i = abs(i)
    return i if i < size else 2 * size - 2 - i


def blurred_by_hand(image):
    taps, (height, width) = [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for i in range(5):
                for j in range(5):
                    result[y, x] += taps[i] * taps[j] * image[mirror(y + i - 2, height), mirror(x + j - 2, width)]
    return result


@pytest.mark.parametrize("size", [(32, 32), (31, 34)])
def test_the_pyramid_by_hand(size):
    image = pictures(1, size=size, channels=1)
    fine, coarse = laplacian_pyramid(image)
    expected = image[0, 0].double().numpy()
    half = blurred_by_hand(expected)[::2, ::2]
    large = np.zeros_like(expected)
    large[::2, ::2] = half
    assert np.allclose(coarse[0, 0], half, atol=1e-6)
    assert np.allclose(fine[0, 0], expected - 4 * blurred_by_hand(large), atol=1e-6)


@given(height=st.integers(16, 70), width=st.integers(16, 70))
@settings(max_examples=20)
def test_the_last_level_has_16_to_31_pixels(height, width):
    levels = laplacian_pyramid(torch.rand(1, 1, height, width))
    assert 16 <= min(levels[-1].shape[-2:]) < 31
    for finer, coarser in pairwise(levels):
        assert coarser.shape[-2:] == tuple((side + 1) // 2 for side in finer.shape[-2:])


@given(fakes=st.integers(1, 5), reals=st.integers(1, 5), channels=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_it_is_the_mean_of_the_distances_of_each_direction(fakes, reals, channels, seed):
    sets = pictures(fakes, seed=seed, channels=channels), pictures(reals, seed=seed + 1, channels=channels)
    metric = SlicedWasserstein(**FEW, seed=seed)
    metric.fakes.add(sets[0])
    metric.reals.add(sets[1])
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(8, channels * 49, generator=generator).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = []
    for levels in zip(metric.fakes.levels(), metric.reals.levels(), strict=True):
        projected = []
        for patches in levels:
            values = patches.double().numpy()
            assert values.shape[1:] == (channels, 7, 7)
            values = (values - values.mean((0, 2, 3), keepdims=True)) / values.std((0, 2, 3), keepdims=True)
            projected.append(values.reshape(len(values), -1) @ directions.T)
        expected.append(1000 * np.mean([wasserstein(*pair) for pair in zip(*(p.T for p in projected), strict=True)]))
    found = sliced_wasserstein(*sets, **FEW, seed=seed)
    assert list(found) == ["swd", "swd_1", "swd_2"]
    assert list(found.values()) == pytest.approx([np.mean(expected), *expected], rel=1e-4)


def test_patches_are_parts_of_the_pyramid_s_levels_at_the_same_places():
    images = pictures(1, channels=1).expand(2, 1, 32, 32)
    metric = SlicedWasserstein(**FEW)
    metric.add(images, images + 5)
    levels = laplacian_pyramid(images)
    for found, level in zip(metric.fakes.levels(), levels, strict=True):
        assert found.shape == (32, 1, 7, 7)
        windows = {tuple(w.flatten().tolist()) for w in level[0, 0].unfold(0, 7, 1).unfold(1, 7, 1).flatten(0, 1)}
        assert all(tuple(patch.flatten().tolist()) in windows for patch in found)
        assert torch.equal(found[:16], found[16:])
        assert len({tuple(patch.flatten().tolist()) for patch in found}) > 8
    assert torch.allclose(metric.reals.levels()[-1], metric.fakes.levels()[-1] + 5, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (77, 70)])
def test_equal_sets_have_the_distance_0_in_any_order(size):
    images = pictures(6, size=size)
    assert set(sliced_wasserstein(images, images).values()) == {0.0}
    assert max(sliced_wasserstein(images.flip(0), images).values()) < 1e-3


def test_the_order_of_the_images_and_the_batches_change_nothing():
    fakes, reals = pictures(6), pictures(5, seed=1)
    found = sliced_wasserstein(fakes, reals, **FEW)
    assert sliced_wasserstein(fakes[torch.randperm(6)], reals, **FEW) == pytest.approx(found, rel=1e-4)
    assert sliced_wasserstein(iter(fakes.split(4)), list(reals.split(1)), **FEW) == pytest.approx(found, rel=1e-4)
    assert sliced_wasserstein(reals, fakes, **FEW) == pytest.approx(found, rel=1e-4)
    assert sliced_wasserstein(fakes.repeat(3, 1, 1, 1), reals, **FEW) == pytest.approx(found, rel=1e-4)


@given(scale=st.floats(0.1, 1), shift=st.floats(-0.5, 0.5))
@settings(max_examples=10)
def test_contrast_and_brightness_of_a_whole_set_do_not_count(scale, shift):
    fakes, reals = pictures(4), pictures(4, seed=1)
    found = sliced_wasserstein(fakes * scale + shift, reals, **FEW)
    assert found == pytest.approx(sliced_wasserstein(fakes, reals, **FEW), rel=1e-2)


def test_it_grows_with_blur_and_with_noise():
    data = ProceduralFacades(8, size=64, augment=False)
    reals = torch.stack([data[i]["target"] for i in range(8)])
    noise = torch.randn(reals.shape)
    blurs = [sliced_wasserstein(blurred(reals, size), reals)["swd"] for size in (1, 3, 5, 9)]
    noises = [sliced_wasserstein(reals + scale * noise, reals)["swd"] for scale in (0, 0.1, 0.2, 0.4)]
    for values in (blurs, noises):
        assert values[0] == 0
        assert all(better + 5 < worse for better, worse in pairwise(values))


def test_a_grid_of_two_pixels_is_seen_at_the_finest_level_alone():
    reals = pictures(8, size=(64, 64))
    grid = reals.clone()
    grid[..., ::2, ::2] += 0.2
    found = sliced_wasserstein(grid, reals, **FEW)
    assert found["swd_1"] > 20
    assert max(found["swd_2"], found["swd_4"]) < 0.1


def test_constant_images_have_no_noise_to_compare():
    found = sliced_wasserstein(torch.full((2, 3, 32, 32), 0.3), torch.full((2, 3, 32, 32), -0.7), **FEW)
    assert max(found.values()) < 10


def test_the_seed_draws_places_and_directions_and_the_global_state_stays():
    fakes, reals = pictures(3), pictures(3, seed=1)
    state = torch.get_rng_state()
    one, again, other = (sliced_wasserstein(fakes, reals, **FEW, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_ends_to_grow(monkeypatch):
    fakes, reals = pictures(40), pictures(40, seed=1)
    every = {tuple(patch.flatten().tolist()) for patch in patches_of(fakes)[0]}
    monkeypatch.setattr(sys.modules[SlicedWasserstein.__module__], "KEPT", 1000)
    assert [level.shape for level in patches_of(fakes)] == [(1000, 3, 7, 7)] * 2
    assert {tuple(patch.flatten().tolist()) for patch in patches_of(fakes)[0]} < every
    whole = sliced_wasserstein(fakes, reals, patches=64)
    assert sliced_wasserstein(fakes.split(7), reals.split(9), patches=64) == pytest.approx(whole, rel=1e-4)
    assert set(sliced_wasserstein(fakes, fakes, patches=64).values()) == {0.0}


def test_half_precision_is_measured_as_floats():
    fakes, reals = pictures(3).half(), pictures(3, seed=1).bfloat16()
    assert sliced_wasserstein(fakes, reals, **FEW) == sliced_wasserstein(fakes.float(), reals.float(), **FEW)


def test_devices_agree(device):
    fakes, reals = pictures(3), pictures(4, seed=1)
    found = sliced_wasserstein(fakes.to(device), reals.to(device), **FEW)
    assert found == pytest.approx(sliced_wasserstein(fakes, reals, **FEW), rel=1e-3)


def test_a_spoilt_image_gives_nan():
    fakes = pictures(2)
    fakes[0] = float("nan")
    assert np.isnan(sliced_wasserstein(fakes, pictures(2, seed=1), **FEW)["swd"])


@pytest.mark.parametrize(
    ("fakes", "reals", "error", "message"),
    [
        (torch.zeros(3, 32, 32), torch.zeros(1, 3, 32, 32), ShapeError, "images must be (b, c, h, w) with sides of at"),
        (torch.zeros(1, 3, 32, 15), torch.zeros(1, 3, 32, 15), ShapeError, "got (1, 3, 32, 15). Use larger images"),
        (
            torch.zeros(1, 3, 32, 32),
            torch.zeros(1, 1, 64, 64),
            ShapeError,
            "fakes have 2 levels and 3 channels, reals 3 and 1. Both sets must",
        ),
        (
            [torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)],
            torch.zeros(1, 3, 32, 32),
            ShapeError,
            "images with 1 channel follow images with 3. All images",
        ),
        ([], torch.zeros(1, 3, 32, 32), ArgumentError, "fakes has no images."),
        (torch.zeros(1, 3, 32, 32), torch.zeros(0, 3, 32, 32), ArgumentError, "reals has no images."),
    ],
)
def test_sets_that_cannot_be_compared(fakes, reals, error, message):
    with pytest.raises(error, match=re.escape("sliced_wasserstein: ") + ".*" + re.escape(message)):
        sliced_wasserstein(fakes, reals)


@pytest.mark.parametrize(
    ("setting", "allowed"), [({"patches": 0}, ">= 1"), ({"directions": 0.5}, ">= 1"), ({"seed": -1}, ">= 0")]
)
def test_settings_that_are_not_allowed(setting, allowed):
    with pytest.raises(
        ArgumentError, match=f"sliced_wasserstein: {next(iter(setting))} must be a whole number {allowed}"
    ):
        sliced_wasserstein(pictures(1), pictures(1), **setting)
