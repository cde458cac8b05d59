import copy
import re

import pytest
import torch
from torch import nn

from imtrans import LocalEnhancer, MultiscaleDiscriminator, Pix2Pix, ResnetGenerator, UNetGenerator
from imtrans.errors import ArgumentError


def norm_relu(conv):
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]


def seven(narrow, wide):
    return [nn.ReflectionPad2d(3), nn.Conv2d(narrow, wide, 7)]


class AuthorsBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.path = nn.Sequential(
            nn.ReflectionPad2d(1), *norm_relu(nn.Conv2d(width, width, 3)),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return x + self.path(x)


def authors_down(narrow):
    return norm_relu(nn.Conv2d(narrow, 2 * narrow, 3, 2, 1))


def authors_up(wide):
    return norm_relu(nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, output_padding=1))


def authors_features(in_channels, base, downs, blocks):
    """The global generator of pix2pixHD, written down again from what its code computes, without its output."""
    pad, conv = seven(in_channels, base)
    layers = [pad, *norm_relu(conv)]
    for i in range(downs):
        layers += authors_down(base * 2**i)
    layers += [AuthorsBlock(base * 2**downs) for _ in range(blocks)]
    for i in reversed(range(downs)):
        layers += authors_up(base * 2 ** (i + 1))
    return nn.Sequential(*layers)


def authors_output(base, out_channels):
    return nn.Sequential(*seven(base, out_channels), nn.Tanh())


class AuthorsEnhancer(nn.Module):
    """One or more local enhancers of pix2pixHD around a global generator, likewise."""

    def __init__(self, in_channels, out_channels, base, enhancers, local_blocks, downs, blocks):
        super().__init__()
        self.inner = authors_features(in_channels, base * 2**enhancers, downs, blocks)
        self.fronts, self.backs = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(enhancers)):
            width = base * 2**level
            pad, conv = seven(in_channels, width)
            self.fronts.append(nn.Sequential(pad, *norm_relu(conv), *authors_down(width)))
            path = [*(AuthorsBlock(2 * width) for _ in range(local_blocks)), *authors_up(2 * width)]
            self.backs.append(nn.Sequential(*path, *(authors_output(width, out_channels) if level == 0 else [])))

    def forward(self, image):
        pyramid = [image]
        for _ in self.fronts:
            pyramid.append(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)(pyramid[-1]))
        x = self.inner(pyramid.pop())
        for front, back in zip(self.fronts, self.backs, strict=True):
            x = back(front(pyramid.pop()) + x)
        return x


def with_weights_of(network, authors):
    """Both have their layers in the order in which an image passes, but for the enhancers: front, then back."""
    if isinstance(authors, AuthorsEnhancer):
        parts = [authors.inner, *(m for pair in zip(authors.fronts, authors.backs, strict=True) for m in pair)]
    else:
        parts = [authors]
    theirs = [p for part in parts for p in part.parameters()]
    with torch.no_grad():
        for p, q in zip(theirs, network.parameters(), strict=True):
            p.copy_(q)
    return authors


def tiny(**changes):
    settings = {"base_channels": 2, "num_blocks": 1, "global_blocks": 1, "global_downs": 1}
    return LocalEnhancer(**{**settings, **changes})


