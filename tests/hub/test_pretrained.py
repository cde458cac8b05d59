import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import imtrans
from imtrans import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UNetGenerator, load_pretrained
from imtrans.errors import ArgumentError, SavedModelError
from imtrans.hub.pretrained import Pretrained


def small(**changes):
    return UNetGenerator(base_channels=4, depth=2, **changes)


@pytest.fixture
def saved(tmp_path):
    """A folder that holds a saved network."""
    folder = tmp_path / "saved"
    small().save_pretrained(folder)
    return folder


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_arguments(folder, **changes):
    arguments = json.loads((folder / "config.json").read_text())["arguments"]
    change_config(folder, arguments={**arguments, **changes})


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    change_config(folder, sha256=digest_of(path))


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def message_of_loading(folder, cls=UNetGenerator):
    with pytest.raises(SavedModelError) as caught:
        cls.from_pretrained(folder)
    return str(caught.value)


# What is written


def test_the_config_holds_the_class_and_every_argument(tmp_path):
    network = PatchDiscriminator(4, base_channels=2, spectral_norm=True)
    network.inference_mode = "paper"
    network.save_pretrained(str(tmp_path / "a" / "b"))
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == {
        "library": "imtrans",
        "version": imtrans.__version__,
        "class": "PatchDiscriminator",
        "arguments": {
            "in_channels": 4,
            "base_channels": 2,
            "n_layers": 3,
            "norm": "batch",
            "act": "leaky_relu",
            "padding": 1,
            "spectral_norm": True,
            "bias": None,
            "first_bias": True,
        },
        "inference_mode": "paper",
        "sha256": digest_of(tmp_path / "a" / "b" / "model.safetensors"),
    }


def test_positional_arguments_are_in_the_config():
    assert UNetGenerator(1, 2, base_channels=2, depth=1).config["in_channels"] == 1
    assert UNetGenerator(1, 2, base_channels=2, depth=1).config["out_channels"] == 2


def test_saving_again_replaces_what_was_there(saved):
    network = small()
    network.save_pretrained(saved)
    assert torch.equal(UNetGenerator.from_pretrained(saved).head.weight, network.head.weight)


def test_weights_come_back_in_the_type_they_had(tmp_path):
    network = small().to(torch.bfloat16)
    network.save_pretrained(tmp_path)
    loaded = UNetGenerator.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    images = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16)
    assert torch.equal(loaded(images), network.eval()(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_precision_are_rounded_and_load_in_the_own_type(saved, tmp_path, dtype):
    network = load_pretrained(saved)
    network.save_pretrained(tmp_path / "half", dtype=dtype)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {dtype, torch.int64}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float32"
    loaded = load_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.head.weight, network.head.weight.to(dtype).float())
    assert not torch.equal(loaded.head.weight, network.head.weight)
    loaded(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(p.grad.isfinite().all() for p in loaded.parameters())
    assert load_pretrained(tmp_path / "half", dtype=dtype).head.weight.dtype == dtype
    assert load_pretrained(tmp_path / "half", in_channels=1).head.weight.dtype == torch.float32
    loaded.save_pretrained(tmp_path / "again")  # the rounded weights, in their type
    assert "dtype" not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert load_file(tmp_path / "again" / "model.safetensors")["head.weight"].dtype == torch.float32


def test_saving_in_half_precision_leaves_the_network_as_it_is(saved, tmp_path):
    network = load_pretrained(saved).to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    loaded = load_pretrained(tmp_path / "half")
    assert loaded.head.weight.is_contiguous(memory_format=torch.channels_last)


def refusal_of_saving(network, folder, dtype):
    with pytest.raises(ArgumentError) as caught:
        network.save_pretrained(folder / "refused", dtype=dtype)
    assert not (folder / "refused").exists()
    return str(caught.value)


def test_types_in_which_weights_cannot_be_saved(tmp_path):
    text = "is not a floating-point type. Use torch.float32, torch.float16 or torch.bfloat16."
    assert refusal_of_saving(small(), tmp_path, torch.int8) == f"UNetGenerator: dtype=torch.int8 {text}"
    large = small()
    large.head.bias.data.fill_(70_000.0)
    assert refusal_of_saving(large, tmp_path, torch.float16) == (
        "UNetGenerator: head.bias has values that are too large for torch.float16. Use torch.bfloat16, or leave dtype "
        "out."
    )
    mixed = small()
    mixed.head.double()
    assert refusal_of_saving(mixed, tmp_path, torch.float16) == (
        "UNetGenerator: dtype is for networks with weights of one floating-point type, and this one has float32, "
        "float64. Leave dtype out."
    )


def test_a_type_in_the_config_that_weights_cannot_have(saved):
    change_config(saved, dtype="int8")
    assert "has an unknown entry 'dtype': 'int8'." in message_of_loading(saved)


@pytest.mark.parametrize(
    "network",
    [
        small(),
        ResnetGenerator(base_channels=4, num_blocks=1),
        PatchDiscriminator(3, base_channels=4),
        PixelDiscriminator(3, base_channels=4),
    ],
)
def test_channels_last_comes_back(tmp_path, network):
    network = network.to(memory_format=torch.channels_last).eval()
    network.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["memory_format"] == "channels_last"
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in network.parameters()]
    images = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    assert torch.equal(loaded(images), network(images))


def test_networks_in_the_usual_format_say_nothing_of_it(saved):
    assert "memory_format" not in json.loads((saved / "config.json").read_text())
    assert "memory_format" not in PixelDiscriminator(1, base_channels=1).description()


def test_saving_leaves_the_network_as_it_is(tmp_path):
    network = small().to(memory_format=torch.channels_last)
    before = {name: (tensor.stride(), tensor.data_ptr()) for name, tensor in network.state_dict().items()}
    network.save_pretrained(tmp_path)
    assert {name: (t.stride(), t.data_ptr()) for name, t in network.state_dict().items()} == before
    assert network.training


def test_saving_twice_gives_the_same_bytes(tmp_path):
    network = small()
    for name in ("one", "two"):
        network.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_was_loaded_does_not_need_the_file_and_can_be_trained(saved):
    network = UNetGenerator.from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    network.train()(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_subclass_of_ones_own_saves_and_loads(tmp_path):
    class Scale(Pretrained):
        def __init__(self, width, *, shape=(1, 1)):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.randn(width, *shape))

    network = Scale(3, shape=[2, 2])
    network.save_pretrained(tmp_path)
    loaded = Scale.from_pretrained(tmp_path)
    assert torch.equal(loaded.scale, network.scale)
    assert loaded.config == network.config == {"width": 3, "shape": (2, 2)}


def test_a_subclass_may_compute_what_it_does_not_save(tmp_path):
    class Ramp(Pretrained):
        def __init__(self, width):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.randn(width))
            self.register_buffer("ramp", torch.linspace(0, 1, width), persistent=False)

        def forward(self):
            return self.scale * self.ramp

    network = Ramp(3)
    network.inference_mode = "paper"
    network.save_pretrained(tmp_path)
    loaded = Ramp.from_pretrained(tmp_path)
    assert torch.equal(loaded(), network())
    assert (loaded.inference_mode, loaded.training) == ("paper", False)


