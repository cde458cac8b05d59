"""State dicts of torch.save from strangers: what each trick led PyTorch's own reader to do, and what becomes of it."""

import io
import pickle
import struct
import zipfile

import pytest
import torch
from fuzzing import BOMBS, LAUGHS, call, number, string, tensor_code

from imtrans.convert.junyanz import from_junyanz
from imtrans.convert.pickled import MOST_INSTRUCTIONS, Refused, unpickle
from imtrans.convert.torch_file import read_torch_file
from imtrans.errors import SavedModelError

DAMAGED = (
    " is no state dict: it is damaged, or holds more than tensors, and what else it holds is not run. "
    "Give the file that the reference implementation saved, such as latest_net_G.pth."
)


def archive(path, code, method=zipfile.ZIP_STORED, **storages):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + code + b".")
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


def test_a_parameter_and_a_lone_tensor(tmp_path):
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "x.pth")
    assert torch.equal(read_torch_file(tmp_path / "x.pth")["w"], torch.ones(2))
    torch.save(torch.ones(2), tmp_path / "x.pth")
    assert torch.equal(read_torch_file(tmp_path / "x.pth"), torch.ones(2))


def test_a_compressed_record_is_not_inflated(tmp_path):
    path = archive(tmp_path / "x.pth", one(length=10**7, size=[10**7]), zipfile.ZIP_DEFLATED, x=bytes(4 * 10**7))
    assert path.stat().st_size < 10**5
    assert refusal(path) == DAMAGED


@pytest.mark.parametrize(
    "claim",
    [
        {"length": 10**12}, {"length": -1}, {"offset": 1}, {"offset": -1}, {"offset": 2**62},
        {"key": "y"},
        {"size": [2], "stride": [4]}, {"size": [-4]}, {"size": [4, 1]}, {"size": [1] * 9, "stride": [1] * 9},
        {"size": [0, 2**63], "stride": [1, 1]}, {"stride": [-1]}, {"storage": "nn.Module"}, {"size": [4], "stride": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_that_does_not_fit_its_storage(tmp_path, claim):
    path = archive(tmp_path / "x.pth", one(**claim), x=bytes(16))
    said = " holds a tensor that is no plain array of real numbers. No network has such."
    assert refusal(path) == (said if "storage" in claim else DAMAGED)
    assert torch.equal(read_torch_file(archive(path, one(), x=bytes(16)))["w"], torch.zeros(4))


def test_strides_of_zero_claim_more_than_there_is(tmp_path):
    path = archive(tmp_path / "x.pth", one(size=[2**20, 2**20], stride=[0, 0]), x=bytes(16))
    assert refusal(path) == " claims tensors of 4,398,046,511,104 bytes, and holds 16."


@pytest.mark.parametrize("code", BOMBS, ids=lambda code: repr(code[:20]))
def test_a_pickle_that_makes_more_than_a_state_dict(code, tmp_path, monkeypatch):
    """As the value of an entry. Some make lists and numbers, which are harmless, and which no network has."""
    monkeypatch.chdir(tmp_path)
    try:
        found = unpickle(io.BytesIO(b"\x80\x02}(" + string("w") + code + b"u."))
    except (Refused, ValueError, LookupError, AttributeError, TypeError, OverflowError):
        found = {}
    assert not (tmp_path / "ran").exists()
    assert not any(isinstance(value, (bytes, bytearray, torch.Tensor)) for value in found.values())


def test_a_dict_keeps_its_own_methods():
    """PyTorch's reader sets the attribute, and whoever calls ``items`` fails."""
    found = unpickle(io.BytesIO(b"\x80\x02" + call("collections.OrderedDict") + b"}" + string("items") + b"Nsb."))
    assert dict(found.items()) == {}


def test_what_is_no_tensor_is_named_in_a_few_words(tmp_path):
    """Lists of lists, each ten times in the next: a kilobyte that takes 10**60 characters to print."""
    path = archive(tmp_path / "x.pth", b"}(" + string("w") + LAUGHS + b"u")
    with pytest.raises(SavedModelError) as caught:
        from_junyanz(path)
    assert str(caught.value).startswith(f"{path} holds ([], [[], ")
    assert str(caught.value).endswith(" under 'w', not a tensor by its name. Give a *_net_*.pth file.")
    assert len(str(caught.value)) < 2000


def test_numbers_that_all_have_one_hash_are_no_keys():
    keys = [k * (2**61 - 1) for k in range(1, 3)]
    with pytest.raises(ValueError, match="no key of a state dict"):
        unpickle(io.BytesIO(b"\x80\x02}(" + b"".join(number(key) + b"N" for key in keys) + b"u."))


def test_a_pickle_without_end_is_given_up(tmp_path):
    with pytest.raises(ValueError, match="no pickle of a state dict is as long"):
        unpickle(io.BytesIO(b"\x80\x02" + b"]" * MOST_INSTRUCTIONS + b"."))


def test_the_old_format_claims_no_more_than_it_holds(tmp_path):
    path = tmp_path / "x.pth"
    state = b"}(" + string("w") + tensor_code("FloatStorage", "x", 2**33, 0, [2**33], [1], legacy=True) + b"u"
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    content = b"".join([*parts, b"\x80\x02" + state + b".", pickle.dumps(["x"], 2)])
    path.write_bytes(content + struct.pack("<q", 2**33) + bytes(9))
    assert refusal(path) == DAMAGED
