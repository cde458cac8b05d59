"""The diversity term of Pix2Pix: two outputs with different noise, and nothing of it without a weight."""

from copy import deepcopy

import pytest
import torch
from tape import Tape
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Adam

from imtrans import Colorization, PatchDiscriminator, Pix2Pix, UNetGenerator, mode_seeking_loss
from imtrans.errors import ArgumentError
from imtrans.methods.optimizer_state import make_capturable
from imtrans.nn.noise import draw_noise
from imtrans.training.cuda_graph import WARM_UP, CapturedStep

SMALL = {"base_channels": 4, "depth": 3, "dropout": (), "noise_channels": 5}


def random_batches(count, size=16):
    made = torch.Generator().manual_seed(count)
    pairs = torch.rand((count, 2, 2, 3, size, size), generator=made) * 2 - 1
    return [dict(zip(("source", "target"), pair, strict=True)) for pair in pairs]


def pix2pix(weight=2.0, *, discriminator=True, seed=3, method=Pix2Pix, **changes):
    torch.manual_seed(seed)
    generator = UNetGenerator(**{**SMALL, **changes})
    critic = PatchDiscriminator(6, base_channels=4, n_layers=1) if discriminator else None
    return method(generator, critic, diversity_weight=weight).train()


class Counted(nn.Module):
    """Counts the passes of a generator, and the noise that it was given."""

    def __init__(self, generator):
        super().__init__()
        self.generator, self.noise_channels, self.noises = generator, generator.noise_channels, []

    def forward(self, source, noise=None):
        self.noises.append(noise)
        return self.generator(source, noise)


def test_the_step_is_the_one_by_hand():
    """L1 and diversity alone: the second output is with other noise, and both have a gradient."""
    (batch,) = random_batches(1)
    method = pix2pix(discriminator=False)
    generator = deepcopy(method.generator)
    adam = Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999), fused=True)
    torch.manual_seed(11)
    losses = method.step(batch, method.make_optimizers(0.01, (0.5, 0.999)))
    torch.manual_seed(11)
    noises = [torch.randn(2, 5), torch.randn(2, 5)]
    fake, other = (generator(batch["source"], noise) for noise in noises)
    diversity = 2.0 * mode_seeking_loss(fake, other, *noises)
    l1 = 100.0 * (fake - batch["target"]).abs().mean()
    (l1 + diversity).backward()
    adam.step()
    assert list(losses) == ["G_l1", "G_diversity"]
    torch.testing.assert_close(losses["G_diversity"], diversity.detach())
    torch.testing.assert_close(losses["G_l1"], l1.detach())
    for one, expected in zip(method.generator.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(one, expected)


def test_a_second_pass_is_made_only_with_a_weight():
    (batch,) = random_batches(1)
    for weight, passes in ((0.0, 1), (1.0, 2)):
        method = pix2pix(weight)
        method.generator = counted = Counted(method.generator)
        losses = method.step(batch, method.make_optimizers(0.01, (0.5, 0.999)))
        assert len(counted.noises) == passes
        assert ("G_diversity" in losses) == (passes == 2)
    assert not torch.equal(*counted.noises)
    assert [noise.shape for noise in counted.noises] == [(2, 5)] * 2


def test_without_a_weight_a_generator_without_noise_draws_no_number_more():
    (batch,) = random_batches(1)
    method = pix2pix(0.0, noise_channels=0)
    state = torch.get_rng_state()
    losses = method.step(batch, method.make_optimizers(0.01, (0.5, 0.999)))
    assert torch.equal(torch.get_rng_state(), state)
    assert set(losses) == {"G_l1", "G_gan", "D_real", "D_fake"}


def test_some_steps_of_it_drive_the_outputs_apart():
    """Of two runs that differ in the weight alone, the one with it has the more different outputs."""
    batches = random_batches(30)
    found = []
    for weight in (0.0, 5.0):
        method = pix2pix(weight)
        optimizers = method.make_optimizers(0.002, (0.5, 0.999))
        for batch in batches:
            method.step(batch, optimizers)
        source = batches[0]["source"]
        with torch.no_grad():
            first, second = (method.generator(source, noise) for noise in (torch.ones(2, 5), -torch.ones(2, 5)))
        found.append((first - second).abs().mean().item())
    assert found[1] > 2 * found[0]


@pytest.mark.parametrize("noise_at", ["input", "bottleneck"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_recorded_step_draws_new_noise_each_time(noise_at, weight):
    """A CUDA graph in miniature: bit for bit as the plain step, noise included."""
    batches, states = random_batches(10), []
    for captured in (False, True):
        method = pix2pix(weight, noise_at=noise_at)
        optimizers = method.make_optimizers(0.01, (0.5, 0.999))
        assert make_capturable(optimizers, torch.device("cpu")) is None

        def state(method=method, optimizers=optimizers):
            of_optimizers = [t for o in optimizers.values() for s in o.state.values() for t in s.values()]
            return [*method.parameters(), *method.buffers(), *of_optimizers]

        tape = Tape(state)

        def plain(batch, method=method, optimizers=optimizers):
            return method.step(batch, optimizers)

        step = CapturedStep(plain, tape, insist=True) if captured else plain
        torch.manual_seed(5)
        losses = [step(batch) for batch in batches]
        states.append([*state(), *(loss for each in losses for loss in each.values())])
    assert (tape.recorded, tape.replayed) == (1, len(batches) - WARM_UP)
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_step_branches_on_no_value(precision):
    with FakeTensorMode():
        method = pix2pix()
        optimizers = method.make_optimizers(0.01, (0.5, 0.999))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(2):
                losses = method.step({name: torch.rand(2, 3, 32, 32) for name in ("source", "target")}, optimizers)
    assert losses["G_diversity"].dtype == torch.float32


def test_the_weight_is_a_setting_of_the_run():
    assert pix2pix(0.5).settings()["diversity_weight"] == 0.5
    assert pix2pix(0.0).settings()["diversity_weight"] == 0.0


def test_colorization_takes_it():
    torch.manual_seed(3)
    generator = UNetGenerator(1, 2, **SMALL)
    method = Colorization(generator, PatchDiscriminator(3, base_channels=4, n_layers=1), diversity_weight=1.0)
    batch = {"source": torch.rand(2, 1, 16, 16), "target": torch.rand(2, 2, 16, 16)}
    assert "G_diversity" in method.step(batch, method.make_optimizers(0.01, (0.5, 0.999)))


def test_noise_is_drawn_for_each_image_in_its_dtype():
    source = torch.zeros(3, 3, 4, 4, dtype=torch.bfloat16)
    noise = draw_noise(source, 8)
    assert (noise.shape, noise.dtype) == ((3, 8), torch.bfloat16)
    many = draw_noise(torch.zeros(2000, 1, 1, 1), 8)
    torch.testing.assert_close(torch.stack([many.mean(), many.std()]), torch.tensor([0.0, 1.0]), atol=0.05, rtol=0)


def test_a_generator_without_noise_is_refused():
    for generator, name in ((UNetGenerator(base_channels=4, depth=3), "UNetGenerator"), (nn.Identity(), "Identity")):
        with pytest.raises(ArgumentError) as caught:
            Pix2Pix(generator, None, diversity_weight=1.0)
        assert str(caught.value) == (
            f"Pix2Pix: diversity_weight=1.0 compares outputs for different noise, and the generator {name} takes none. "
            "Use UNetGenerator(noise_channels=8), or diversity_weight=0."
        )


def test_a_negative_weight_is_refused():
    with pytest.raises(ArgumentError, match=r"Pix2Pix: diversity_weight must be a number >= 0, got -1\."):
        pix2pix(-1)
