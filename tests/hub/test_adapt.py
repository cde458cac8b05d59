"""Loading to a device and dtype, and with other numbers of channels than the saved network has."""

import pytest
import torch
from torch import nn

from imtrans import (
    HugGANGenerator,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UNetGenerator,
    load_pretrained,
)
from imtrans.errors import ArgumentError, SavedModelError
from imtrans.hub.pretrained import Pretrained

GENERATORS = {
    "unet": lambda **kw: UNetGenerator(base_channels=4, depth=3, **kw),
    "unet of depth 1": lambda **kw: UNetGenerator(base_channels=4, depth=1, **kw),
    "unet with a stem": lambda **kw: UNetGenerator(base_channels=4, depth=3, stem=True, num_convs=2, **kw),
    "nearest": lambda **kw: UNetGenerator(base_channels=4, depth=2, upsample="nearest", **kw),
    "shuffle": lambda **kw: UNetGenerator(base_channels=4, depth=2, upsample="shuffle", **kw),
    "resnet": lambda **kw: ResnetGenerator(base_channels=4, num_blocks=1, num_downs=1, **kw),
    "enhancer": lambda **kw: LocalEnhancer(base_channels=2, num_blocks=1, global_blocks=1, global_downs=1, **kw),
    "huggan": lambda **kw: HugGANGenerator(base_channels=4, depth=3, **kw),
}
DISCRIMINATORS = {
    "patch": lambda **kw: PatchDiscriminator(base_channels=8, n_layers=1, **kw),
    "spectral": lambda **kw: PatchDiscriminator(base_channels=8, n_layers=1, spectral_norm=True, **kw),
    "pixel": lambda **kw: PixelDiscriminator(base_channels=8, **kw),
    "multiscale": lambda **kw: MultiscaleDiscriminator(base_channels=8, n_layers=1, spectral_norm=True, **kw),
}


def saved(network, folder):
    network(torch.rand(2, network.in_channels, 32, 32))  # running statistics and singular vectors leave their start
    network.save_pretrained(folder)
    return network.eval()


def maps(output):
    return output if isinstance(output, list) else [output]


def close(one, other):
    for a, b in zip(maps(one), maps(other), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [*GENERATORS, "patch", "pixel"])
def test_a_grey_image_means_the_same_with_one_channel_and_with_three(tmp_path, kind):
    make = {**GENERATORS, **DISCRIMINATORS}[kind]
    network = saved(make(in_channels=3), tmp_path / "colour")
    grey = torch.rand(1, 1, 32, 32) * 2 - 1
    adapted = load_pretrained(tmp_path / "colour", in_channels=1)
    assert (adapted.in_channels, adapted.config["in_channels"]) == (1, 1)
    close(adapted(grey), network(grey.expand(-1, 3, -1, -1)))
    adapted.save_pretrained(tmp_path / "grey")
    close(load_pretrained(tmp_path / "grey", in_channels=3)(grey.expand(-1, 3, -1, -1)), adapted(grey))


@pytest.mark.parametrize("kind", ["spectral", "multiscale"])
def test_spectral_norms_are_those_of_the_adapted_weights(tmp_path, kind):
    saved(DISCRIMINATORS[kind](in_channels=6), tmp_path)
    adapted = load_pretrained(tmp_path, in_channels=4)
    for module in adapted.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 4 and module.kernel_size == (4, 4):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    assert all(logits.isfinite().all() for logits in maps(adapted(torch.rand(1, 4, 32, 32))))


@pytest.mark.parametrize("kind", [kind for kind in GENERATORS if kind != "huggan"])  # it has no argument out_act
def test_outputs_are_repeated_or_averaged(tmp_path, kind):
    network = saved(GENERATORS[kind](out_channels=2, out_act="none"), tmp_path)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    output = network(images)
    close(load_pretrained(tmp_path, out_channels=1)(images), output.mean(1, keepdim=True))
    more = type(network).from_pretrained(tmp_path, out_channels=5)
    assert more.config["out_channels"] == 5
    close(more(images), output[:, [0, 1, 0, 1, 0]])


def test_more_inputs_are_repeated_and_rescaled_and_both_ends_change_at_once(tmp_path):
    network = saved(GENERATORS["unet of depth 1"](), tmp_path)
    adapted = load_pretrained(tmp_path, in_channels=4, out_channels=4)
    weight = network.encoder[0].conv.weight
    assert torch.equal(adapted.encoder[0].conv.weight, weight[:, [0, 1, 2, 0]] * 0.75)
    assert torch.equal(adapted.head.weight, network.head.weight[:, [0, 1, 2, 0]])
    assert torch.equal(adapted.head.bias, network.head.bias[[0, 1, 2, 0]])
    adapted.save_pretrained(tmp_path / "again")  # its description is true
    images = torch.rand(1, 4, 8, 8)
    assert torch.equal(load_pretrained(tmp_path / "again")(images), adapted(images))
    adapted.train()(images).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())


