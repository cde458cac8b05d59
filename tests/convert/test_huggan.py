"""Generators of HugGAN's pix2pix: a repo of the real layout on the loopback Hub computes as the published code."""

import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from huggan_repo import REPO, checkpoint, files, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback_hub import hub_fixture  # noqa: F401

from imtrans import (
    HugGANGenerator,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    UNetGenerator,
    load_pretrained,
    running_as,
    translate,
)
from imtrans.errors import ArgumentError, HubError, SavedModelError

ADVICE = "Of such files, only the generators of HugGAN's pix2pix are read."


def published(state, x, *, training=False):
    """The output of the published generator, computed from its description."""

    def normalized(x):
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    depth = sum(key.startswith("down") for key in state)
    skips = []
    for i in range(1, depth + 1):
        x = F.conv2d(x, state[f"down{i}.model.0.weight"], stride=2, padding=1)
        x = x if i in (1, depth) else normalized(x)
        x = F.dropout(torch.where(x > 0, x, 0.2 * x), 0.5 if i > 3 else 0.0, training)
        skips.append(x)
    for i, skip in enumerate(reversed(skips[:-1]), 1):
        x = normalized(F.conv_transpose2d(x, state[f"up{i}.model.0.weight"], stride=2, padding=1)).clamp(min=0)
        x = torch.cat([F.dropout(x, 0.5 if i <= depth - 4 else 0.0, training), skip], dim=1)
    x = F.pad(x.repeat_interleave(2, 2).repeat_interleave(2, 3), (1, 0, 1, 0))
    return F.conv2d(x, state["final.2.weight"], state["final.2.bias"], padding=1).tanh()


def write(folder, **changes):
    for name, content in files(**changes).items():
        (folder / name).write_bytes(content)
    return folder


def failure(error, name, **options):
    with pytest.raises(error) as caught:
        load_pretrained(name, **options)
    return str(caught.value)


