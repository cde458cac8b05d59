"""Agreement of the presets of TensorFlow's tutorial with the same layers in Keras; keras_fixtures.py makes the data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from imtrans import PatchDiscriminator, UNetGenerator, load_pretrained, running_as

FOLDER = Path(__file__).parents[1] / "fixtures" / "keras"
INDEX = json.loads((FOLDER / "index.json").read_text())
PRESETS = {"unet": (UNetGenerator, "tensorflow/unet"), "patchgan": (PatchDiscriminator, "tensorflow/patchgan")}
TENSORS = {
    "kernel": "weight", "bias": "bias",
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
by_name = pytest.mark.parametrize("name", PRESETS)


def images(channels):
    drawn = np.random.RandomState(channels).uniform(-1, 1, (2, channels, 256, 256))
    return torch.from_numpy(drawn.astype(np.float32))


def key_of(network, layer, part, tensor):
    """The key in the state dict of a tensor of Keras."""
    kind, level = layer.rstrip("0123456789"), layer.lstrip("abcdefghijklmnopqrstuvwxyz")
    if isinstance(network, PatchDiscriminator):
        module = f"layers.{level or 4}.{part}"
    elif kind == "head":
        module = "head"
    else:
        up = {"conv": "up", "norm": "norm"}[part]
        module = f"encoder.{level}.{part}" if kind == "down" else f"decoder.{6 - int(level)}.{up}"
    return f"{module}.{TENSORS[tensor]}"


def carried_over(network, tensors):
    state = network.state_dict()
    for name, value in tensors.items():
        layer, tensor = name.split(".")
        layer, part = layer.split("_")
        key, value = key_of(network, layer, part, tensor), value.float()
        if tensor == "kernel":
            value = value.permute(3, 2, 0, 1)  # also of a transposed convolution, whose axes differ in both
            if key.startswith(("decoder", "head")) and not key.startswith("decoder.0"):
                value = value.roll(len(value) // 2, 0)  # Keras has the skip after the decoder's features
        assert state[key].shape == value.shape, key
        state[key] = value
    network.load_state_dict(state)
    return network


def fixture(name):
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return [{key: value for key, value in tensors.items() if key.startswith("output") == out} for out in (False, True)]


def network_of(name, **changes):
    cls, preset = PRESETS[name]
    return cls.preset(preset, base_channels=INDEX[name]["base_channels"], **changes)


@by_name
@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_preset_computes_what_keras_computes(name, mode, batch):
    weights, outputs = fixture(name)
    network, every = carried_over(network_of(name), weights), INDEX[name]["every"]
    with torch.no_grad(), running_as(network, mode):
        output = network(images(network.in_channels)[:batch])[..., ::every, ::every]
    torch.testing.assert_close(output, outputs[f"output_{mode}_{batch}"], atol=1e-5, rtol=0)


@by_name
def test_the_outputs_in_keras_differ_between_modes_and_images(name):
    _, outputs = fixture(name)
    for one, other in [("eval_1", "batch_stats_1"), ("batch_stats_1", "batch_stats_2")]:
        assert (outputs[f"output_{one}"][0] - outputs[f"output_{other}"][0]).abs().max() > 1e-2
    both = outputs["output_eval_2"]
    assert (both[0] - both[1]).abs().max() > 1e-2


@by_name
def test_every_tensor_has_its_partner_in_keras(name):
    weights, _ = fixture(name)
    state = {key for key in network_of(name).state_dict() if not key.endswith("num_batches_tracked")}
    assert len(weights) == len(state)


@by_name
def test_a_preset_has_as_many_parameters_as_in_keras(name):
    cls, preset = PRESETS[name]
    with torch.device("meta"):
        network = cls.preset(preset)
    statistics = sum(buffer.numel() for key, buffer in network.named_buffers() if "running" in key)
    assert network.num_parameters() == INDEX[name]["trained"]
    assert network.num_parameters() + statistics == INDEX[name]["parameters"]


@by_name
@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
def test_a_preset_is_saved_and_loaded(name, mode, tmp_path):
    weights, _ = fixture(name)
    network = carried_over(network_of(name), weights)
    network.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == network.config
    inputs = images(network.in_channels)[:1]
    with torch.no_grad(), running_as(network, mode), running_as(loaded, mode):
        assert torch.equal(loaded(inputs), network(inputs))


@pytest.mark.parametrize("change", [{"act_before_merge": False}, {"bottleneck_norm": False}, {"act": "leaky_relu"}])
def test_each_option_of_the_generator_counts(change):
    weights, outputs = fixture("unet")
    weights = {
        key: value for key, value in weights.items() if "down7_norm" not in key or "bottleneck_norm" not in change
    }
    network = carried_over(network_of("unet", **change), weights)
    with torch.no_grad(), running_as(network, "eval"):
        output = network(images(3))[..., ::7, ::7]
    assert (output - outputs["output_eval_2"]).abs().max() > 1e-3


def test_the_initial_weights_are_the_ones_of_keras():
    network = PatchDiscriminator.preset("tensorflow/patchgan", base_channels=32)
    for layer in network.layers:
        if layer.conv.weight.numel() > 10_000:
            assert layer.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for norm in [layer.norm for layer in network.layers[1:-1]]:
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
    assert network.layers[0].conv.bias is None
    assert network.layers[-1].conv.bias.item() == 0
