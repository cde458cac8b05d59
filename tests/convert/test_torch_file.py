"""State dicts of torch.save from strangers: what each trick would make torch do, and that it is refused before."""

import pickle
import struct
import zipfile

import pytest
import torch
from fuzzing import BOMBS, LAUGHS, call, peak, string, tensor_code
from torch.torch_version import TorchVersion

from imtrans.convert.junyanz import from_junyanz
from imtrans.convert.torch_file import MOST_INSTRUCTIONS, read_torch_file
from imtrans.errors import SavedModelError

DAMAGED = (
    " is not a state dict of plain tensors: it is damaged, or holds something else, which was not run. "
    "Give the file that the reference implementation saved, such as latest_net_G.pth."
)


def archive(path, code, method=zipfile.ZIP_STORED, **storages):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + code + b".")
        file.writestr("a/version", b"3\n")
        for key, content in storages.items():
            file.writestr(f"a/data/{key}", content)
    return path


def refusal(path):
    with pytest.raises(SavedModelError) as caught:
        read_torch_file(path)
    return str(caught.value).removeprefix(str(path))


def one(key="x", length=4, offset=0, size=(4,), stride=(1,), storage="FloatStorage"):
    """The pickle of a dict of one tensor."""
    return b"}(" + string("w") + tensor_code(storage, key, length, offset, size, stride) + b"u"


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8, torch.bool])
def test_it_reads_what_torch_save_writes(tmp_path, dtype, zipped):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    state = {"whole": whole, "turned": whole[1].clone().T, "one": whole[1, 1, 1].clone(), "empty": whole[:0].clone()}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "x.pth")
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], tensor)


def test_parameters_are_tensors(tmp_path):
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "x.pth")
    assert torch.equal(read_torch_file(tmp_path / "x.pth")["w"], torch.ones(2))


