"""SavedModel networks: where they are looked for, and that nothing damaged or hostile is ever built."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from fuzzing import no_hang
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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
from imtrans.errors import ArgumentError, HubError, SavedModelError
from imtrans.hub import saved_model as saved
from imtrans.hub.saved_model import SavedModel, parse_tensors

NETWORKS = {
    UNetGenerator: {"base_channels": 2, "depth": 2},
    ResnetGenerator: {"base_channels": 2, "num_blocks": 1, "num_downs": 1},
    LocalEnhancer: {"base_channels": 2, "num_blocks": 1, "global_blocks": 0, "global_downs": 1},
    HugGANGenerator: {"base_channels": 2, "depth": 2},
    PatchDiscriminator: {"base_channels": 2, "n_layers": 1},
    MultiscaleDiscriminator: {"base_channels": 2, "n_layers": 1},
    PixelDiscriminator: {"base_channels": 2},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved network of each class, by the class."""
    made = {cls: tmp_path_factory.mktemp(cls.__name__) for cls in NETWORKS}
    for cls, folder in made.items():
        cls(**NETWORKS[cls]).save_pretrained(folder)
    return made


@pytest.fixture
def folder(tmp_path):
    """One that may be spoilt."""
    UNetGenerator(**NETWORKS[UNetGenerator]).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


class CountedMemory(TorchDispatchMode):
    """Counts operations, and the bytes that they give tensors of their own, the meta device excepted."""

    def __init__(self):
        super().__init__()
        self.bytes = self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        for tensor in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                self.bytes += tensor.numel() * tensor.element_size()
        return made


def refused(load, folder, *, operations=1000):
    """The message, after few operations and without memory for a tensor."""
    with no_hang(), CountedMemory() as memory, pytest.raises(SavedModelError) as caught:
        load(folder)
    assert type(caught.value) is SavedModelError
    assert memory.bytes < 10_000
    assert memory.operations < operations
    return str(caught.value)


def test_memory_is_counted():
    with CountedMemory() as memory:
        PixelDiscriminator(in_channels=100, base_channels=64)
    assert memory.bytes > 100 * 64 * 4
    with CountedMemory() as memory, torch.device("meta"):
        PixelDiscriminator(in_channels=100, base_channels=64)
    assert memory.bytes == 0


# Where it is looked for


@pytest.fixture
def hub_is_asked(monkeypatch):
    """What would be fetched from the Hub."""
    asked = []

    def pull(repo_id, file, **options):
        asked.append((repo_id, file, options))
        raise HubError("asked")

    monkeypatch.setattr(saved, "pull", pull)
    return asked


def test_a_folder_wins_over_a_repo_of_its_name(tmp_path, monkeypatch, hub_is_asked):
    monkeypatch.chdir(tmp_path)
    UNetGenerator(**NETWORKS[UNetGenerator]).save_pretrained("user/repo")
    for name in ("user/repo", Path("user/repo"), "./user/repo", str(tmp_path / "user" / "repo")):
        assert isinstance(load_pretrained(name), UNetGenerator)
    assert hub_is_asked == []


def test_a_repo_is_asked_for_where_there_is_no_folder(tmp_path, monkeypatch, hub_is_asked):
    monkeypatch.chdir(tmp_path)
    options = {"revision": "v1", "token": "t", "subfolder": "discriminator"}
    with pytest.raises(HubError, match="asked"):
        load_pretrained("user/repo", **options)
    assert hub_is_asked == [("user/repo", "config.json", {**options, "fresh": False})]


@pytest.mark.parametrize(
    "name",
    [
        "runs/x/generator", "generatr", "./generator", "../x", "/nowhere", "~/x", "user/repo/", "a\0b", "", "x" * 5000,
        "user/re po", "ü/repo", "https://huggingface.co/user/repo", "runs\\generator", Path("user/repo"),
        Path("nowhere"),
    ],
)  # fmt: skip
def test_a_mistyped_folder_is_not_sent_to_the_hub(tmp_path, monkeypatch, hub_is_asked, name):
    monkeypatch.chdir(tmp_path)
    for load in (load_pretrained, UNetGenerator.from_pretrained):
        with pytest.raises(SavedModelError) as caught:
            load(name)
        assert str(caught.value) == (
            f"{name} is neither a folder nor the name of a repo on the Hub, 'user/repo'. Check the spelling."
        )
    assert hub_is_asked == []