def test_the_preset_computes_what_the_global_generator_of_pix2pixhd_computes():
    network = ResnetGenerator.preset("pix2pixHD/global", 5, base_channels=2)
    authors = nn.Sequential(authors_features(5, 2, downs=4, blocks=9), authors_output(2, 3))
    with_weights_of(network, authors)
    image = torch.rand(1, 5, 64, 96)
    torch.testing.assert_close(network(image), authors(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("in_channels", [3, 36])
def test_the_preset_has_as_many_parameters_as_the_global_generator_of_pix2pixhd(in_channels):
    with torch.device("meta"):
        network = ResnetGenerator.preset("pix2pixHD/global", in_channels)
    ends = (49 * in_channels + 1) * 64 + (49 * 64 + 1) * 3
    downs = sum((9 * w + 1) * 2 * w for w in (64, 128, 256, 512))
    ups = sum((9 * 2 * w + 1) * w for w in (64, 128, 256, 512))
    blocks = 9 * 2 * (9 * 1024 + 1) * 1024
    assert network.num_parameters() == ends + downs + ups + blocks


@pytest.mark.parametrize("enhancers", [1, 2])
def test_it_computes_what_that_of_pix2pixhd_computes(enhancers):
    network = LocalEnhancer(5, base_channels=2, num_enhancers=enhancers, num_blocks=2, global_blocks=1, global_downs=2)
    authors = with_weights_of(network, AuthorsEnhancer(5, 3, 2, enhancers, local_blocks=2, downs=2, blocks=1))
    image = torch.rand(1, 5, 32, 48)
    torch.testing.assert_close(network(image), authors(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("enhancers", [1, 2])
def test_it_has_as_many_parameters_as_that_of_pix2pixhd(enhancers):
    with torch.device("meta"):
        ours, theirs = LocalEnhancer(36, num_enhancers=enhancers), AuthorsEnhancer(36, 3, 32, enhancers, 3, 4, 9)
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("enhancers", [1, 2])
def test_from_a_global_generator_it_takes_all_but_the_output(enhancers):
    settings = {
        "norm": "batch",
        "act": "elu",
        "upsample": "nearest",
        "dropout": 0.5,
        "odd_sizes": "error",
        "bias": True,
    }
    trained = ResnetGenerator(4, 2, base_channels=8, num_blocks=1, num_downs=2, out_act="none", **settings)
    trained.ups[0].norm.running_mean.fill_(0.5)
    before = copy.deepcopy(trained.state_dict())
    enhancer = LocalEnhancer.from_global(trained, num_enhancers=enhancers, num_blocks=2)
    same = {name: value for name, value in trained.config.items() if name not in ("num_blocks", "num_downs")}
    own = {"num_enhancers": enhancers, "num_blocks": 2, "global_blocks": 1, "global_downs": 2}
    assert enhancer.config == {**same, **own, "base_channels": 8 // 2**enhancers}
    inner = enhancer.coarse if enhancers == 1 else enhancer.coarse.coarse
    features = trained.eval().ups(trained.blocks(trained.downs(trained.stem(torch.ones(1, 4, 16, 16)))))
    assert torch.equal(inner.eval()(torch.ones(1, 4, 16, 16)), features)
    with torch.no_grad():
        for parameter in enhancer.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


def test_from_global_refuses_what_has_no_global_generator():
    with pytest.raises(ArgumentError, match=re.escape("from_global: takes a ResnetGenerator, got UNetGenerator.")):
        LocalEnhancer.from_global(UNetGenerator(base_channels=2, depth=1))
    with pytest.raises(ArgumentError) as caught:
        LocalEnhancer.from_global(ResnetGenerator(base_channels=6, num_blocks=0), num_enhancers=2)
    assert str(caught.value) == (
        "LocalEnhancer.from_global: base_channels=6 of the global generator must be a multiple of 4, because each "
        "enhancer halves the width. Use fewer enhancers, or train a global generator of another width."
    )
    with pytest.raises(ArgumentError, match="num_enhancers must be a whole number from 1 to 4, got 0"):
        LocalEnhancer.from_global(ResnetGenerator(base_channels=6, num_blocks=0), num_enhancers=0)


@pytest.mark.parametrize("enhancers", [1, 2])
def test_a_frozen_global_generator_stays_and_is_trained_later(enhancers):
    enhancer = tiny(num_enhancers=enhancers)
    enhancer.coarse.requires_grad_(False)
    discriminator = MultiscaleDiscriminator(base_channels=2, n_layers=1)
    method = Pix2Pix(enhancer, discriminator, gan_loss="lsgan", l1_weight=0, feature_weight=10)
    optimizers = method.make_optimizers(1e-3, (0.5, 0.999))
    batch = {name: torch.rand(1, 3, 32, 32) for name in ("source", "target")}

    def moved():
        before = {name: p.detach().clone() for name, p in enhancer.named_parameters()}
        for _ in range(2):
            method.step(batch, optimizers)
        changed = {name.split(".")[0] for name, p in enhancer.named_parameters() if not torch.equal(p, before[name])}
        still = {name for name, p in enhancer.named_parameters() if torch.equal(p, before[name])}
        return changed, {name for name in still if not name.endswith("bias")}

    assert moved() == ({"fine"}, {n for n, _ in enhancer.named_parameters() if "coarse" in n and n.endswith("weight")})
    enhancer.coarse.requires_grad_(True)
    assert moved() == ({"coarse", "fine"}, set())


def test_its_output_depends_on_both_the_fine_and_the_coarse_part():
    enhancer = tiny()
    image = torch.rand(1, 3, 32, 32)
    before = enhancer(image)
    for part in (enhancer.coarse, enhancer.fine):
        changed = copy.deepcopy(enhancer)
        target = changed.coarse if part is enhancer.coarse else changed.fine
        with torch.no_grad():
            target.stem.conv.weight.mul_(-1)
        assert not torch.allclose(changed(image), before, atol=1e-4)
