"""pix2pixHD without its perceptual term, put together from its parts."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from test_pix2pix import NoWaiting, sgd
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset

from imtrans import (
    GANLoss,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    ids_from_colours,
    load_pretrained,
    one_hot,
)
from imtrans.data.facades.plan import LABELS
from imtrans.errors import ArgumentError

RATE, BETAS = 1e-3, (0.5, 0.999)
CHANNELS = len(LABELS) + 1


class LabelMaps(Dataset):
    """Procedural facades whose source is a channel for each class, and one for the edges."""

    def __init__(self, length=2, **settings):
        self.facades = ProceduralFacades(length, size=32, **settings)

    def __len__(self):
        return len(self.facades)

    def __getitem__(self, index):
        return self.draw(index, epoch=0)

    def draw(self, index, epoch):
        sample = self.facades.draw(index, epoch)
        ids = ids_from_colours(sample["source"][None], LABELS.values())
        return {**sample, "source": one_hot(ids, len(LABELS), instances=ids)[0]}


def enhancer():
    return LocalEnhancer(CHANNELS, base_channels=2, num_blocks=1, global_blocks=1, global_downs=2)


def multiscale(in_channels=CHANNELS + 3):
    return MultiscaleDiscriminator(in_channels, base_channels=4, n_layers=2)


def pix2pixhd(generator=None, discriminator=None, **changes):
    settings = {"gan_loss": GANLoss("lsgan", scales="sum"), "l1_weight": 0.0, "feature_weight": 10.0}
    return Pix2Pix(generator or enhancer(), discriminator or multiscale(), **{**settings, **changes})


def batch_of(samples=1):
    return torch.utils.data.default_collate([LabelMaps(samples, augment=False)[i] for i in range(samples)])


def test_it_learns_and_moves_every_network():
    method = pix2pixhd()
    before = deepcopy(method)
    optimizers = method.make_optimizers(RATE, BETAS)
    batch = batch_of(2)
    history = [method.step(batch, optimizers) for _ in range(25)]
    assert list(history[0]) == ["D_fake", "D_real", "G_gan", "G_features", "G_l1"]
    assert all(loss.isfinite() and not loss.requires_grad for losses in history for loss in losses.values())
    assert sum(h["G_features"] for h in history[-5:]) < 0.8 * sum(h["G_features"] for h in history[:5])
    assert all(losses["G_l1"] == 0 for losses in history)
    same = [
        name
        for (name, now), old in zip(method.named_parameters(), before.parameters(), strict=True)
        if name.endswith("weight") and torch.equal(now, old)
    ]
    assert same == []


def discriminator_features(discriminator, x):
    """By hand, with hooks: what each convolution block gives."""
    kept = []
    blocks = [m for m in discriminator.modules() if type(m).__name__ == "ConvNormAct"]
    hooks = [block.register_forward_hook(lambda m, i, out: kept.append(out)) for block in blocks]
    discriminator(x)
    for hook in hooks:
        hook.remove()
    scales = len(discriminator.scales) if isinstance(discriminator, MultiscaleDiscriminator) else 1
    return [kept[i : i + len(kept) // scales] for i in range(0, len(kept), len(kept) // scales)]


@pytest.mark.parametrize("kind", [multiscale, lambda: PatchDiscriminator(CHANNELS + 3, base_channels=4, n_layers=2)])
@pytest.mark.parametrize("settings", [{}, {"l1_weight": 5.0, "gan_weight": 0.5, "feature_weight": 3.0}])
def test_a_step_is_that_of_a_loop_written_by_hand(kind, settings):
    method = pix2pixhd(discriminator=kind(), **settings)
    g, d = deepcopy(method.generator), deepcopy(method.discriminator)
    gan, batch = method.gan_loss, batch_of()
    optimizers = sgd(method)  # Adam would blow up the rounding of biases that a norm takes away
    sgd_g, sgd_d = (SGD(n.parameters(), lr=0.1) for n in (g, d))
    for _ in range(2):
        ours = method.step(batch, optimizers)
        fake = g(batch["source"])
        pair = torch.cat([batch["source"], fake], dim=1)
        real = torch.cat([batch["source"], batch["target"]], dim=1)
        sgd_d.zero_grad()
        (gan.discriminator(d(real), d(pair.detach())) / 2).backward()
        sgd_d.step()
        sgd_g.zero_grad()
        fakes, reals = discriminator_features(d, pair), discriminator_features(d, real)
        matching = 0.0
        for fake_scale, real_scale in zip(fakes, reals, strict=True):
            layers = len(real_scale) - 1
            for layer in range(layers):
                distance = (fake_scale[layer] - real_scale[layer].detach()).abs().mean()
                matching = matching + 4 / layers / len(reals) * method.feature_weight * distance
        l1 = method.l1_weight * F.l1_loss(fake, batch["target"])
        fooled = gan.generator(d(pair))
        (method.gan_weight * fooled + matching + l1).backward()
        sgd_g.step()
        for name, loss in {"G_gan": fooled, "G_features": matching, "G_l1": l1}.items():
            torch.testing.assert_close(ours[name], loss.detach(), rtol=1e-5, atol=1e-6)
    for network, by_hand in ((method.generator, g), (method.discriminator, d)):
        for one, other in zip(network.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_a_weight_the_discriminator_is_not_asked_for_features():
    discriminator = multiscale()
    calls = []
    discriminator.register_forward_hook(lambda *_: calls.append(True))
    method = pix2pixhd(discriminator=discriminator, feature_weight=0.0)
    losses = method.step(batch_of(), method.make_optimizers(RATE, BETAS))
    assert "G_features" not in losses
    assert len(calls) == 3


def test_features_alone_can_train_the_generator():
    method = pix2pixhd(gan_weight=0.0)
    before = deepcopy(method.generator)
    method.step(batch_of(), method.make_optimizers(RATE, BETAS))
    pairs = zip(method.generator.named_parameters(), before.parameters(), strict=True)
    moved = {name.split(".")[0] for (name, now), old in pairs if not torch.equal(now, old)}
    assert moved == {"coarse", "fine"}


def test_the_step_never_waits_for_the_device():
    method = pix2pixhd()
    optimizers, batch = sgd(method), batch_of()
    with NoWaiting():
        losses = method.step(batch, optimizers)
        with pytest.raises(AssertionError, match="the step waits"):
            float(losses["G_features"])


def test_the_discriminator_gets_no_gradient_of_the_feature_term():
    method, seen = pix2pixhd(), []
    optimizers = method.make_optimizers(RATE, BETAS)
    step = optimizers["discriminator"].step
    optimizers["discriminator"].step = lambda: (
        seen.append([p.grad.clone() for p in method.discriminator.parameters()]),
        step(),
    )
    method.step(batch_of(), optimizers)
    now = [p.grad for p in method.discriminator.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(now, seen[0], strict=True))


@pytest.mark.parametrize(
    ("discriminator", "found"),
    [(None, "there is none"), (nn.Conv2d(CHANNELS + 3, 1, 3), "Conv2d has none")],
)
def test_a_discriminator_without_features_is_refused(discriminator, found):
    with pytest.raises(ArgumentError) as caught:
        Pix2Pix(enhancer(), discriminator, feature_weight=10.0)
    assert str(caught.value) == (
        "Pix2Pix: feature_weight=10.0 needs a discriminator with a method features(images) that returns the output of "
        f"each layer, and {found}. Use PatchDiscriminator or MultiscaleDiscriminator, or feature_weight=0."
    )


def test_a_negative_weight_is_refused():
    with pytest.raises(ArgumentError) as caught:
        pix2pixhd(feature_weight=-1)
    assert str(caught.value) == "Pix2Pix: feature_weight must be a number >= 0, got -1."


def test_the_trainer_trains_it_in_two_stages(tmp_path):
    data = LabelMaps(2)
    settings = {"epochs": 2, "progress": False, "device": "cpu", "precision": "fp32", "log_every": 1}
    global_generator = ResnetGenerator.preset("pix2pixHD/global", CHANNELS, base_channels=4, num_downs=2, num_blocks=1)
    Trainer(pix2pixhd(global_generator), data, out=None, **settings).fit()

    generator = LocalEnhancer.from_global(global_generator, num_blocks=1)
    generator.coarse.requires_grad_(False)
    method, val_data = pix2pixhd(generator), LabelMaps(2, seed=1, augment=False)
    trainer = Trainer(method, data, val_data=val_data, out=tmp_path / "fine", **settings)
    assert trainer.fit()["best"] in ("eval", "batch_stats", "paper")
    kept = global_generator.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in generator.coarse.state_dict().items())
    assert list((tmp_path / "fine" / "samples").iterdir())
    assert (tmp_path / "fine" / "index.html").read_text().count("G_features") > 0

    again = pix2pixhd(LocalEnhancer(**generator.config))
    longer = {**settings, "epochs": 3, "decay_epochs": 1}
    Trainer(again, data, val_data=val_data, out=tmp_path / "fine", **longer).fit(resume=True)
    coarse = again.generator.coarse.state_dict()
    assert all(not torch.equal(coarse[name], kept[name]) for name in coarse if name.endswith("weight"))
    saved = load_pretrained(tmp_path / "fine" / "generator")
    assert isinstance(saved, LocalEnhancer)
    assert (tmp_path / "fine" / "generator" / "README.md").read_text().count("translate(generator, source)") == 1
