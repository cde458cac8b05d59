import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imtrans import PatchDiscriminator, Pix2Pix, UNetGenerator
from imtrans.evaluate import compare_modes, keep_randomness, l1_and_psnr
from imtrans.modes import MODES, running_as

CPU = torch.device("cpu")


@given(seed=st.integers(0, 2**16), batch=st.integers(1, 3), channels=st.integers(1, 3))
def test_l1_and_psnr_are_those_of_the_formulas(seed, batch, channels):
    rng = np.random.default_rng(seed)
    fake, target = rng.uniform(-1, 1, (2, batch, channels, 4, 5))
    l1, psnr = l1_and_psnr(torch.from_numpy(fake), torch.from_numpy(target)).numpy()
    for i in range(batch):
        one, other = (fake[i] + 1) / 2, (target[i] + 1) / 2
        assert l1[i] == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
        assert psnr[i] == pytest.approx(10 * math.log10(1 / ((one - other) ** 2).mean()), rel=1e-5)


def test_an_identical_picture_has_a_finite_psnr():
    picture = torch.rand(1, 3, 4, 4)
    assert l1_and_psnr(picture, picture).flatten().tolist() == [0, 100]


def test_half_precision_is_compared_in_full():
    fake, target = torch.full((1, 1, 64, 64), 0.5, dtype=torch.bfloat16), torch.zeros(1, 1, 64, 64)
    assert l1_and_psnr(fake, target)[0].item() == 0.25


class Scale(nn.Module):
    """Multiplies by 0 in eval mode, otherwise by what makes "batch_stats" (1) or "paper" (0.5) of it."""

    def __init__(self, factors):
        super().__init__()
        self.norm, self.dropout, self.factors = nn.BatchNorm2d(3), nn.Dropout(), factors

    def preview(self, batch):
        mode = "paper" if self.dropout.training else "batch_stats" if self.norm.training else "eval"
        return {"fake": batch["source"] * self.factors[mode], "target": batch["target"]}


@pytest.mark.parametrize("best", MODES)
def test_the_best_mode_has_the_lowest_l1(best):
    method = Scale({mode: 1.0 if mode == best else 0.25 for mode in MODES})
    picture = torch.rand(5, 3, 4, 4)
    samples = [{"source": picture[i : i + 2], "target": picture[i : i + 2]} for i in (0, 2, 4)]
    found = compare_modes(method, method.preview, lambda: samples, CPU)
    assert list(found) == [*MODES, "best"]
    assert found["best"] == best
    assert found[best] == {"l1": 0, "psnr": 100}
    other = next(mode for mode in MODES if mode != best)
    # A mean over the pictures, not over the batches: the last batch is smaller.
    assert found[other]["l1"] == pytest.approx(0.375 * picture.mean().item(), rel=1e-5)


def pix2pix(**settings):
    return Pix2Pix(UNetGenerator(base_channels=4, depth=3, **settings), PatchDiscriminator(6, base_channels=4))


@pytest.fixture
def samples():
    return [{"source": torch.rand(2, 3, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}]


def test_each_mode_is_that_of_running_as(samples):
    method = pix2pix(dropout=())
    found = compare_modes(method, method.preview, lambda: samples, CPU)
    for mode in ("eval", "batch_stats"):
        with torch.no_grad(), running_as(method.generator, mode):
            fake = method.generator(samples[0]["source"])
        l1, psnr = l1_and_psnr(fake, samples[0]["target"]).mean(dim=1).tolist()
        assert found[mode] == {"l1": pytest.approx(l1), "psnr": pytest.approx(psnr)}
    assert found["paper"] == found["batch_stats"]
    assert found["eval"] != found["batch_stats"]


def test_dropout_is_drawn_from_the_seed(samples):
    method = pix2pix()
    one, again, other = (compare_modes(method, method.preview, lambda: samples, CPU, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one["paper"] != other["paper"]
    assert one["eval"] == other["eval"]


def test_the_network_and_the_random_state_are_left_as_they_were(samples, device):
    method = pix2pix().to(device)
    method.discriminator.eval()
    weights = {name: tensor.clone() for name, tensor in method.generator.state_dict().items()}
    training = {name: module.training for name, module in method.named_modules()}
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        compare_modes(method, method.preview, lambda: samples, device)
        assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in method.named_modules()} == training
    for name, tensor in method.generator.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert all(p.grad is None and p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("missing", ["fake", "target"])
def test_a_method_without_pairs_is_not_compared(samples, missing):
    def preview(batch):
        return {name: batch["source"] for name in ("source", "fake", "target") if name != missing}

    state = torch.get_rng_state()
    assert compare_modes(nn.Identity(), preview, lambda: samples, CPU) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_keep_randomness_gives_the_state_back_even_after_an_error(device):
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), keep_randomness(device):
        torch.manual_seed(9).seed() / 0
    assert torch.equal(torch.get_rng_state(), state)