def test_a_file_is_no_folder(folder):
    with pytest.raises(SavedModelError, match=r"model\.safetensors is neither a folder nor ") as caught:
        load_pretrained(folder / "model.safetensors")
    assert str(caught.value).endswith(f"Give the folder of the file, {folder}.")


def test_a_checkpoint_file_is_to_be_converted(tmp_path):
    (file := tmp_path / "latest_net_G.pth").write_bytes(b"")
    with pytest.raises(SavedModelError) as caught:
        load_pretrained(file)
    assert str(caught.value).endswith(f"becomes one: python -m imtrans.convert {file} FOLDER.")


def test_a_mistyped_folder_beside_the_right_one(folder):
    with pytest.raises(SavedModelError) as caught:
        load_pretrained(folder.with_name(folder.name + "x"))
    assert str(caught.value).endswith(f"Check the spelling. Did you mean {folder}?")


def test_the_folder_of_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SavedModelError) as caught:
        UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is the folder of a training run, and its config.json would be overwritten. Choose another folder."
    )
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_revision_of_a_folder_is_refused(folder):
    for load in (load_pretrained, UNetGenerator.from_pretrained):
        with pytest.raises(ArgumentError) as caught:
            load(folder, revision="v1")
        assert str(caught.value) == f"{folder} is a folder: revision='v1' is for a repo on the Hub."


def test_a_subfolder_of_a_folder(tmp_path):
    network = PixelDiscriminator(**NETWORKS[PixelDiscriminator]).eval()
    network.save_pretrained(tmp_path / "run" / "discriminator")
    loaded = load_pretrained(tmp_path / "run", subfolder="discriminator")
    images = torch.rand(1, 6, 4, 4)
    assert torch.equal(loaded(images), network(images))
    assert str(SavedModel(tmp_path, subfolder="run")) == f"{tmp_path}/run"
    with pytest.raises(SavedModelError) as caught:
        load_pretrained(tmp_path / "run", subfolder="none")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}/none is not a saved model: config.json cannot be read (No such file or directory). A "
        "saved model is config.json and model.safetensors."
    )


def test_a_token_is_not_shown():
    assert "secret" not in repr(SavedModel("user/repo", token="secret"))


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    network = PixelDiscriminator(**NETWORKS[PixelDiscriminator])
    (tmp_path / "file").touch()
    with pytest.raises(SavedModelError) as caught:
        network.save_pretrained(tmp_path / "file" / "x")
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'x'} cannot be written: Not a directory. Make room, or choose another folder."
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "write_together", full)
    with pytest.raises(SavedModelError, match="cannot be written: No space left on device"):
        network.save_pretrained(tmp_path / "x")


