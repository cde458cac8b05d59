import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans import UNetGenerator, frechet_distance
from imtrans.errors import ArgumentError, ShapeError, counted
from imtrans.evaluation.frechet_distance import FrechetDistance, Moments, distance_of_moments
from imtrans.modes import running_as


def moments(*batches):
    result = Moments()
    for batch in batches:
        result.add(torch.as_tensor(batch))
    return result


def samples(rng, count, channels):
    return rng.normal(size=(count, channels)) @ rng.normal(size=(channels, channels)) + rng.normal(size=channels)


def segmenter(**settings):
    return UNetGenerator.preset("unet_2015", 3, 4, base_channels=4, depth=3, norm="batch", bias=None, **settings)


@given(seed=st.integers(0, 2**16), channels=st.integers(1, 6), counts=st.tuples(*[st.integers(2, 40)] * 2))
@settings(max_examples=30)
def test_it_is_the_distance_of_the_formula(seed, channels, counts):
    rng = np.random.default_rng(seed)
    one, other = (samples(rng, count, channels) for count in counts)
    covariances = [np.cov(x, rowvar=False).reshape(channels, channels) for x in (one, other)]
    # The trace of a matrix root is the sum of the roots of its eigenvalues, symmetric or not.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0))
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2) + sum(map(np.trace, covariances)) - 2 * roots.sum()
    assert distance_of_moments(moments(one), moments(other)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(seed=st.integers(0, 2**16), size=st.integers(1, 20), offset=st.sampled_from([0.0, 1e4]))
@settings(max_examples=20)
def test_moments_are_those_of_numpy_in_any_batches(seed, size, offset):
    x = samples(np.random.default_rng(seed), 37, 4) + offset
    found = moments(*torch.from_numpy(x).split(size))
    assert np.allclose(found.mean(), x.mean(0), rtol=1e-12)
    assert np.allclose(found.covariance(), np.cov(x, rowvar=False), atol=1e-9)


def test_a_shift_costs_its_square_and_a_scale_the_squared_difference_of_the_deviations():
    x = torch.randn(500, 3, dtype=torch.float64)
    assert distance_of_moments(moments(x), moments(x + 2)) == pytest.approx(12)
    variance = x.var(dim=0).sum().item()
    mean = x.mean(dim=0)
    assert distance_of_moments(moments(x), moments((x - mean) * 3 + mean)) == pytest.approx(4 * variance)


def test_a_turn_of_the_features_changes_nothing():
    rng = np.random.default_rng(0)
    one, other = samples(rng, 50, 5), samples(rng, 60, 5)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    found = distance_of_moments(moments(one), moments(other))
    assert distance_of_moments(moments(one @ turn), moments(other @ turn)) == pytest.approx(found, rel=1e-6)
    assert distance_of_moments(moments(other), moments(one)) == pytest.approx(found, rel=1e-6)


def test_fewer_samples_than_channels_have_a_distance():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(3, 20)), rng.normal(size=(4, 20))
    assert distance_of_moments(moments(one), moments(other)) > 1
    assert distance_of_moments(moments(one), moments(one)) == pytest.approx(0, abs=1e-6)


def test_texture_and_layout_of_a_u_net_are_its_middle_and_innermost_level():
    network, fakes, reals = segmenter(), torch.rand(3, 3, 16, 16), torch.rand(4, 3, 16, 16)
    with torch.no_grad(), running_as(network, "eval"):
        middle = [network.encoder[:2](images) for images in (fakes, reals)]
        inner = [network.encoder(images) for images in (fakes, reals)]
    expected = {
        name: distance_of_moments(*(moments(x.movedim(1, -1).flatten(0, 2)) for x in pair))
        for name, pair in {"texture": middle, "layout": inner}.items()
    }
    found = frechet_distance(fakes, reals, network)
    assert found == pytest.approx(expected)
    assert list(found) == ["texture", "layout"]
    named = {"texture": "encoder.1", "layout": "encoder.2"}
    assert frechet_distance(fakes, reals, network, layers=named) == found
    assert frechet_distance(fakes, reals, nn.DataParallel(network)) == found


