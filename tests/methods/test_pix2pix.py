import inspect
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam
from torch.utils._python_dispatch import TorchDispatchMode

from imtrans import GANLoss, ImagePool, PatchDiscriminator, Pix2Pix, UNetGenerator, gradient_penalty
from imtrans.errors import ArgumentError, ShapeError
from imtrans.methods import optim
from imtrans.methods.base import Method, Translation, sample_columns
from imtrans.nn.patchgan import _SpectralNorm

RATE, BETAS = 0.02, (0.5, 0.999)


def tiny_generator():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))


def tiny_discriminator(in_channels=6, norm=True):
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), middle, nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))


def batches(count=3, size=8, samples=2):
    return [{n: torch.rand(samples, 3, size, size) * 2 - 1 for n in ("source", "target")} for _ in range(count)]


def bce(logits, label):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


REAL = {
    "vanilla": lambda x: bce(x, 1.0),
    "lsgan": lambda x: (x - 1).square().mean(),
    "hinge": lambda x: F.relu(1 - x).mean(),
    "wgangp": lambda x: -x.mean(),
}
FAKE = {
    "vanilla": lambda x: bce(x, 0.0),
    "lsgan": lambda x: x.square().mean(),
    "hinge": lambda x: F.relu(1 + x).mean(),
    "wgangp": lambda x: x.mean(),
}
FOOL = {**REAL, "hinge": lambda x: -x.mean()}


PIXEL = {
    "l1": lambda fake, target: (fake - target).abs().mean(),
    "l2": F.mse_loss,
    "charbonnier": lambda fake, target: ((fake - target).square() + 1e-6).sqrt().mean(),
}


def by_hand(
    g, d, data, mode="vanilla", l1_weight=100.0, gan_weight=1.0, conditional=True, pool_size=0, pixel_loss="l1",
    d_loss_weight=0.5,
):  # fmt: skip
    """pix2pix in plain PyTorch; returns each step's losses and the gradients of D's own update."""
    adam_g = Adam(g.parameters(), lr=RATE, betas=BETAS, fused=True)
    adam_d = Adam(d.parameters(), lr=RATE, betas=BETAS, fused=True)
    pool = ImagePool(pool_size)
    history, gradients = [], []
    for batch in data:
        source, target = batch["source"], batch["target"]
        fake = g(source)

        def pair(image, source=source):
            return torch.cat([source, image], dim=1) if conditional else image

        shown, real = pool(pair(fake.detach())), pair(target)
        losses = {"D_fake": FAKE[mode](d(shown)), "D_real": REAL[mode](d(real))}
        if mode == "wgangp":
            losses["D_penalty"] = gradient_penalty(d, real, shown)
        adam_d.zero_grad()
        (sum(losses.values()) * d_loss_weight).backward()
        adam_d.step()
        gradients.append([p.grad.clone() for p in d.parameters()])

        d.requires_grad_(False)
        losses["G_gan"] = FOOL[mode](d(pair(fake)))
        pixel = losses[f"G_{pixel_loss}"] = l1_weight * PIXEL[pixel_loss](fake, target)
        adam_g.zero_grad()
        (gan_weight * losses["G_gan"] + pixel).backward()
        adam_g.step()
        d.requires_grad_(True)
        history.append({name: loss.detach() for name, loss in losses.items()})
    return history, gradients


def by_method(method, data):
    optimizers = method.make_optimizers(RATE, BETAS)
    history, gradients = [], []
    for batch in data:
        history.append(method.step(batch, optimizers))
        gradients.append([p.grad.clone() for p in method.discriminator.parameters()])
    return history, gradients