def picture(height=256, width=256, channels=3, batch=1):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({"width": 8}, (256, 256)),
        ({"in_channels": 1, "out_channels": 2}, (512, 256)),
        ({"depth": 5}, (64, 96)),
        ({"depth": 2}, (8, 8)),
        ({"depth": 1}, (6, 4)),
    ],
    ids=str,
)
def test_it_computes_what_the_published_code_does(tmp_path, shape, size, training):
    state = checkpoint(**shape)
    network = load_pretrained(write(tmp_path, state=state)).train(training)
    source = picture(*size, channels=shape.get("in_channels", 3), batch=2)
    torch.manual_seed(1)
    expected = published(state, source, training=training)  # of the same dropout, which draws in the same order
    torch.manual_seed(1)
    with torch.no_grad():
        torch.testing.assert_close(network(source), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1
    if shape.get("depth", 8) > 3:
        assert training != torch.equal(published(state, source), expected)


def test_a_repo_is_recognised_by_its_files(hub):
    state = checkpoint()
    hub.add_repo(REPO, files(state))
    for _ in range(2):
        network = load_pretrained(REPO)
    assert type(network) is HugGANGenerator
    assert network.config == {
        "in_channels": 3, "out_channels": 3, "base_channels": 2, "depth": 8, "dropout": 0.5, "odd_sizes": "pad",
    }  # fmt: skip
    assert (network.training, network.inference_mode) == (False, "eval")
    torch.testing.assert_close(translate(network, picture()), published(state, picture()), atol=1e-5, rtol=0)
    fetched = [request.path for request in hub.requests if request.method == "GET"]
    assert [path.rpartition("/")[2] for path in fetched] == ["config.json", "pytorch_model.bin"]


def test_a_repo_without_a_config_is_recognised(hub):
    hub.add_repo(REPO, files(**{"config.json": None}))
    assert type(load_pretrained(REPO)) is HugGANGenerator


def test_the_second_time_needs_no_network(hub):
    hub.add_repo(REPO, files())
    assert type(load_pretrained(REPO)) is HugGANGenerator
    hub.faults.drop("* *")
    assert type(load_pretrained(REPO)) is HugGANGenerator


def test_revision_subfolder_and_token_are_used(hub):
    folder = {f"G/{name}": content for name, content in files().items()}
    commit = hub.add_repo(REPO, folder, private=True)
    hub.commit(REPO, delete=list(folder))
    network = load_pretrained(REPO, revision=commit, subfolder="G", token=hub.token)
    assert type(network) is HugGANGenerator


def test_the_options_of_from_pretrained_work(tmp_path):
    write(tmp_path)
    network = load_pretrained(tmp_path, dtype=torch.float64, in_channels=1, out_channels=1, device="cpu")
    assert (network.config["in_channels"], network.out_channels) == (1, 1)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}
    grey = picture(channels=1).double()
    whole = load_pretrained(tmp_path, dtype=torch.float64, out_channels=1)
    torch.testing.assert_close(network(grey), whole(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)


def test_it_is_saved_and_pushed_like_any_other(hub, tmp_path):
    hub.add_repo(REPO, files())
    network = load_pretrained(REPO)
    network.save_pretrained(tmp_path)
    network.push_to_hub("user/mine", token=hub.token)
    assert sorted(hub.files("user/mine")) == ["README.md", "config.json", "model.safetensors"]
    for name in (tmp_path, "user/mine"):
        again = load_pretrained(name)
        assert (type(again), again.config) == (HugGANGenerator, network.config)
        assert torch.equal(again(picture()), network(picture()))


def test_it_is_trained_like_any_other(tmp_path):
    network = load_pretrained(write(tmp_path, state=checkpoint(depth=4)))
    before = [parameter.clone() for parameter in network.parameters()]
    method = Pix2Pix(network, PatchDiscriminator(base_channels=2, n_layers=1))
    data = ProceduralFacades(2, size=16, augment=False)
    Trainer(method, data, val_data=data, out=tmp_path / "run", epochs=1, device="cpu", progress=False).fit()
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    again = load_pretrained(tmp_path / "run" / "generator")
    assert (type(again), again.config) == (HugGANGenerator, network.config)


def test_the_mode_paper_has_dropout(tmp_path):
    network = load_pretrained(write(tmp_path))
    with torch.no_grad(), running_as(network, "paper"):
        assert not torch.equal(network(picture()), network(picture()))


# What is not such a repo


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_no_code_in_the_file_is_run(tmp_path, capsys):
    for content in (saved(checkpoint() | {"evil": Evil()}), pickle.dumps(Evil())):
        folder = write(tmp_path, **{"pytorch_model.bin": content})
        assert failure(SavedModelError, folder) == (
            f"{folder / 'pytorch_model.bin'} is not a state dict of plain tensors: it is damaged, or holds something "
            f"else, which was not run. {ADVICE}"
        )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {"fc.weight": torch.zeros(2)},
            f"this is no generator of HugGAN's pix2pix: its tensors are fc.weight. {ADVICE}",
        ),
        (lambda state: {}, f"this is no generator of HugGAN's pix2pix: its tensors are none. {ADVICE}"),
        (
            lambda state: state | {"final.2.weight": torch.zeros(3)},
            "this is no generator of HugGAN's pix2pix: its tensors are down1.model.0.weight, down2.model.0.weight, "
            f"down3.model.0.weight, down4.model.0.weight, down5.model.0.weight and 12 more. {ADVICE}",
        ),
        (
            lambda state: {key: tensor for key, tensor in state.items() if "up3" not in key},
            "HugGANGenerator: the checkpoint lacks up3.model.0.weight. Is it of this architecture?",
        ),
        (
            lambda state: state | {"up8.model.0.weight": torch.zeros(1)},
            "HugGANGenerator: the checkpoint has more than the network: up8.model.0.weight.",
        ),
        (
            lambda state: state | {"up7.model.0.weight": torch.zeros(4, 2, 3, 3)},
            "HugGANGenerator: the checkpoint has up7.model.0.weight in shape (4, 2, 3, 3) and type torch.float32, the "
            "network has decoder.6.up.weight in shape (8, 2, 4, 4) and type torch.float32.",
        ),
        (
            lambda state: state | {f"down{i}": torch.zeros(1) for i in range(9, 30)},
            "HugGANGenerator: depth must be a whole number from 1 to 16, got 29.",
        ),
    ],
)  # fmt: skip
def test_other_tensors_are_refused(tmp_path, change, message):
    write(tmp_path, state=change(checkpoint()))
    assert failure(SavedModelError, tmp_path) == f"{tmp_path / 'pytorch_model.bin'}: {message}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("theirs"), state=checkpoint(width=1, depth=2))