@pytest.mark.parametrize(("depth", "texture"), [(1, 0), (2, 0), (5, 2), (8, 3)])
def test_the_middle_level(depth, texture):
    metric = FrechetDistance(UNetGenerator(base_channels=1, depth=depth))
    assert metric.layers == {"texture": f"encoder.{texture}", "layout": f"encoder.{depth - 1}"}


def test_batches_are_one_set_and_the_order_does_not_count():
    network, fakes, reals = segmenter(), torch.rand(5, 3, 16, 16), torch.rand(4, 3, 16, 16)
    found = frechet_distance(fakes, reals, network)
    assert frechet_distance(iter(fakes.flip(0).split(2)), list(reals.split(1)), network) == pytest.approx(found)
    assert frechet_distance(reals, fakes, network) == pytest.approx(found)
    assert frechet_distance(fakes, fakes.flip(0), network) == pytest.approx({"texture": 0, "layout": 0}, abs=1e-6)


def test_it_grows_with_blur():
    network, reals = segmenter(), torch.rand(4, 3, 32, 32)
    blurred = [nn.functional.avg_pool2d(reals, size, stride=1, padding=size // 2) for size in (1, 3, 5, 7)]
    values = [frechet_distance(each, reals, network)["texture"] for each in blurred]
    assert values == sorted(values)


def test_a_spoilt_image_gives_nan():
    images = torch.rand(2, 3, 16, 16)
    found = frechet_distance(images / 0, images, segmenter())
    assert all(map(np.isnan, found.values()))


def test_the_network_is_left_as_it_was():
    network = segmenter().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frechet_distance(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(ShapeError):
        frechet_distance(torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16), network)
    assert not any(module._forward_hooks for module in network.modules())


def test_features_without_positions_and_networks_in_half_precision():
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    fakes, reals = torch.rand(5, 3, 8, 8), torch.rand(6, 3, 8, 8)
    found = frechet_distance(fakes, reals, classifier, layers={"class": "3", "map": "0"})
    assert list(found) == ["class", "map"]
    half = frechet_distance(fakes, reals, classifier.bfloat16(), layers={"class": "3", "map": "0"})
    assert half == pytest.approx(found, rel=0.2)


def test_devices_agree(device):
    network, fakes, reals = segmenter(), torch.rand(5, 3, 16, 16), torch.rand(4, 3, 16, 16)
    found = frechet_distance(fakes, reals, network)
    assert frechet_distance(fakes, reals, network.to(device)) == pytest.approx(found, rel=1e-2)


class Skipping(nn.Module):
    """Its submodule `unused` does not run, and the output of `pair` is no tensor."""

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    def __init__(self):
        super().__init__()
        self.unused, self.pair = nn.Conv2d(3, 3, 1), self.Pair()

    def forward(self, x):
        return self.pair(x)[0]


@pytest.mark.parametrize(
    ("network", "layers", "error", "message"),
    [
        (nn.Conv2d(3, 1, 1), None, ArgumentError, "layers=None needs a UNetGenerator, got a Conv2d. Name the layers"),
        (nn.Conv2d(3, 1, 1), {"a": "conv"}, ArgumentError, "layers names modules that the network lacks: conv. Use"),
        (nn.Conv2d(3, 1, 1), {}, ArgumentError, "layers is empty. Name at least one module."),
        (Skipping(), {"a": "unused"}, ArgumentError, "the module 'unused' does not run. Choose another for layers."),
        (Skipping(), {"a": "pair"}, ShapeError, "the output of 'pair' is tuple. It must be a tensor (b, c, ...)"),
    ],
)
def test_layers_that_cannot_be_compared(network, layers, error, message):
    with pytest.raises(error, match=re.escape(f"frechet_distance: {message}")):
        frechet_distance(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), network, layers=layers)


@pytest.mark.parametrize(("fakes", "reals", "name", "count"), [([], None, "fakes", 0), (None, 1, "reals", 1)])
def test_sets_that_are_too_small(fakes, reals, name, count):
    images, network = torch.rand(2, 3, 1, 1), nn.Sequential(nn.Conv2d(3, 2, 1))
    sets = [images[:each] if isinstance(each, int) else images if each is None else each for each in (fakes, reals)]
    message = f"frechet_distance: {name} has {counted(count, 'sample')}, and at least 2 are needed. Add images."
    with pytest.raises(ArgumentError, match=re.escape(message)):
        frechet_distance(*sets, network, layers={"all": "0"})