def test_loading_draws_no_random_numbers(saved):
    state = torch.get_rng_state()
    UNetGenerator.from_pretrained(saved)
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_that_do_not_fit_are_refused_by_python():
    with pytest.raises(TypeError, match="unexpected keyword argument 'dpeth'"):
        UNetGenerator(dpeth=3)
    with pytest.raises(TypeError, match="positional argument"):
        UNetGenerator(3, 3, 64)


def test_an_unknown_inference_mode_is_refused():
    network = small()
    with pytest.raises(ArgumentError) as caught:
        network.inference_mode = "evaluate"
    assert str(caught.value) == (
        "UNetGenerator: inference_mode='evaluate' is not one of ['batch_stats', 'eval', 'paper']. Did you mean 'eval'?"
    )
    assert network.inference_mode == "eval"


# What is refused


def test_a_missing_tensor(saved):
    change_tensors(saved, lambda tensors: tensors.pop("head.bias"))
    assert message_of_loading(saved) == f"UNetGenerator: model.safetensors of {saved} lacks head.bias."


def test_a_tensor_too_many(saved):
    change_tensors(saved, lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert message_of_loading(saved) == (
        f"UNetGenerator: model.safetensors of {saved} has tensors that the network does not: extra."
    )


def test_a_tensor_of_another_shape(saved):
    change_tensors(saved, lambda tensors: tensors.update({"head.bias": torch.zeros(4)}))
    assert message_of_loading(saved) == (
        f"UNetGenerator: model.safetensors of {saved} has head.bias in shape (4,), config.json asks for (3,)."
    )


def test_a_tensor_of_another_kind(saved):
    change_tensors(saved, lambda tensors: tensors.update({"head.bias": torch.zeros(3, dtype=torch.int64)}))
    assert message_of_loading(saved) == (
        f"UNetGenerator: model.safetensors of {saved} has head.bias of type torch.int64, the network's is "
        "torch.float32."
    )


def test_arguments_that_do_not_fit_the_tensors(saved):
    change_arguments(saved, base_channels=2)
    assert "encoder.0.conv.weight in shape (4, 3, 4, 4), config.json asks for (2, 3, 4, 4)." in (
        message_of_loading(saved)
    )


def test_an_unknown_argument_gets_a_hint(saved):
    change_arguments(saved, upsampel="deconv")
    assert message_of_loading(saved) == (
        f"UNetGenerator: config.json of {saved} has an unknown argument 'upsampel'. Did you mean 'upsample'? "
        "It may come from a newer imtrans; update, or correct the file."
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"norm": "btch"},
            "norm='btch' is not one of ['batch', 'group', 'instance', 'keras_batch', 'none']. Did you mean 'batch'?",
        ),
        ({"norm": ["batch"]}, "norm=['batch'] is not one of"),
        ({"depth": "2"}, "depth must be a whole number from 1 to 16, got '2'."),
        ({"depth": True}, "depth must be a whole number from 1 to 16, got True."),
        ({"channels": {}}, "channels must be a sequence of 1 to 16 widths, one for each level, got {}."),
        ({"dropout": None}, "dropout must be a sequence of probabilities"),
        ({"dropout": [[0.5]]}, "each of dropout must be a number between 0 and 1, got"),
        ({"skips": 3}, "skips must be a name, a callable, or a sequence of them, got 3."),
        ({"attention": [99]}, "attention has level 99, but the innermost level of depth=2 is 1."),
        ({"base_channels": 10**30}, ""),
    ],
)
def test_an_argument_of_a_wrong_value(saved, changes, reason):
    change_arguments(saved, **changes)
    message = message_of_loading(saved)
    assert message.startswith(f"UNetGenerator: config.json of {saved} does not describe a network. ")
    assert reason in message