def test_the_same_number_changes_nothing(tmp_path):
    network = GENERATORS["unet"](in_channels=1, out_channels=2)
    network.colours, network.inference_mode = "lab", "paper"
    saved(network, tmp_path)
    loaded = load_pretrained(tmp_path, in_channels=1, out_channels=2)
    assert (loaded.colours, loaded.inference_mode) == ("lab", "paper")
    images = torch.rand(1, 1, 16, 16)
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"])
def test_device_and_dtype(tmp_path, device, dtype):
    network = saved(GENERATORS["unet"](), tmp_path)
    for load in (load_pretrained, UNetGenerator.from_pretrained):
        loaded = load(tmp_path, device=device, dtype=dtype)
        assert {p.dtype for p in loaded.parameters()} == {dtype}
        assert loaded.encoder[1].norm.num_batches_tracked.dtype == torch.int64
        torch.testing.assert_close(loaded.head.weight.cpu(), network.head.weight.to(dtype))
        assert not loaded.training


# What is refused


def message(error, load, *args, **kwargs):
    with pytest.raises(error) as caught:
        load(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, "float16"])
def test_a_type_that_is_not_floating_point(tmp_path, dtype):
    saved(GENERATORS["unet"](), tmp_path)
    assert message(ArgumentError, load_pretrained, tmp_path, dtype=dtype) == (
        f"UNetGenerator: dtype={dtype!r} is not a floating-point type. Use torch.float32, torch.float16 or "
        "torch.bfloat16."
    )


def test_a_device_that_is_not_there(tmp_path):
    saved(GENERATORS["unet"](), tmp_path)
    text = message(ArgumentError, load_pretrained, tmp_path, device="gpu")
    assert text.startswith("device='gpu' cannot be used here: ")


def test_a_number_of_channels_that_is_not_allowed(tmp_path):
    saved(GENERATORS["unet"](), tmp_path)
    assert message(ArgumentError, load_pretrained, tmp_path, in_channels=0) == (
        "UNetGenerator: in_channels must be a whole number >= 1, got 0."
    )


def test_a_discriminator_has_one_output(tmp_path):
    saved(DISCRIMINATORS["patch"](), tmp_path)
    assert message(ArgumentError, load_pretrained, tmp_path, out_channels=3) == (
        "PatchDiscriminator: the class has no argument out_channels. Leave out_channels out."
    )


def test_a_network_that_adds_colours(tmp_path):
    network = GENERATORS["unet"](in_channels=1, out_channels=2)
    network.colours = "lab"
    saved(network, tmp_path)
    assert message(ArgumentError, load_pretrained, tmp_path, in_channels=3) == (
        "UNetGenerator: the channels of a network with colours='lab' have a fixed meaning. Leave in_channels and "
        "out_channels out."
    )


def test_a_layer_that_cannot_be_adapted(tmp_path):
    class Depthwise(Pretrained):
        def __init__(self, in_channels=3):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, in_channels, 3, groups=in_channels)

    Depthwise().save_pretrained(tmp_path)
    assert message(SavedModelError, Depthwise.from_pretrained, tmp_path, in_channels=1) == (
        "Depthwise: conv.weight would change from shape (3, 1, 3, 3) to (1, 1, 3, 3), and only the first and "
        "last convolutions, without groups, are adapted to another number of channels. Load the network without "
        "in_channels and out_channels, and replace this layer."
    )


def test_a_layer_in_the_middle(tmp_path):
    class Wide(Pretrained):
        def __init__(self, in_channels=3):
            super().__init__()
            self.first, self.second = nn.Conv2d(in_channels, 2 * in_channels, 1), nn.Conv2d(2 * in_channels, 3, 1)

    Wide().save_pretrained(tmp_path)
    text = message(SavedModelError, Wide.from_pretrained, tmp_path, in_channels=1)
    assert text.startswith("Wide: first.weight would change from shape (6, 3, 1, 1) to (2, 1, 1, 1), and only the ")


@pytest.mark.parametrize("noise_at", ["input", "bottleneck"])
def test_a_network_with_noise_keeps_its_weights_of_the_noise(tmp_path, noise_at):
    network = saved(GENERATORS["unet"](noise_channels=5, noise_at=noise_at), tmp_path / "colour")
    grey, noise = torch.rand(2, 1, 32, 32) * 2 - 1, torch.randn(2, 5)
    adapted = load_pretrained(tmp_path / "colour", in_channels=1)
    assert (adapted.in_channels, adapted.noise_channels) == (1, 5)
    close(adapted(grey, noise), network(grey.expand(-1, 3, -1, -1), noise))
    adapted.save_pretrained(tmp_path / "grey")
    close(load_pretrained(tmp_path / "grey", in_channels=3)(grey.expand(-1, 3, -1, -1), noise), adapted(grey, noise))