@given(data=st.data())
@settings(max_examples=100)
def test_a_damaged_file_is_our_error_or_a_network(folder, data):
    """Bytes are changed, inside tensors as well, and the file is cut short."""
    content = bytearray(saved(checkpoint(width=1, depth=2)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "pytorch_model.bin").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert type(load_pretrained(folder)) is HugGANGenerator
    except SavedModelError as error:
        assert str(error).startswith(str(folder / "pytorch_model.bin"))  # noqa: PT017


@pytest.mark.parametrize(
    "config", [{"model_type": "bert"}, {"architectures": ["A"]}, {"_class_name": "UNet2DModel"}, {"library": "x"}, []]
)
def test_the_weights_of_another_library_are_not_fetched(hub, config):
    hub.add_repo(REPO, files(**{"config.json": json.dumps(config).encode()}))
    assert failure(SavedModelError, REPO).endswith('was not written by imtrans: it has no entry "library": "imtrans".')
    assert not [request for request in hub.requests if request.path.endswith(".bin")]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is not a saved model: config.json cannot be read"),
        (b"{}", 'was not written by imtrans: it has no entry "library": "imtrans".'),
        (b"{", "is not JSON"),
    ],
)
def test_a_folder_without_the_file_is_refused_as_before(tmp_path, config, message):
    write(tmp_path, **{"config.json": config, "pytorch_model.bin": None})
    assert message in failure(SavedModelError, tmp_path)


def test_a_repo_without_the_file_is_refused_as_before(hub):
    hub.add_repo(REPO, {"README.md": b"a"})
    assert failure(HubError, REPO).startswith(f"{REPO}: the repo lacks a file of a saved model.")
    hub.commit(REPO, {"config.json": b"{}"})
    assert failure(SavedModelError, REPO).endswith('it has no entry "library": "imtrans".')


def test_a_server_that_fails_is_asked_for_nothing_more(hub):
    hub.add_repo(REPO, files())
    hub.faults.status("* *", 403)
    assert "403" in failure(HubError, REPO)
    assert not [request for request in hub.requests if request.path.endswith(".bin")]


def test_a_file_that_breaks_off_is_an_error_of_the_hub(hub):
    hub.add_repo(REPO, files())
    hub.faults.cut_body("GET *.bin", 100)
    assert failure(HubError, REPO).startswith(f"{REPO}: ")
    hub.faults.clear()
    assert type(load_pretrained(REPO)) is HugGANGenerator


def test_a_damaged_file_in_the_cache_is_fetched_once_more(hub, tmp_path):
    hub.add_repo(REPO, files())
    expected = load_pretrained(REPO)
    (path,) = (tmp_path / "hf_home" / "hub").rglob("pytorch_model.bin")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.resolve().write_bytes(content)
    assert torch.equal(load_pretrained(REPO)(picture()), expected(picture()))


def test_the_class_is_for_saved_networks(tmp_path):
    write(tmp_path)
    for cls in (HugGANGenerator, UNetGenerator):
        with pytest.raises(SavedModelError, match="was not written by imtrans"):
            cls.from_pretrained(tmp_path)


def test_an_unknown_device_is_refused(tmp_path):
    assert "device" in failure(ArgumentError, write(tmp_path), device="gpu")