def check_equal_weights(one, other):
    for (name, expected), found in zip(other.state_dict().items(), one.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"l1_weight": 0.0},
        {"conditional": False},
        {"conditional": False, "l1_weight": 0.0},
        {"gan_weight": 0.0},
        {"gan_weight": 3.0, "l1_weight": 10.0},
        {"pool_size": 3},
        {"pixel_loss": "l2"},
        {"pixel_loss": "charbonnier", "l1_weight": 10.0, "mode": "lsgan"},
        {"d_loss_weight": 1.0},
        {"mode": "lsgan"},
        {"mode": "hinge"},
        {"mode": "wgangp"},
        {"mode": "wgangp", "pool_size": 2, "conditional": False},
    ],
    ids=str,
)
def test_training_is_exactly_that_of_a_loop_written_by_hand(settings):
    data = batches()
    g = tiny_generator()
    d = tiny_discriminator(6 if settings.get("conditional", True) else 3, norm=settings.get("mode") != "wgangp")
    named = {("gan_loss" if name == "mode" else name): value for name, value in settings.items()}
    method = Pix2Pix(deepcopy(g), deepcopy(d), **named)
    torch.manual_seed(1)
    expected, expected_gradients = by_hand(g, d, data, **settings)
    torch.manual_seed(1)
    found, found_gradients = by_method(method, data)

    check_equal_weights(method.generator, g)
    check_equal_weights(method.discriminator, d)
    for ours, plain in zip(found, expected, strict=True):
        assert list(ours) == list(plain)
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    for ours, plain in zip(found_gradients, expected_gradients, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_l1_alone_needs_no_discriminator():
    data = batches()
    g = tiny_generator()
    method = Pix2Pix(deepcopy(g), None, l1_weight=5.0)
    optimizers = method.make_optimizers(RATE, BETAS)
    assert list(optimizers) == ["generator"]
    torch.manual_seed(1)
    adam = Adam(g.parameters(), lr=RATE, betas=BETAS, fused=True)
    for batch in data:
        loss = 5 * F.l1_loss(g(batch["source"]), batch["target"])
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.manual_seed(1)
    losses = [method.step(batch, optimizers) for batch in data]
    assert [list(step) for step in losses] == [["G_l1"]] * 3
    check_equal_weights(method.generator, g)


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("vanilla", {"D_fake", "D_real", "G_gan", "G_l1"}),
        ("wgangp", {"D_fake", "D_real", "D_penalty", "G_gan", "G_l1"}),
    ],
)
def test_losses_are_detached_scalars_under_their_names(mode, names):
    method = Pix2Pix(tiny_generator(), tiny_discriminator(norm=False), gan_loss=mode)
    losses = method.step(batches()[0], method.make_optimizers(RATE, BETAS))
    assert set(losses) == names
    assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


def test_the_penalty_of_wgangp_is_reported_and_weighted():
    g, d = tiny_generator(), tiny_discriminator(norm=False)
    batch = batches()[0]
    penalties = []
    for weight in (1.0, 10.0, 0.0):
        method = Pix2Pix(deepcopy(g), deepcopy(d), gan_loss=GANLoss("wgangp", penalty_weight=weight))
        torch.manual_seed(3)
        penalties.append(method.step(batch, method.make_optimizers(RATE, BETAS))["D_penalty"].item())
    assert penalties[0] > 0
    assert penalties[1] == pytest.approx(10 * penalties[0], rel=1e-5)
    assert penalties[2] == 0


@pytest.mark.parametrize(("still", "moving"), [("generator", "discriminator"), ("discriminator", "generator")])
def test_each_optimizer_moves_its_own_network_alone(still, moving):
    method = Pix2Pix(tiny_generator(), tiny_discriminator())
    before = deepcopy(method)
    optimizers = method.make_optimizers(RATE, BETAS)
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    for batch in batches():
        method.step(batch, optimizers)
    pairs = {
        name: list(zip(getattr(method, name).parameters(), getattr(before, name).parameters(), strict=True))
        for name in (still, moving)
    }
    assert all(torch.equal(a, b) for a, b in pairs[still])
    assert not any(torch.equal(a, b) for a, b in pairs[moving])