def test_an_index_of_parts_is_not_followed(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "/etc/passwd"}}')
    assert refused(load_pretrained, folder) == (
        f"{folder} is not a saved model: model.safetensors cannot be read (No such file or directory). A saved model "
        "is config.json and model.safetensors, not an index of parts."
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_device_in_place_of_a_file_is_not_read(folder, file):
    (folder / file).unlink()
    (folder / file).symlink_to("/dev/zero")
    assert f"{file} cannot be read (Not a regular file)" in refused(load_pretrained, folder)


def test_a_type_that_no_network_computes_in_is_refused(folder):
    tensors = {name: tensor.to(torch.float8_e5m2) for name, tensor in load_pretrained(folder).state_dict().items()}
    content = safetensors.torch.save(tensors)
    (folder / "model.safetensors").write_bytes(content)
    rewrite(folder, {**config_of(folder), "sha256": hashlib.sha256(content).hexdigest()})
    assert " of type torch.float8_e5m2, the network's is torch." in refused(load_pretrained, folder)


# Damage


@given(data=st.data(), bits=st.integers(1, 255))
def test_one_byte_changed_anywhere_in_the_weights_is_found(folders, tmp_path_factory, data, bits):
    cls = data.draw(st.sampled_from(list(NETWORKS)))
    content = bytearray((folders[cls] / "model.safetensors").read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    # Half of the draws in the header, which is far smaller than the tensors of most networks.
    at = data.draw(st.one_of(st.integers(0, header - 1), st.integers(header, len(content) - 1)))
    content[at] ^= bits
    spoilt = tmp_path_factory.mktemp("spoilt")
    (spoilt / "model.safetensors").write_bytes(content)
    (spoilt / "config.json").write_bytes((folders[cls] / "config.json").read_bytes())
    for load in (load_pretrained, cls.from_pretrained):
        with pytest.raises(SavedModelError) as caught:
            load(spoilt)
        assert str(caught.value) == (
            f"{spoilt / 'model.safetensors'} is damaged, or belongs to another config.json: its SHA-256 differs from "
            "the one there. Fetch or save the model again."
        )


@given(data=st.data(), bits=st.integers(1, 255))
def test_a_file_with_a_true_digest_and_a_false_content_is_refused_or_harmless(folders, tmp_path_factory, data, bits):
    """Whoever writes a hostile file writes its digest too."""
    cls = data.draw(st.sampled_from(list(NETWORKS)))
    content = bytearray((folders[cls] / "model.safetensors").read_bytes())
    for at in data.draw(st.lists(st.integers(0, 7 + int.from_bytes(content[:8], "little")), min_size=1, max_size=4)):
        content[at] ^= bits
    hostile = tmp_path_factory.mktemp("hostile")
    (hostile / "model.safetensors").write_bytes(content)
    config = json.loads((folders[cls] / "config.json").read_text())
    config["sha256"] = hashlib.sha256(content).hexdigest()
    (hostile / "config.json").write_text(json.dumps(config))
    try:
        loaded = load_pretrained(hostile)
    except SavedModelError:
        return
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {
        n: t.shape for n, t in cls(**NETWORKS[cls]).state_dict().items()
    }


@given(data=st.data(), bits=st.integers(1, 255))
def test_one_byte_changed_in_the_config_is_our_error_or_a_network(folders, tmp_path_factory, data, bits):
    cls = data.draw(st.sampled_from(list(NETWORKS)))
    content = bytearray((folders[cls] / "config.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= bits
    spoilt = tmp_path_factory.mktemp("spoilt")
    (spoilt / "config.json").write_bytes(content)
    (spoilt / "model.safetensors").write_bytes((folders[cls] / "model.safetensors").read_bytes())
    try:
        loaded = load_pretrained(spoilt)
    except SavedModelError:
        return
    assert type(loaded) is cls


@pytest.mark.parametrize("length", [0, 7, 8, 9, 200, -1])
def test_a_file_cut_short_is_found_even_with_a_true_digest(folder, length):
    content = (folder / "model.safetensors").read_bytes()[:length]
    path = folder / "model.safetensors"
    with pytest.raises(SavedModelError) as caught:
        parse_tensors(path, content)
    assert str(caught.value).startswith(f"{path} is damaged or not a safetensors file: ")


def test_weights_of_another_network_are_found(folder, tmp_path):
    UNetGenerator(**NETWORKS[UNetGenerator]).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(SavedModelError, match=r"belongs to another config\.json"):
        load_pretrained(folder)


def test_what_was_loaded_survives_its_file(folder):
    loaded = load_pretrained(folder)
    before = loaded.head.weight.clone()
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    assert torch.equal(loaded.head.weight, before)


# Hostile descriptions


def rewrite(folder, value):
    (folder / "config.json").write_text(json.dumps(value))


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


HUGE = {"1e8": 10**8, "1e9": 10**9, "1e12": 10**12, "1e18": 10**18, "1e30": 10**30, "2**63": 2**63}
HOSTILE = [
    *((UNetGenerator, {"depth": value}) for value in HUGE.values()),
    *((cls, {"in_channels": value}) for cls in NETWORKS for value in HUGE.values()),
    *((cls, {"base_channels": value}) for cls in NETWORKS for value in HUGE.values()),
    *((cls, {"out_channels": value}) for cls in (UNetGenerator, ResnetGenerator) for value in HUGE.values()),
    *((UNetGenerator, {"num_convs": value}) for value in HUGE.values()),
    *((ResnetGenerator, {name: value}) for name in ("num_blocks", "num_downs") for value in HUGE.values()),
    *((PatchDiscriminator, {"n_layers": value}) for value in HUGE.values()),
    *((MultiscaleDiscriminator, {name: value}) for name in ("n_layers", "num_scales") for value in HUGE.values()),
    *((LocalEnhancer, {name: value}) for name in ("num_enhancers", "global_downs") for value in HUGE.values()),
    (UNetGenerator, {"depth": 16, "base_channels": 10**8}),
    (UNetGenerator, {"channels": [10**12, 10**12]}),
    (UNetGenerator, {"channels": [1] * 10**5}),
    (UNetGenerator, {"skips": ["concat"] * 10**4}),
    (UNetGenerator, {"attention": list(range(10**5))}),
    (UNetGenerator, {"attention": [0]}),
    (UNetGenerator, {"dropout": [math.nan]}),
    (UNetGenerator, {"depth": math.nan}),
    (UNetGenerator, {"depth": math.inf}),
    (UNetGenerator, {"channels": nested(400)}),
    (UNetGenerator, {"norm": nested(400)}),
    (UNetGenerator, {"norm": "b" * 10**5}),
    (UNetGenerator, {"norm": "__import__('os').system('true')"}),
    (UNetGenerator, {"act": "torch.nn.Tanh"}),
    (ResnetGenerator, {"norm": {"py/object": "os.system"}}),
    (PatchDiscriminator, {"spectral_norm": 1}),
    (UNetGenerator, {"self": 1}),
    (UNetGenerator, {"cls": 1}),
    (UNetGenerator, {"__class__": "x"}),
    (UNetGenerator, {"": 1}),
    (PixelDiscriminator, {"n_layers": 3}),
]


def short(case):
    return f"{case[0].__name__}-{json.dumps(case[1])[:40]}"


@pytest.mark.parametrize("case", HOSTILE, ids=short)
def test_a_hostile_description_is_refused_without_memory(folders, tmp_path, case):
    cls, changes = case
    config = config_of(folders[cls])
    rewrite(tmp_path, {**config, "arguments": {**config["arguments"], **changes}})
    (tmp_path / "model.safetensors").write_bytes((folders[cls] / "model.safetensors").read_bytes())
    for load in (load_pretrained, cls.from_pretrained):
        message = refused(load, tmp_path)
        assert message.startswith(f"{cls.__name__}: ")
        assert len(message) < 1000


LARGEST = {
    UNetGenerator: {"depth": 16, "num_convs": 16},
    ResnetGenerator: {"num_blocks": 200},
    PatchDiscriminator: {"n_layers": 16, "spectral_norm": True},
}


@pytest.mark.parametrize("cls", LARGEST)
def test_the_largest_networks_that_are_allowed_take_no_memory_to_refuse(folders, tmp_path, cls):
    config = config_of(folders[cls])
    rewrite(tmp_path, {**config, "arguments": {**config["arguments"], **LARGEST[cls]}})
    (tmp_path / "model.safetensors").write_bytes((folders[cls] / "model.safetensors").read_bytes())
    assert " lacks " in refused(load_pretrained, tmp_path, operations=20_000)


ARGUMENTS = [(cls, name) for cls in NETWORKS for name in cls(**NETWORKS[cls]).config]
WRONG = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=5,
)


@pytest.mark.parametrize(("cls", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=30)
@given(value=WRONG)
def test_any_json_as_any_argument_is_our_error_or_a_network(folders, tmp_path_factory, cls, name, value):
    spoilt = tmp_path_factory.mktemp("any")
    config = config_of(folders[cls])
    rewrite(spoilt, {**config, "arguments": {**config["arguments"], name: value}})
    (spoilt / "model.safetensors").write_bytes((folders[cls] / "model.safetensors").read_bytes())
    with CountedMemory() as memory:
        try:
            loaded = load_pretrained(spoilt)
        except SavedModelError:
            assert memory.bytes < 10_000
            return
    assert type(loaded) is cls


@pytest.mark.parametrize(("cls", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_wrong_types_of_every_argument_are_refused(folders, tmp_path, cls, name):
    config = config_of(folders[cls])
    (tmp_path / "model.safetensors").write_bytes((folders[cls] / "model.safetensors").read_bytes())
    for value in ({}, {"a": 1}, 2.5, "no such name", -1, [[]], [None], [{}]):
        rewrite(tmp_path, {**config, "arguments": {**config["arguments"], name: value}})
        message = refused(load_pretrained, tmp_path)
        assert message.startswith(
            f"{cls.__name__}: config.json of {tmp_path} does not describe a network. {cls.__name__}: "
        )
        assert name in message


@given(config=WRONG)
def test_any_json_as_the_description_is_our_error(folder_of_any, config):
    rewrite(folder_of_any, config)
    with pytest.raises(SavedModelError):
        load_pretrained(folder_of_any)


@pytest.fixture(scope="module")
def folder_of_any(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@given(data=st.data(), value=WRONG)
def test_any_json_as_any_entry_is_our_error_or_a_network(folders, folder_of_any, data, value):
    config = config_of(folders[UNetGenerator])
    key = data.draw(st.sampled_from([*config, "memory_format", "colours", "auto_map"]))
    rewrite(folder_of_any, {**config, key: value})
    (folder_of_any / "model.safetensors").write_bytes((folders[UNetGenerator] / "model.safetensors").read_bytes())
    try:
        assert type(load_pretrained(folder_of_any)) is UNetGenerator
    except SavedModelError:
        assert key != "version" or not isinstance(value, str)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"auto_map": "evil.py"}, "has an unknown entry 'auto_map': 'evil.py'. It may come"),
        ({"memory_fromat": "channels_last"}, ": 'channels_last'. Did you mean 'memory_format'? It may come"),
        ({"memory_format": "contiguous"}, "has an unknown entry 'memory_format': 'contiguous'. Did you mean"),
        ({"colours": "rgb"}, "has an unknown entry 'colours': 'rgb'. Did you mean"),
        ({"colours": None}, "has an unknown entry 'colours': None. Did you mean"),
        ({"memory_format": ["channels_last"]}, "has an unknown entry 'memory_format': ['channels_last']. Did you mean"),
    ],
)
def test_an_unknown_entry_is_refused(folder, entry, text):
    rewrite(folder, {**config_of(folder), **entry})
    message = refused(load_pretrained, folder)
    assert message.startswith(f"{folder / 'config.json'} has an unknown entry ")
    assert text in message
    assert message.endswith(" from a newer imtrans; update, or correct the file.")


def test_a_description_that_is_too_large_is_not_parsed(folder, monkeypatch):
    (folder / "config.json").write_text("[" * 1_000_001)
    monkeypatch.setattr(saved.json, "loads", lambda *_: pytest.fail("parsed"))
    message = refused(load_pretrained, folder)
    assert message == f"{folder / 'config.json'} has more than 1,000,000 bytes. It does not describe a network."


@pytest.mark.parametrize(
    "text",
    ["", "{", "\0", "[" * 10**5, '{"a":' * 10**5, "1" * 5000, "nan", "'a'", "\ud800".encode("utf-8", "surrogatepass")],
    ids=["empty", "open", "null byte", "deep", "deep dicts", "digits", "name", "quotes", "surrogate"],
)
def test_what_is_no_json(folder, text):
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refused(load_pretrained, folder).startswith(f"{folder / 'config.json'} is not JSON: ")


@pytest.mark.parametrize("value", [[], [1], 3, None, "imtrans", True, {}, {"library": ["imtrans"]}])
def test_json_that_is_no_description(folder, value):
    rewrite(folder, value)
    assert refused(load_pretrained, folder) == (
        f'{folder / "config.json"} was not written by imtrans: it has no entry "library": "imtrans".'
    )


def test_the_folder_of_a_run_is_refused_with_the_networks_in_it(folder):
    run = folder.parent / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"method": "Pix2Pix", "networks": {"generator": {}}}))
    assert refused(load_pretrained, run) == f"{run} is the folder of a training run. It holds no saved network yet."
    folder.rename(run / "generator")
    assert refused(load_pretrained, run) == (
        f"{run} is the folder of a training run. Load a network in it: {run / 'generator'}."
    )