def test_an_inference_mode_that_does_not_exist(saved):
    change_config(saved, inference_mode="fast")
    assert message_of_loading(saved) == (
        f"{saved}: config.json does not describe a network. UNetGenerator: inference_mode='fast' is not one of "
        "['batch_stats', 'eval', 'paper']."
    )


def test_another_class(saved):
    assert message_of_loading(saved, PatchDiscriminator) == (
        f"PatchDiscriminator: {saved} holds a UNetGenerator. Use UNetGenerator.from_pretrained, or load_pretrained, "
        "which picks the class."
    )


def test_a_folder_that_is_not_there(tmp_path):
    folder = tmp_path / "nowhere"
    assert message_of_loading(folder) == (
        f"{folder} is neither a folder nor the name of a repo on the Hub, 'user/repo'. Check the spelling."
    )


def test_a_folder_without_a_model(tmp_path):
    assert message_of_loading(tmp_path) == (
        f"{tmp_path} is not a saved model: config.json cannot be read (No such file or directory). A saved model is "
        "config.json and model.safetensors."
    )


def test_weights_that_are_not_there(saved):
    (saved / "model.safetensors").unlink()
    assert message_of_loading(saved) == (
        f"{saved} is not a saved model: model.safetensors cannot be read (No such file or directory). A saved model is "
        "config.json and model.safetensors."
    )


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * 100])
def test_damaged_weights(saved, damage):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert message_of_loading(saved) == (
        f"{path} is damaged, or belongs to another config.json: its SHA-256 differs from the one there. Fetch or save "
        "the model again."
    )
    change_config(saved, sha256=digest_of(path))
    assert message_of_loading(saved).startswith(f"{path} is damaged or not a safetensors file: ")


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe\x00", b"[" * 200_000], ids=["open", "empty", "binary", "deep"])
def test_a_config_that_is_no_json(saved, text):
    (saved / "config.json").write_bytes(text)
    assert message_of_loading(saved).startswith(f"{saved / 'config.json'} is not JSON: ")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"imtrans"', "{}", '{"library": "diffusers"}'])
def test_a_config_of_someone_else(saved, text):
    (saved / "config.json").write_text(text)
    assert message_of_loading(saved) == (
        f'{saved / "config.json"} was not written by imtrans: it has no entry "library": "imtrans".'
    )


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("version", None, "str"),
        ("class", ["UNetGenerator"], "str"),
        ("arguments", [3, 3], "dict"),
        ("inference_mode", 1, "str"),
        ("sha256", None, "str"),
    ],
)
def test_a_config_with_an_entry_of_a_wrong_type(saved, key, value, kind):
    change_config(saved, **{key: value})
    assert message_of_loading(saved) == f"{saved / 'config.json'}: {key!r} must be a {kind}, got {value!r}."


def test_a_callable_within_a_sequence_is_refused_by_its_argument(tmp_path):
    network = small(skips=[imtrans.nn.skips.AddSkip])
    with pytest.raises(SavedModelError, match=re.escape("skips=<class 'imtrans.nn.skips.AddSkip'> cannot be saved")):
        network.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_the_value_range_is_saved_and_kept_for_other_channels(tmp_path):
    generator = UNetGenerator(1, 1, base_channels=4, depth=2)
    assert "value_range" not in generator.description()
    generator.value_range = [-1000, 3000]
    generator.save_pretrained(tmp_path)
    assert load_pretrained(tmp_path).value_range == (-1000, 3000)
    assert load_pretrained(tmp_path, in_channels=3).value_range == (-1000, 3000)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ([1, 1], 7, [0, "1"], "01", [0, float("inf")]):
        with pytest.raises(ArgumentError, match="UNetGenerator: value_range must be two increasing numbers"):
            generator.value_range = wrong
        (tmp_path / "config.json").write_text(json.dumps({**config, "value_range": wrong}))
        with pytest.raises(SavedModelError, match="does not describe a network"):
            load_pretrained(tmp_path)