@pytest.mark.parametrize("clears", [True, False])
def test_the_generator_is_judged_by_the_updated_discriminator_under_autocast_too(monkeypatch, clears):
    """Autocast keeps casts of weights: without a cleared cache, G would meet the D of before its update."""
    batch = batches(1)[0]
    g, d = tiny_generator()[:1].append(nn.Conv2d(4, 3, 1)), tiny_discriminator()
    method = Pix2Pix(deepcopy(g), deepcopy(d))
    adam = Adam(d.parameters(), lr=RATE, betas=BETAS, fused=True)
    with torch.autocast("cpu", torch.bfloat16):
        fake = g(batch["source"])
        pair = torch.cat([batch["source"], fake], dim=1)
        fake_loss, real_loss = bce(d(pair.detach()), 0.0), bce(d(torch.cat([*batch.values()], dim=1)), 1.0)
        old = bce(d(pair), 1.0)
    ((fake_loss + real_loss) / 2).backward()
    adam.step()
    with torch.autocast("cpu", torch.bfloat16):
        new = bce(d(pair), 1.0)
    assert (new - old).abs() > 0.01

    if not clears:
        monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.step(batch, method.make_optimizers(RATE, BETAS))
    assert torch.equal(losses["D_fake"], fake_loss.detach())
    assert torch.equal(losses["G_gan"], new.detach()) == clears


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgangp"])
def test_every_loss_trains_the_networks_of_the_library(mode, device):
    norm = "instance" if mode == "wgangp" else "batch"
    method = Pix2Pix(
        UNetGenerator(base_channels=4, depth=3),
        PatchDiscriminator(6, base_channels=4, n_layers=1, norm=norm),
        gan_loss=mode,
        pool_size=2,
    ).to(device)
    batch = {name: image.to(device) for name, image in batches(1, size=16)[0].items()}
    optimizers = method.make_optimizers(2e-3, BETAS)
    history = [method.step(batch, optimizers) for _ in range(15)]
    assert history[-1]["G_l1"] < history[0]["G_l1"]
    assert all(torch.isfinite(loss) for losses in history for loss in losses.values())


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for a value of the device."""

    waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in self.waits:
            raise AssertionError(f"the step waits for the device: {func}")
        return func(*args, **(kwargs or {}))


def sgd(method):
    return {
        "generator": SGD(method.generator.parameters(), lr=0.1),
        "discriminator": SGD(method.discriminator.parameters(), lr=0.1),
    }


@pytest.mark.parametrize("pool_size", [0, 2])
@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgangp"])
def test_the_step_never_waits_for_the_device(mode, pool_size):
    method = Pix2Pix(tiny_generator(), tiny_discriminator(norm=False), gan_loss=mode, pool_size=pool_size)
    optimizers = sgd(method)  # Adam keeps a counter on the host
    with NoWaiting():
        for batch in batches():
            losses = method.step(batch, optimizers)
        with pytest.raises(AssertionError, match="the step waits"):
            float(losses["G_l1"])


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgangp"])
def test_the_step_runs_without_any_values(mode):
    method = Pix2Pix(tiny_generator(), tiny_discriminator(norm=False), gan_loss=mode).to("meta")
    batch = {name: image.to("meta") for name, image in batches()[0].items()}
    losses = method.step(batch, method.make_optimizers(RATE, BETAS))
    assert {loss.device.type for loss in losses.values()} == {"meta"}


def test_a_frozen_part_of_a_network_stays_and_the_rest_is_trained():
    generator = tiny_generator()
    generator[0].requires_grad_(False)
    method = Pix2Pix(generator, tiny_discriminator())
    before = deepcopy(generator)
    method.step(batches()[0], method.make_optimizers(RATE, BETAS))
    assert torch.equal(generator[0].weight, before[0].weight)
    assert not torch.equal(generator[3].weight, before[3].weight)


def test_update_leaves_no_gradient_on_what_is_not_the_optimizers():
    one, other = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer = SGD(one.parameters(), lr=1.0)
    one.weight.grad = torch.full((2, 2), 1e9)  # left by somebody else
    expected = one.weight - torch.autograd.grad(other(one(torch.ones(1, 2))).sum(), one.weight)[0]
    optim.step(optimizer, other(one(torch.ones(1, 2))).sum())
    assert torch.equal(one.weight, expected)
    assert other.weight.grad is None


def test_the_pool_is_part_of_the_state():
    method = Pix2Pix(tiny_generator(), tiny_discriminator(), pool_size=4)
    optimizers = method.make_optimizers(RATE, BETAS)
    for batch in batches(2):
        method.step(batch, optimizers)
    copy = Pix2Pix(tiny_generator(), tiny_discriminator(), pool_size=4)
    copy.load_state_dict(method.state_dict())
    images = torch.rand(6, 6, 8, 8)
    assert torch.equal(copy.pool(images), method.pool(images))


def test_its_translation_and_its_columns():
    generator = UNetGenerator(base_channels=4, depth=2)
    method = Pix2Pix(generator, tiny_discriminator())
    batch = batches()[0]
    columns = sample_columns(method, batch)
    assert list(columns) == ["source", "fake", "target"]
    assert columns["fake"].shape == columns["target"].shape
    assert not columns["fake"].requires_grad
    assert list(sample_columns(method, {"source": batch["source"]})) == ["source", "fake"]
    assert sample_columns(method, {"target": batch["target"]}) == {}
    assert method.translations() == (Translation("generator", generator),)
    assert isinstance(method, Method)


NOTHING = (
    "there is nothing to minimise. Give a discriminator and a positive gan_weight, or a positive l1_weight, or a "
    "perceptual loss."
)


@pytest.mark.parametrize(
    ("discriminator", "settings", "text"),
    [
        (True, {"l1_weight": -1}, "Pix2Pix: l1_weight must be a number >= 0, got -1."),
        (True, {"gan_weight": -0.5}, "Pix2Pix: gan_weight must be a number >= 0, got -0.5."),
        (True, {"d_loss_weight": -1}, "Pix2Pix: d_loss_weight must be a number >= 0, got -1."),
        (
            True,
            {"pixel_loss": "charbonier"},
            "Pix2Pix: pixel_loss='charbonier' is not one of ['charbonnier', 'l1', 'l2']. Did you mean 'charbonnier'?",
        ),
        (True, {"pool_size": -1}, "ImagePool: size must be a whole number >= 0, got -1."),
        (
            True,
            {"gan_loss": "lsgn"},
            "GANLoss: mode='lsgn' is not one of ['hinge', 'lsgan', 'vanilla', 'wgangp']. Did you mean 'lsgan'?",
        ),
        (False, {"l1_weight": 0}, f"Pix2Pix: without a discriminator and with l1_weight=0 {NOTHING}"),
        (True, {"l1_weight": 0, "gan_weight": 0}, f"Pix2Pix: with gan_weight=0 and with l1_weight=0 {NOTHING}"),
        (
            True,
            {"gan_loss": "wgangp"},
            "GANLoss('wgangp'): the discriminator has a batch norm (1). The gradient penalty asks for each sample's "
            "own gradient, and a batch norm makes it depend on the others. Build it with norm='instance', 'group' "
            "or 'none'.",
        ),
    ],
)
def test_arguments_are_checked(discriminator, settings, text):
    with pytest.raises(ArgumentError) as caught:
        Pix2Pix(tiny_generator(), tiny_discriminator() if discriminator else None, **settings)
    assert str(caught.value) == text


def test_the_step_can_be_read_at_one_glance():
    assert len(inspect.getsourcelines(Pix2Pix.step)[0]) <= 40


@pytest.mark.parametrize(("target", "conditional"), [((2, 3, 16, 16), True), ((2, 1, 8, 8), False)])
def test_a_target_of_another_shape_than_the_output(target, conditional):
    method = Pix2Pix(tiny_generator(), tiny_discriminator(6 if conditional else 3), conditional=conditional)
    batch = {"source": torch.zeros(2, 3, 8, 8), "target": torch.zeros(target)}
    with pytest.raises(ShapeError) as caught:
        method.step(batch, method.make_optimizers(RATE, BETAS))
    assert str(caught.value) == (
        f"Pix2Pix: the generator gives (2, 3, 8, 8) for a source of (2, 3, 8, 8), and the target is {target}. Give "
        "pairs of one size, and a generator with the channels of the target."
    )


@pytest.mark.parametrize(("gan_loss", "norm"), [("vanilla", "batch"), ("wgangp", "instance")])
def test_a_spectral_norm_iterates_once_for_each_update(monkeypatch, gan_loss, norm):
    """Fake, real and penalty see the same weights; so do the features of fake and real."""
    counts, iterate = [], _SpectralNorm._power_method
    monkeypatch.setattr(_SpectralNorm, "_power_method", lambda *a: (counts.append(a[0]), iterate(*a))[1])
    discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, norm=norm, spectral_norm=True)
    method = Pix2Pix(tiny_generator(), discriminator, gan_loss=gan_loss, feature_weight=10.0)
    optimizers = method.make_optimizers(RATE, BETAS)
    counts.clear()
    norms = len([m for m in discriminator.modules() if isinstance(m, _SpectralNorm)])
    for batch in batches(2, size=16):
        assert all(loss.isfinite() for loss in method.step(batch, optimizers).values())
        assert len(counts) == 2 * norms == 6
        counts.clear()


def test_one_iteration_for_two_images_gives_the_same_gradients():
    """With converged singular vectors, more iterations change nothing: computed once or twice, gradients agree."""
    discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, spectral_norm=True).double()
    for module in discriminator.modules():
        if isinstance(module, _SpectralNorm):
            module.n_power_iterations = 500
    fake, real = torch.randn(2, 1, 6, 16, 16, dtype=torch.float64)
    gradients = []
    for context in (parametrize.cached, nullcontext):
        with context():
            loss = bce(discriminator(fake), 0.0) + bce(discriminator(real), 1.0)
        gradients.append(torch.autograd.grad(loss, [*discriminator.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-6)