@pytest.mark.parametrize("key", ["version", "class", "arguments", "inference_mode", "sha256"])
def test_a_missing_entry(folder, key):
    config = config_of(folder)
    del config[key]
    rewrite(folder, config)
    kind = "dict" if key == "arguments" else "str"
    assert refused(load_pretrained, folder) == (f"{folder / 'config.json'}: {key!r} must be a {kind}, got None.")


@pytest.mark.parametrize("name", ["PatchDiscriminator", "Pretrained", "Module", "os.system", "", "UNetGenerator\0"])
def test_another_class_by_name(folder, name):
    rewrite(folder, {**config_of(folder), "class": name})
    refused(load_pretrained, folder)
    name = name.replace("\0", "\\x00")
    assert refused(UNetGenerator.from_pretrained, folder) == (
        f"UNetGenerator: {folder} holds a {name}. Use {name}.from_pretrained, or load_pretrained, which picks the "
        "class."
    )


def test_no_code_beside_the_weights_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("modeling.py", "__init__.py", "torch.py", "json.py", "conftest.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert isinstance(load_pretrained("."), nn.Module)
    assert not (tmp_path / "ran").exists()


def test_what_a_hostile_header_says_is_cut_short(tmp_path):
    header = b'{"__metadata__": "' + b"x" * 10**5 + b'"}'
    with pytest.raises(SavedModelError, match="is damaged or not a safetensors file") as caught:
        parse_tensors(tmp_path / "a.safetensors", len(header).to_bytes(8, "little") + header)
    assert len(str(caught.value)) < 1000