def legacy(path, code, keys=("x",), storages=b""):
    """A file in the format before PyTorch 1.6."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*parts, b"\x80\x02" + code + b".", pickle.dumps(list(keys), 2), storages]))
    return path


def test_torch_before_its_reader_was_mended_is_not_used(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    assert refusal(tmp_path / "x.pth") == (
        " is not read: a file can make torch 2.9.1+cpu run code (CVE-2026-24747). Update to torch 2.10 or newer."
    )


def test_a_compressed_member_is_not_inflated(tmp_path):
    path = archive(tmp_path / "x.pth", one(length=10**7, size=[10**7]), zipfile.ZIP_DEFLATED, x=bytes(4 * 10**7))
    assert path.stat().st_size < 10**5
    assert refusal(path) == DAMAGED


def test_a_member_that_another_zip_reader_would_find_is_not_read(tmp_path):
    """An archive within the bytes before another one: readers differ in where they look for the members."""
    hidden = archive(tmp_path / "hidden.pth", one(), x=b"h" * 16).read_bytes()
    shown = archive(tmp_path / "shown.pth", one(), x=b"s" * 16).read_bytes()
    (tmp_path / "x.pth").write_bytes(hidden + shown)
    found = read_torch_file(tmp_path / "x.pth")["w"]
    assert found.numpy().tobytes() == b"s" * 16


@pytest.mark.parametrize("name", ["a/data.pkl", "A/DATA.PKL"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path, name):
    path = archive(tmp_path / "x.pth", one(), x=bytes(16))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"\x80\x02}.")
    assert refusal(path) == DAMAGED


@pytest.mark.parametrize(
    "claim",
    [
        {"length": 10**12}, {"length": -1}, {"offset": 1}, {"offset": -1}, {"offset": 2**62},
        {"key": "y"},
        {"size": [2], "stride": [4]}, {"size": [-4]}, {"size": [4, 1]},
        {"size": [0, 2**63], "stride": [1, 1]}, {"stride": [-1]}, {"storage": "nn.Module"},
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_that_does_not_fit_its_storage(tmp_path, claim):
    path = archive(tmp_path / "x.pth", one(**claim), x=bytes(16))
    assert refusal(path) == DAMAGED
    assert torch.equal(read_torch_file(archive(path, one(), x=bytes(16)))["w"], torch.zeros(4))


def test_strides_of_zero_claim_more_than_there_is(tmp_path):
    path = archive(tmp_path / "x.pth", one(size=[2**20, 2**20], stride=[0, 0]), x=bytes(16))
    size = path.stat().st_size
    assert refusal(path) == f" has {size:,} bytes and claims tensors of 4,398,046,511,104. Fetch the file again."


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("code", BOMBS, ids=lambda code: repr(code[:20]))
def test_a_pickle_that_makes_more_than_a_state_dict(code, zipped, tmp_path, monkeypatch):
    """As the value of an entry: nothing is run, and no memory is taken."""
    monkeypatch.chdir(tmp_path)
    before, code = peak(), b"}(" + string("w") + code + b"u"
    path = archive(tmp_path / "x.pth", code) if zipped else legacy(tmp_path / "x.pth", code, keys=())
    refusal(path)
    assert not (tmp_path / "ran").exists()
    assert peak() - before < 2**25


@pytest.mark.parametrize("zipped", [True, False])
def test_a_dict_keeps_its_own_methods(tmp_path, zipped):
    """torch sets the attributes that a file gives to its dict, and whoever calls ``items`` fails."""
    code = call("collections.OrderedDict") + b"}" + string("items") + b"Nsb"
    path = archive(tmp_path / "x.pth", code) if zipped else legacy(tmp_path / "x.pth", code, keys=())
    assert read_torch_file(path) == {}


def test_what_is_no_tensor_is_named_in_a_few_words(tmp_path):
    """Lists of lists, each ten times in the next: a kilobyte that takes 10**60 characters to print."""
    path = archive(tmp_path / "x.pth", b"}(" + string("w") + LAUGHS + b"u")
    with pytest.raises(SavedModelError) as caught:
        from_junyanz(path)
    assert str(caught.value).startswith(f"{path} holds ([], [[], ")
    assert str(caught.value).endswith(
        " under 'w', not a named tensor. Give the file that the reference implementation saved, such as "
        "latest_net_G.pth."
    )
    assert len(str(caught.value)) < 2000


def test_a_pickle_without_end_is_given_up(tmp_path):
    assert refusal(archive(tmp_path / "x.pth", b"]" * MOST_INSTRUCTIONS)) == DAMAGED
    assert refusal(legacy(tmp_path / "y.pth", b"]" * MOST_INSTRUCTIONS)) == DAMAGED


def claimed(length):
    return b"}(" + string("w") + tensor_code("FloatStorage", "x", length, 0, [length], [1], legacy=True) + b"u"


def test_the_format_before_zip_takes_no_memory_for_what_it_claims(tmp_path):
    """torch reserves addresses for the claim, and fails before it uses them; 4 GB here."""
    before = peak()
    assert refusal(legacy(tmp_path / "x.pth", claimed(2**30), storages=struct.pack("<q", 2**30) + bytes(9))) == DAMAGED
    assert peak() - before < 2**25
    assert refusal(legacy(tmp_path / "y.pth", claimed(2**60), storages=struct.pack("<q", 2**60))) == DAMAGED


@pytest.mark.parametrize("rest", [b"", bytes(8), struct.pack("<q", 4) + bytes(16)])
def test_tensors_without_their_data_are_refused(tmp_path, rest):
    """torch leaves a storage that is listed nowhere uninitialized."""
    assert refusal(legacy(tmp_path / "x.pth", claimed(4), keys=(), storages=rest)) == DAMAGED
    path = legacy(tmp_path / "y.pth", claimed(4), storages=struct.pack("<q", 4) + bytes(16))
    assert torch.equal(read_torch_file(path)["w"], torch.zeros(4))
