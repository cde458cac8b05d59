"""The energy of grids, against a Fourier transform of the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imtrans import ProceduralFacades, UNetGenerator, evaluate
from imtrans.errors import ShapeError
from imtrans.evaluation.spectrum import PERIODS, Grid, resampling_energy
from imtrans.nn.layers import upsample_conv


def tiled(period, copies=8, seed=0):
    """An image that repeats a random tile of `period` pixels, without mean."""
    tile = torch.randn(1, 3, period, period, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return (tile - tile.mean(dim=(2, 3), keepdim=True)).repeat(1, 1, copies * 8 // period, copies * 8 // period)


@given(st.integers(0, 2**31), st.sampled_from(PERIODS))
def test_a_repeated_tile_has_all_its_energy_at_its_period_or_shorter_ones(seed, period):
    image = tiled(period, seed=seed)
    energy = resampling_energy(image)[0]
    assert energy.sum().item() == pytest.approx(image.square().mean().item())
    assert all(energy[i] < 1e-12 for i, longer in enumerate(PERIODS) if longer > period)


def test_it_is_the_power_of_the_windowed_image_at_these_frequencies():
    image = torch.randn(1, 1, 64, 48, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    rows, columns = (np.repeat(np.hanning(n // 8 + 2)[1:-1], 8) for n in (64, 48))
    window = np.outer(rows, columns)
    power = np.abs(np.fft.fft2(image[0, 0].numpy() * window) / window.sum()) ** 2
    at = power[::8, ::6]  # 8 x 8 frequencies
    expected = [sum(at[j, i] for i in range(8) for j in range(8) if (i or j) and 8 // np.gcd.reduce([8, i, j]) == p)
                for p in PERIODS]  # fmt: skip
    assert resampling_energy(image)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("period", PERIODS)
def test_an_added_grid_is_found(period):
    photos = torch.stack([sample["target"] for sample in ProceduralFacades(4, size=64, augment=False)])
    grid = 0.05 * tiled(period).float()
    assert ratio(photos, photos) == pytest.approx(1)
    assert ratio(photos + grid, photos) > 1.5
    assert ratio(nn.functional.avg_pool2d(photos, 5, 1, 2), photos) < 0.5


def ratio(fake, target):
    metric = Grid()
    for pair in zip(fake.split(1), target.split(1), strict=True):
        metric.add(*pair)
    return metric.result()["grid"]


def test_a_deconvolution_leaves_a_grid_and_resizing_does_not():
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.randn(8, 4, 8, 8), scale_factor=8, mode="bicubic")
    energy = {}
    for upsample in ("deconv", "nearest"):
        layer = upsample_conv(4, 3, upsample=upsample, bias=False)
        nn.init.normal_(layer.weight if upsample == "deconv" else layer[1].weight, std=0.1)
        energy[upsample] = resampling_energy(layer(smooth).detach())[:, 0].mean().item()
    assert energy["deconv"] > 20 * energy["nearest"]


def test_evaluate_computes_it():
    scores = evaluate(UNetGenerator(base_channels=2, depth=3), ProceduralFacades(2, size=32), metrics=["grid"])
    assert scores["grid"] > 0


def test_errors():
    with pytest.raises(ShapeError, match=r"at least 16 pixels, got shape \(1, 3, 15, 40\)"):
        resampling_energy(torch.zeros(1, 3, 15, 40))
    with pytest.raises(ShapeError, match=r"got shape \(3, 40, 40\)"):
        resampling_energy(torch.zeros(3, 40, 40))
