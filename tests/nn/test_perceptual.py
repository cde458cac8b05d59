"""The perceptual loss, on a network of three layers and on VGG19 with random weights."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imtrans import PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator, perceptual_loss
from imtrans.errors import ArgumentError, CheckpointError, ShapeError
from imtrans.nn.perceptual import VGG19_LAYERS, VGG19_WEIGHTS, vgg19

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def tiny(channels=3, *, inplace=False):
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, 4, 3), relu=nn.ReLU(inplace=inplace), drop=nn.Dropout(), last=nn.Conv2d(4, 2, 3)
        )
    )


def images(count=2, channels=3, size=16):
    return torch.rand(count, 2, channels, size, size).unbind(1) if count > 1 else torch.rand(2, 1, channels, size, size)


def test_it_is_the_weighted_sum_of_l1_distances_of_normalised_features():
    network, (fake, target) = tiny(), images()
    loss = perceptual_loss(network, ["relu", "conv"], [0.5, 2.0])
    x, y = (((image + 1) / 2 - MEAN[:, None, None]) / STD[:, None, None] for image in (fake, target))
    a, b = network.conv(x), network.conv(y)
    expected = 0.5 * F.l1_loss(a.relu(), b.relu()) + 2 * F.l1_loss(a, b)
    torch.testing.assert_close(loss(fake, target), expected)
    assert repr(loss) == "PerceptualLoss(Sequential, relu: 0.5, conv: 2)"
    plain = perceptual_loss(network, ["conv"], normalize=False)
    torch.testing.assert_close(plain(fake, target), F.l1_loss(network.conv(fake), network.conv(target)))


def test_the_gradient_flows_to_the_output_alone():
    network, (fake, target) = tiny(), images()
    fake.requires_grad_()
    target.requires_grad_()
    perceptual_loss(network, ["last"])(fake, target).backward()
    assert fake.grad.abs().sum() > 0
    assert target.grad is None
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_grey_images_become_rgb():
    network, (fake, target) = tiny(), images(channels=1)
    loss = perceptual_loss(network, ["last"])
    torch.testing.assert_close(loss(fake, target), loss(fake.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1)))


def test_the_network_is_no_part_of_the_state_and_stays_in_eval_mode_but_moves_along():
    loss = perceptual_loss(tiny(), ["last"])
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    loss.train()
    fake, target = images()
    assert torch.equal(loss(fake, target), loss(fake, target))  # no dropout
    copied = copy.deepcopy(loss).double()
    torch.testing.assert_close(copied(fake.double(), target.double()).float(), loss(fake, target))
    assert loss(fake, target).dtype == torch.float32
    assert perceptual_loss(tiny(), ["last"]).to("meta")(fake.to("meta"), target.to("meta")).is_meta


def test_layers_behind_the_last_one_do_not_run():
    network, (fake, target) = tiny(), images()
    network.last.register_forward_hook(lambda *_: pytest.fail("it ran"))
    perceptual_loss(network, ["conv", "relu"])(fake, target)


def test_a_network_that_is_no_sequential():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.unused = tiny(), nn.Identity()

        def forward(self, x):
            return self.body(x)

    network, (fake, target) = Net(), images()
    found = perceptual_loss(network, ["body.relu"])(fake, target)
    torch.testing.assert_close(found, perceptual_loss(network.body, ["relu"])(fake, target))
    with pytest.raises(ArgumentError, match=r"perceptual_loss: unused did not run, or did not return a tensor\."):
        perceptual_loss(network, ["body.relu", "unused"])(fake, target)


def test_a_layer_that_a_later_one_overwrites_is_refused():
    fake, target = images()
    with pytest.raises(ArgumentError) as caught:
        perceptual_loss(tiny(inplace=True), ["conv", "relu"])(fake, target)
    assert str(caught.value) == (
        "perceptual_loss: the output of conv is changed in place by a later layer. Choose that layer, or build the "
        "network with inplace=False."
    )
    perceptual_loss(tiny(inplace=True), ["relu"])(fake, target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (["rela"],),
            "Sequential has no layer 'rela'. Did you mean 'relu'? See network.named_modules() for the names.",
        ),
        (("relu",), "layers must be names of layers, got 'relu'."),
        (([],), "layers must be names of layers, got []."),
        ((["relu"], [1.0, 2.0]), "got 2 weights for 1 layer. Give one for each."),
        ((["relu"], [-1.0]), "each of weights must be a number >= 0, got -1.0."),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        perceptual_loss(tiny(), *arguments)
    assert str(caught.value) == f"perceptual_loss: {message}"


def test_images_that_do_not_fit_are_refused():
    loss, (fake, target) = perceptual_loss(tiny(), ["relu"]), images()
    with pytest.raises(ShapeError, match=r"fake \(2, 3, 16, 16\) and target \(1, 3, 16, 16\) must have the same shape"):
        loss(fake, target[:1])
    with pytest.raises(ShapeError, match=r"expects RGB or grey images .* got a tensor of shape \(2, 2, 16, 16\)"):
        loss(fake[:, :2], target[:, :2])


# VGG19


def test_vgg19_has_the_layers_of_the_paper():
    with torch.device("meta"):
        network = vgg19()
    names = list(network._modules)
    convs = [name for name in names if name.startswith("conv")]
    assert len(convs) == 16
    assert [names.index(name) for name in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")] == [0, 5, 10, 19, 28]
    assert len(names) == 37
    assert sum(p.numel() for p in network.parameters()) == 20_024_384
    assert network(torch.zeros(1, 3, 64, 96, device="meta")).shape == (1, 512, 2, 3)


def test_the_default_layers_and_weights_are_of_pix2pixhd():
    network = vgg19()
    fake, target = images(size=32)
    loss = perceptual_loss(network)
    assert (loss.layers, loss.weights) == (VGG19_LAYERS, VGG19_WEIGHTS)
    terms = [perceptual_loss(network, [name])(fake, target) for name in VGG19_LAYERS]
    expected = sum(weight * term for weight, term in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), terms, strict=True))
    torch.testing.assert_close(loss(fake, target), expected)


# In pix2pix


def test_pix2pix_adds_it_to_the_generators_loss_and_no_checkpoint_holds_it(tmp_path):
    def method(**options):
        torch.manual_seed(0)
        generator = UNetGenerator(base_channels=4, depth=2, dropout=())
        return Pix2Pix(generator, PatchDiscriminator(base_channels=4, n_layers=1), **options)

    torch.manual_seed(1)
    loss, data = (
        perceptual_loss(tiny(), ["relu"]),
        [{"source": s * 2 - 1, "target": t * 2 - 1} for s, t in zip(*images(), strict=True)],
    )
    settings = {"device": "cpu", "precision": "fp32", "progress": False, "epochs": 1, "log_every": 1}
    trainer = Trainer(own := method(perceptual=loss, perceptual_weight=3.0), data, out=tmp_path / "run", **settings)
    batch = {name: sample[None] for name, sample in data[0].items()}
    with torch.no_grad():
        own.train()
        expected = 3 * loss(copy.deepcopy(own.generator)(batch["source"]), batch["target"])
    losses = trainer.train_step(batch)
    torch.testing.assert_close(losses["G_perceptual"], expected)
    other = Trainer(method(), data, out=None, **settings)
    assert "G_perceptual" not in other.train_step(batch)
    weights = [run.method.generator.head.weight for run in (trainer, other)]
    assert not torch.equal(*weights)
    assert own.state_dict().keys() == other.method.state_dict().keys()
    trainer.fit()
    assert (
        Trainer(method(perceptual=loss, perceptual_weight=3.0), data, out=tmp_path / "run", **settings).fit(resume=True)
        is None
    )


def test_pix2pix_may_have_the_perceptual_term_alone():
    generator, loss = UNetGenerator(base_channels=4, depth=2), perceptual_loss(tiny(), ["relu"])
    Pix2Pix(generator, None, l1_weight=0, perceptual=loss)
    with pytest.raises(ArgumentError, match="nothing to minimise"):
        Pix2Pix(generator, None, l1_weight=0, perceptual=loss, perceptual_weight=0)
    with pytest.raises(ArgumentError, match=r"perceptual must be an nn\.Module that maps .* got a str"):
        Pix2Pix(generator, None, perceptual="vgg19")


def test_a_run_is_not_resumed_with_another_perceptual_term(tmp_path):
    data = [{"source": s * 2 - 1, "target": t * 2 - 1} for s, t in zip(*images(), strict=True)]

    def run(loss, **resume):
        method = Pix2Pix(UNetGenerator(base_channels=4, depth=2), None, perceptual=loss)
        settings = {"device": "cpu", "precision": "fp32", "progress": False, "epochs": 1}
        Trainer(method, data, out=tmp_path / "run", **settings).fit(**resume)

    run(perceptual_loss(tiny(), ["relu"]))
    run(perceptual_loss(tiny(), ["relu"]), resume=True)
    was = r"perceptual was 'PerceptualLoss\(.*, relu: 1\)', now "
    for other, now in ((None, "None"), (perceptual_loss(tiny(), ["conv"]), ".*, conv: 1")):
        with pytest.raises(CheckpointError, match=was + now):
            run(other, resume=True)


def test_a_network_is_no_perceptual_loss():
    with pytest.raises(ArgumentError, match="that maps output and target to a scalar"):
        Pix2Pix(UNetGenerator(base_channels=4, depth=2), None, perceptual=tiny())
