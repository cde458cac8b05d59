"""Diversity of several outputs for one source, in evaluate."""

from itertools import combinations

import numpy as np
import pytest
import torch

from imtrans import ProceduralFacades, UNetGenerator, evaluate
from imtrans.errors import ArgumentError
from imtrans.evaluation.metrics import diversity

DATA = ProceduralFacades(5, size=16, augment=False)


def network(**changes):
    torch.manual_seed(7)
    return UNetGenerator(**{"base_channels": 4, "depth": 3, "noise_channels": 5, **changes})


def test_it_is_the_mean_of_all_pairs_in_numpy():
    images = [torch.rand(2, 3, 4, 5) * 2 - 1 for _ in range(4)]
    arrays = [(image.double().numpy() + 1) / 2 for image in images]
    expected = np.mean([np.abs(a - b).mean(axis=(1, 2, 3)) for a, b in combinations(arrays, 2)], axis=0)
    assert diversity(images).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert diversity([images[0]] * 3).tolist() == [0, 0]


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("changes", [{}, {"noise_channels": 0}], ids=["noise", "dropout"])
def test_samples_add_it_and_leave_the_other_metrics_alone(batch_size, changes):
    settings = {"mode": "paper", "metrics": ("l1", "psnr", "swd"), "batch_size": batch_size}
    generator = network(**changes)
    state = torch.get_rng_state()
    plain = evaluate(generator, DATA, **settings)
    with_samples = evaluate(generator, DATA, samples=3, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert with_samples.pop("diversity") > 1e-4
    assert with_samples == plain
    assert evaluate(generator, DATA, samples=3, **settings) == evaluate(generator, DATA, samples=3, **settings)
    other = evaluate(generator, DATA, samples=3, seed=1, **settings)
    assert other["diversity"] != evaluate(generator, DATA, samples=3, **settings)["diversity"]


def test_each_image_counts_once():
    """The mean over the five images, whose last batch has one."""
    generator = network(dropout=()).eval()
    source = torch.stack([DATA[i]["source"] for i in range(5)])
    torch.manual_seed(0)
    expected = []
    with torch.no_grad():
        for part in source.split(2):
            fake = generator(part)
            state = torch.get_rng_state()
            expected.append((fake - generator(part)).abs().mean(dim=(1, 2, 3)) / 2)
            torch.set_rng_state(state)
    found = evaluate(generator, DATA, metrics=("l1",), mode="eval", batch_size=2, samples=2)
    assert found["diversity"] == pytest.approx(torch.cat(expected).mean().item(), rel=1e-6)


def test_colours_are_compared_in_rgb():
    class Grey(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {"source": torch.full((1, 16, 16), i - 0.5), "target": torch.zeros(2, 16, 16)}

    generator = network(in_channels=1, out_channels=2)
    plain = evaluate(generator, Grey(), metrics=("l1",), samples=2)["diversity"]
    generator.colours = "lab"
    assert evaluate(generator, Grey(), metrics=("l1",), samples=2)["diversity"] != plain


@pytest.mark.parametrize("samples", [1, 0, True, 2.5])
def test_fewer_than_two_samples_are_refused(samples):
    with pytest.raises(ArgumentError, match=rf"evaluate: samples must be a whole number >= 2, got {samples}\."):
        evaluate(network(), DATA, samples=samples)


def test_a_generator_whose_outputs_are_equal_is_refused():
    with pytest.raises(
        ArgumentError, match="evaluate: samples=2 would give equal outputs: UNetGenerator takes no noise"
    ):
        evaluate(network(noise_channels=0), DATA, samples=2)
