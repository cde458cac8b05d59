"""Checkpoints as the reference implementation writes them; its values are in test_parity.py."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UNetGenerator, load_pretrained
from imtrans.convert.__main__ import main
from imtrans.convert.junyanz import from_junyanz, load_reference, reference_names
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
    """A resnet of one downsample and one block, whose second convolution is number `second` of the block."""
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
        "UNetGenerator: the checkpoint has model.model.3.bias in shape (4,) and type torch.float32, the network has "
        "head.bias in shape (3,) and type torch.float32."
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


# From a file alone

ROOT = Path(__file__).parents[2]


def saved_as_reference(network, path, prefix=""):
    """Write what the reference would have saved of `network`, whose every value is drawn anew."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    names = reference_names(network)
    state = as_reference(
        network, {key.rpartition(".")[0]: names[key.rpartition(".")[0]] for key in network.state_dict()}
    )
    torch.save({prefix + key: value for key, value in state.items()}, path)
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A path to write to, again and again."""
    return tmp_path_factory.mktemp("reference") / "latest_net_G.pth"


norms = st.sampled_from([{"norm": "batch"}, {"norm": "instance"}, {"norm": "none", "bias": False}])
prefixes = st.sampled_from(["", "module."])


def check_found(network, checkpoint, size, prefix="", **options):
    saved_as_reference(network, checkpoint, prefix)
    found = from_junyanz(checkpoint, **options)
    assert type(found) is type(network)
    assert str(found) == str(network)
    assert not found.training
    assert found.state_dict().keys() == network.state_dict().keys()
    assert all(parameter.device.type == "cpu" and parameter.requires_grad for parameter in found.parameters())
    source = torch.rand(2, network.in_channels, size, size) * 2 - 1
    with torch.no_grad():
        assert torch.equal(found(source), network.eval()(source))
    return found


@settings(max_examples=25)
@given(
    channels=st.lists(st.integers(1, 7), min_size=2, max_size=9),
    ends=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dropout=st.booleans(),
    norm=norms,
    prefix=prefixes,
)
def test_a_unet_of_any_depth_and_widths(checkpoint, channels, ends, dropout, norm, prefix):
    depth = len(channels)
    drops = (0.0, *[0.5] * (depth - 5)) if dropout and depth > 5 else ()
    network = UNetGenerator(*ends, channels=channels, dropout=drops, **norm)
    check_found(network, checkpoint, 2**depth if depth < 7 else 64, prefix, dropout=dropout)


@pytest.mark.parametrize(("depth", "preset"), [(8, "junyanz/unet_256"), (7, "junyanz/unet_128")])
def test_a_unet_has_the_dropout_of_the_reference_by_default(checkpoint, depth, preset):
    network = UNetGenerator.preset(preset, base_channels=2)
    found = check_found(network, checkpoint, 2**depth)
    assert found.config == network.config
    assert from_junyanz(checkpoint, dropout=False).config["dropout"] == ()


@settings(max_examples=25)
@given(
    ends=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    base_channels=st.integers(1, 5),
    num_blocks=st.integers(0, 9),
    num_downs=st.integers(1, 4),
    dropout=st.booleans(),
    norm=norms,
    prefix=prefixes,
)
def test_a_resnet_of_any_number_of_blocks(
    checkpoint, ends, base_channels, num_blocks, num_downs, dropout, norm, prefix
):
    dropout = 0.5 if dropout and num_blocks else 0.0  # without blocks there is nothing to drop out
    settings = {"base_channels": base_channels, "num_blocks": num_blocks, "num_downs": num_downs, "dropout": dropout}
    found = check_found(ResnetGenerator(*ends, **settings, **norm), checkpoint, 32, prefix)
    assert {name: found.config[name] for name in settings} == settings


@settings(max_examples=15)
@given(
    in_channels=st.integers(1, 8),
    base_channels=st.integers(1, 5),
    n_layers=st.integers(1, 6),
    norm=norms,
    prefix=prefixes,
)
def test_a_patchgan_of_any_depth(checkpoint, in_channels, base_channels, n_layers, norm, prefix):
    network = PatchDiscriminator(in_channels, base_channels=base_channels, n_layers=n_layers, **norm)
    found = check_found(network, checkpoint, 2 ** (n_layers + 2), prefix)
    assert found.config["n_layers"] == n_layers


@given(in_channels=st.integers(1, 8), base_channels=st.integers(1, 5), norm=norms, prefix=prefixes)
def test_a_pixel_discriminator(checkpoint, in_channels, base_channels, norm, prefix):
    check_found(PixelDiscriminator(in_channels, base_channels=base_channels, **norm), checkpoint, 4, prefix)


@pytest.mark.parametrize("make", [lambda: UNetGenerator(base_channels=2, depth=5, norm="instance"),
                                  lambda: ResnetGenerator(base_channels=2, num_blocks=2)])  # fmt: skip
def test_old_instance_norms_stored_statistics_that_they_did_not_use(checkpoint, make):
    network = make()
    state = saved_as_reference(network, checkpoint)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            layer = reference_names(network)[name]
            state[f"{layer}.running_mean"] = torch.zeros(module.num_features)
            state[f"{layer}.running_var"] = torch.ones(module.num_features)
    torch.save(state, checkpoint)
    found = from_junyanz(checkpoint)
    source = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(found(source), network.eval()(source))


def test_old_batch_norms_did_not_count_their_batches(checkpoint):
    network = PatchDiscriminator(base_channels=2)
    state = saved_as_reference(network, checkpoint)
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, checkpoint)
    source = torch.rand(1, 6, 32, 32)
    with torch.no_grad():
        assert torch.equal(from_junyanz(checkpoint)(source), network.eval()(source))


def test_the_format_before_zip_files_is_read(checkpoint):
    network = PixelDiscriminator(base_channels=2)
    torch.save(saved_as_reference(network, checkpoint), checkpoint, _use_new_zipfile_serialization=False)
    source = torch.rand(1, 6, 4, 4)
    assert torch.equal(from_junyanz(str(checkpoint))(source), network.eval()(source))


def test_half_precision_becomes_single(checkpoint):
    network = PixelDiscriminator(base_channels=2)
    state = saved_as_reference(network, checkpoint)
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, checkpoint)
    assert {parameter.dtype for parameter in from_junyanz(checkpoint).parameters()} == {torch.float32}


def test_the_random_state_is_left_alone(checkpoint):
    saved_as_reference(PixelDiscriminator(base_channels=2), checkpoint)
    torch.manual_seed(3)
    from_junyanz(checkpoint)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_the_mode_is_an_argument(checkpoint):
    saved_as_reference(UNetGenerator(base_channels=2, depth=2), checkpoint)
    assert from_junyanz(checkpoint).inference_mode == "eval"
    assert from_junyanz(checkpoint, mode="paper").inference_mode == "paper"
    with pytest.raises(ArgumentError) as caught:
        from_junyanz(checkpoint, mode="test")
    assert str(caught.value) == "from_junyanz: mode='test' is not one of ['batch_stats', 'eval', 'paper']."


# What is refused


def refusal(path):
    with pytest.raises(SavedModelError) as caught:
        from_junyanz(path)
    return str(caught.value)


GIVE = "Give the file that the reference implementation saved, such as latest_net_G.pth."
NO_STATE = f" is not a state dict of plain tensors: it is damaged, or holds something else, which was not run. {GIVE}"


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


class Command:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [Payload, Command])
@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"model.0.weight": torch.zeros(1), "x": p}, lambda p: [p]])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, kind, wrap, zipped):
    path, proof = tmp_path / "latest_net_G.pth", tmp_path / "proof"
    torch.save(wrap(kind(proof)), path, _use_new_zipfile_serialization=zipped)
    assert refusal(path) == f"{path}{NO_STATE}"
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # the file was one that would have run


def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path):
    path, proof = tmp_path / "latest_net_G.pth", tmp_path / "proof"
    path.write_bytes(pickle.dumps(Command(proof)))
    assert refusal(path) == f"{path}{NO_STATE}"
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"<!doctype html>", b"\x80\x02", b"PK\x03\x04", b"\0" * 100])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert refusal(path) == f"{path}{NO_STATE}"


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    path = tmp_path / "a.pth"
    assert refusal(path) == f"{path} cannot be read: No such file or directory. Check the path."
    assert refusal(tmp_path) == f"{tmp_path} cannot be read: Is a directory. Check the path."


def test_an_archive_of_torchscript_makes_no_warning(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/constants.pkl", b"x")
        archive.writestr("a/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81}b.")
    assert refusal(path) == f"{path}{NO_STATE}"


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_a_network_or_an_error_of_ours(checkpoint, data):
    buffer = io.BytesIO()
    network = PixelDiscriminator(base_channels=1)
    state = as_reference(network, reference_names(network))
    torch.save(state, buffer, _use_new_zipfile_serialization=data.draw(st.booleans()))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    checkpoint.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        from_junyanz(checkpoint)
    except SavedModelError as error:
        assert str(error).startswith(str(checkpoint))  # noqa: PT017


def torchvision_like():
    return {"conv1.weight": torch.zeros(4, 3, 7, 7), "bn1.running_mean": torch.zeros(4), "fc.weight": torch.zeros(2, 4)}


HUGGAN = {"down1.model.0.weight": torch.zeros(2, 3, 4, 4), "final.2.weight": torch.zeros(3, 4, 4, 4)}
LOOKS_LIKE = "looks like a network of pytorch-CycleGAN-and-pix2pix, but"
CONV = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            torch.zeros(3),
            f" holds a Tensor, not a dict of tensors. {GIVE}",
        ),
        (
            [1, 2],
            f" holds a list, not a dict of tensors. {GIVE}",
        ),
        (
            {"epoch": 5, "state": {}},
            f" holds 5 under 'epoch', not a named tensor. {GIVE}",
        ),
        (
            {3: torch.zeros(1)},
            f" holds tensor([0.]) under 3, not a named tensor. {GIVE}",
        ),
        ({}, ": this is no network of pytorch-CycleGAN-and-pix2pix: its tensors are none."),
        (
            torchvision_like(),
            ": this is no network of pytorch-CycleGAN-and-pix2pix: its tensors are conv1.weight, fc.weight.",
        ),
        (
            HUGGAN,
            ": this is a GeneratorUNet of HugGAN, not a network of pytorch-CycleGAN-and-pix2pix. load_pretrained takes "
            "its repo, or a folder that holds it as pytorch_model.bin.",
        ),
        ({"model.model.0.weight": CONV}, f" {LOOKS_LIKE} lacks the tensor 'model.model.3.weight'."),
        ({"net.0.weight": torch.zeros(2)}, f" {LOOKS_LIKE} has a tensor of an unknown name or shape."),
        (
            {"model.1.weight": CONV, "model.x.weight": CONV.clone()},
            f" {LOOKS_LIKE} has a tensor of an unknown name or shape.",
        ),
        (
            {"model.0.weight": CONV, "model.2.weight": CONV.clone()},
            ": PatchDiscriminator: n_layers must be a whole number from 1 to 16, got 0.",
        ),
        (
            {"model.model.0.weight": CONV, "model.model.3.weight": CONV.transpose(0, 1).contiguous()},
            ": convert: the reference implementation has no UNetGenerator like this one.",
        ),
        (
            {"net.0.weight": torch.zeros(2, 3, 1, 1), "net.0.bias": torch.zeros(2)},
            ": PixelDiscriminator: the checkpoint lacks net.2.weight, net.5.weight. Is it of this architecture?",
        ),
        (
            {"net.0.weight": torch.zeros(2, 3, 1, 1, dtype=torch.complex64)},
            NO_STATE,
        ),
        (
            {"net.0.weight": torch.zeros(2, 3).to_sparse()},
            NO_STATE,
        ),
        (
            {"net.0.weight": torch.zeros(2, 3, 1, 1, device="meta")},
            NO_STATE,
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_other_contents_are_refused(tmp_path, found, text):
    path = tmp_path / "latest_net_G.pth"
    torch.save(found, path)
    assert refusal(path) == f"{path}{text}"


def test_a_tensor_that_claims_to_be_larger_than_its_file_is_refused_before_it_is_allocated(tmp_path):
    path = tmp_path / "latest_net_G.pth"
    huge = torch.zeros(1).expand(10**6, 10**6, 4, 4)
    torch.save({"model.0.weight": huge}, path)
    size = path.stat().st_size
    assert refusal(path) == (
        f"{path} has {size:,} bytes and claims tensors of 64,000,000,000,000. Fetch the file again."
    )


def test_a_kernel_of_another_size_is_refused(checkpoint):
    state = saved_as_reference(ResnetGenerator(base_channels=2, num_blocks=1), checkpoint)
    torch.save({**state, "model.10.conv_block.5.weight": torch.zeros(8, 8, 5, 5)}, checkpoint)
    assert refusal(checkpoint) == (
        f"{checkpoint}: ResnetGenerator: the checkpoint has model.10.conv_block.5.weight in shape (8, 8, 5, 5) and "
        "type torch.float32, the network has blocks.0.conv2.conv.weight in shape (8, 8, 3, 3) and type torch.float32."
    )


# From the command line


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-m", "imtrans.convert", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_writes_a_folder_that_load_pretrained_takes(tmp_path):
    network = UNetGenerator(channels=(2, 3, 4, 5, 6, 7), dropout=())
    saved_as_reference(network, tmp_path / "latest_net_G.pth")
    done = run(tmp_path / "latest_net_G.pth", tmp_path / "out", "--no-dropout", "--mode", "batch_stats")
    assert (done.returncode, done.stderr) == (0, "")
    described, written = done.stdout.splitlines()
    assert described.startswith("UNetGenerator(in_channels=3, out_channels=3, ")
    assert "channels=(2, 3, 4, 5, 6, 7)" in described
    assert written == f"written to {tmp_path / 'out'}"
    loaded = load_pretrained(tmp_path / "out")
    assert loaded.inference_mode == "batch_stats"
    source = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(source), network.eval()(source))


def test_the_command_fails_in_one_line(tmp_path):
    (tmp_path / "a.pth").write_text("hello")
    done = run(tmp_path / "a.pth", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {tmp_path / 'a.pth'}{NO_STATE}\n")
    assert not (tmp_path / "out").exists()


def test_the_command_names_a_folder_that_cannot_be_written(checkpoint, tmp_path, capsys):
    saved_as_reference(PixelDiscriminator(base_channels=2), checkpoint)
    (tmp_path / "out").write_text("a file")
    assert main([str(checkpoint), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'out'} cannot be written: File exists. ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["a.pth"], ["a.pth", "out", "--mode", "train"], ["a.pth", "out", "--what"]])
def test_the_command_refuses_other_arguments(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
