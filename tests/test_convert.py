"""The names of the reference implementation; its values are in test_parity.py."""

import pytest
import torch

from imtrans import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UNetGenerator
from imtrans.convert import load_reference, reference_names
from imtrans.errors import ArgumentError, SavedModelError

UNET = {
    "encoder.0.conv": "model.model.0",
    "encoder.1.conv": "model.model.1.model.1",
    "encoder.1.norm": "model.model.1.model.2",
    "encoder.2.conv": "model.model.1.model.3.model.1",
    "decoder.0.up": "model.model.1.model.3.model.3",
    "decoder.0.norm": "model.model.1.model.3.model.4",
    "decoder.1.up": "model.model.1.model.5",
    "decoder.1.norm": "model.model.1.model.6",
    "head": "model.model.3",
}


def resnet(second):
    """A resnet of one halving and one block, whose second convolution is number `second` of the block."""
    return {
        "stem.conv": "model.1",
        "stem.norm": "model.2",
        "downs.0.conv": "model.4",
        "downs.0.norm": "model.5",
        "blocks.0.conv1.conv": "model.7.conv_block.1",
        "blocks.0.conv1.norm": "model.7.conv_block.2",
        "blocks.0.conv2.conv": f"model.7.conv_block.{second}",
        "blocks.0.conv2.norm": f"model.7.conv_block.{second + 1}",
        "ups.0.up": "model.8",
        "ups.0.norm": "model.9",
        "head.conv": "model.12",
    }


SMALL_RESNET = {"base_channels": 2, "num_blocks": 1, "num_downs": 1, "norm": "batch"}
CASES = {
    "unet": (lambda: UNetGenerator(base_channels=2, depth=3), UNET),
    "resnet": (lambda: ResnetGenerator(**SMALL_RESNET), resnet(5)),
    "resnet with dropout": (lambda: ResnetGenerator(**SMALL_RESNET, dropout=0.5), resnet(6)),
    "patch": (
        lambda: PatchDiscriminator(base_channels=2, n_layers=1),
        {
            "layers.0.conv": "model.0",
            "layers.1.conv": "model.2",
            "layers.1.norm": "model.3",
            "layers.2.conv": "model.5",
        },
    ),
    "pixel": (
        lambda: PixelDiscriminator(base_channels=2),
        {"layers.0.conv": "net.0", "layers.1.conv": "net.2", "layers.1.norm": "net.3", "layers.2.conv": "net.5"},
    ),
}


def as_reference(network, names):
    """What the reference would have saved of a network with these values."""
    state = network.state_dict()
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


def unet_and_state():
    network = UNetGenerator(base_channels=2, depth=3)
    return network, as_reference(network, UNET)


def message_of_loading(network, state):
    with pytest.raises(SavedModelError) as caught:
        load_reference(network, state)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module."], ids=["alone", "DataParallel"])
@pytest.mark.parametrize("name", CASES)
def test_every_tensor_finds_its_place(name, prefix):
    make, names = CASES[name]
    theirs, ours = make(), make()
    state = {prefix + key: value for key, value in as_reference(theirs, names).items()}
    load_reference(ours, state)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor), key


def test_the_names_of_levels_without_a_norm_hurt_nobody():
    network = UNetGenerator(base_channels=2, depth=3)
    layers = {key.rpartition(".")[0] for key in network.state_dict()}
    assert layers <= reference_names(network).keys()


def test_a_state_that_lacks_tensors_is_refused():
    network, state = unet_and_state()
    del state["model.model.3.bias"]
    assert message_of_loading(network, state) == (
        "UNetGenerator: the checkpoint lacks model.model.3.bias. Is it of this architecture?"
    )
    assert message_of_loading(network, {}).endswith("and 17 more. Is it of this architecture?")


def test_a_state_that_has_more_is_refused():
    network, state = unet_and_state()
    assert message_of_loading(network, {**state, "model.model.9.weight": torch.zeros(1)}) == (
        "UNetGenerator: the checkpoint has more than the network: model.model.9.weight."
    )


def test_a_tensor_of_another_shape_is_refused():
    network, state = unet_and_state()
    assert message_of_loading(network, {**state, "model.model.3.bias": torch.zeros(4)}) == (
        "UNetGenerator: the checkpoint has model.model.3.bias in shape (4,), the network's head.bias has (3,)."
    )


def test_a_network_stays_as_it_is_when_its_state_is_refused():
    network, state = unet_and_state()
    before = network.head.weight.clone()
    wrong = {key: value + 1 for key, value in state.items()}
    message_of_loading(network, {**wrong, "model.model.3.bias": torch.zeros(4)})
    assert torch.equal(network.head.weight, before)


def test_a_resnet_with_dropout_does_not_take_a_state_without():
    make, names = CASES["resnet"]
    state = as_reference(make(), names)
    message = message_of_loading(ResnetGenerator(**SMALL_RESNET, dropout=0.5), state)
    assert message.startswith("ResnetGenerator: the checkpoint lacks model.7.conv_block.7.bias, ")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (UNetGenerator(base_channels=2, depth=1), "UNetGenerator like this one"),
        (UNetGenerator(base_channels=2, depth=2, attention=(1,)), "UNetGenerator with attention.1.gamma"),
        (UNetGenerator(base_channels=2, depth=2, upsample="nearest"), "UNetGenerator with decoder.0.up.1.weight"),
        (
            PatchDiscriminator(base_channels=2, spectral_norm=True, bias=False),
            "PatchDiscriminator with layers.0.conv.parametrizations.weight.original",
        ),
    ],
    ids=["depth", "attention", "upsample", "spectral_norm"],
)
def test_a_network_that_the_reference_does_not_have_is_refused(network, message):
    with pytest.raises(ArgumentError) as caught:
        load_reference(network, {})
    assert str(caught.value) == f"convert: the reference implementation has no {message}."
