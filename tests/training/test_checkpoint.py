import hashlib
import json
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans.errors import CheckpointError
from imtrans.files import FileGroup
from imtrans.training import checkpoint as room
from imtrans.training.checkpoint import (
    DIGESTS,
    STATE,
    TENSORS,
    checkpoints,
    load_checkpoint,
    newest_state,
    save_checkpoint,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    whole = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return whole.to(draw(st.sampled_from(DTYPES)))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, tensors())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(TEXT, st.integers()), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and (raw(one) == raw(other))
    if isinstance(one, dict):
        keys = [(type(k), k) for k in one], [(type(k), k) for k in other]
        return keys[0] == keys[1] and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or repr(one) == repr(other)
    return one == other


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def saved(folder, value, step=1, keep=9):
    path = folder / f"{step:06d}"
    save_checkpoint(path, {"value": value}, keep=keep)
    return path


def value_of(path):
    return load_checkpoint(path)["value"]


@given(value=VALUES)
def test_any_nested_state_comes_back_as_it_was(tmp_path_factory, value):
    path = saved(tmp_path_factory.mktemp("run"), value)
    assert same(value_of(path), value)


def test_keys_that_look_alike_do_not_mix_up_their_tensors(tmp_path):
    value = {1: torch.ones(1), "1": torch.zeros(1), "a/b": torch.ones(2), "a": {"b": torch.zeros(2)}}
    assert same(value_of(saved(tmp_path, value)), value)


def test_tied_weights_and_views_are_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    value = {"one": weight, "tied": weight, "row": weight[1], "across": weight.T, "wide": weight[:1].expand(4, 3)}
    loaded = value_of(saved(tmp_path, value))
    assert same(loaded, value)
    loaded["one"].zero_()
    assert loaded["tied"].sum() == 15


def test_a_loaded_tensor_is_memory_of_its_own_on_the_cpu(tmp_path, device):
    path = saved(tmp_path, torch.ones(3, device=device, requires_grad=True))
    loaded = value_of(path)
    path.joinpath(TENSORS).write_bytes(b"")
    assert loaded.device.type == "cpu"
    assert not loaded.requires_grad
    assert loaded.tolist() == [1, 1, 1]


def test_a_checkpoint_is_json_and_safetensors(tmp_path):
    path = saved(tmp_path, [torch.ones(2), "text"])
    assert sorted(p.name for p in path.iterdir()) == ["SHA256SUMS", "state.json", "tensors.safetensors"]
    json.loads(path.joinpath(STATE).read_text())
    content = path.joinpath(TENSORS).read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + header])["__metadata__"] == {"format": "pt"}
    assert len(content) == 8 + header + 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, {2}]}, "the state has a set at /value/a/1, and a checkpoint cannot hold it. "),
        (torch.float32, "the state has a dtype at /value, and a checkpoint cannot hold it. "),
        (b"x", "the state has a bytes at /value, and a checkpoint cannot hold it. "),
        ({"a": {(1, 2): 3}}, "the state has the key (1, 2) at /value/a. Use strings and integers."),
        ({None: 3}, "the state has the key None at /value. Use strings and integers."),
    ],
)
def test_what_cannot_be_saved_is_named_before_anything_is_written(tmp_path, value, text):
    with pytest.raises(CheckpointError) as caught:
        saved(tmp_path / "checkpoints", value)
    assert str(caught.value).removesuffix("Use tensors, numbers, strings, and dicts and lists of them.") == text
    assert not (tmp_path / "checkpoints").exists()


def test_keep_deletes_the_oldest(tmp_path):
    for step in range(1, 6):
        saved(tmp_path, step, step=step, keep=2)
    assert [value_of(p) for p in checkpoints(tmp_path)] == [4, 5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000004", "000005"]


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (999_999, 1_000_000, 1_000_001):
        saved(tmp_path, step, step=step, keep=2)
    assert [value_of(p) for p in checkpoints(tmp_path)] == [1_000_000, 1_000_001]


def test_checkpoints_are_folders_named_by_a_step(tmp_path):
    assert checkpoints(tmp_path / "none") == []
    (tmp_path / "000007").touch()
    for name in ("notes", ".000008.1.tmp", "²"):
        (tmp_path / name).mkdir()
    assert checkpoints(tmp_path) == []


class Crash(BaseException):
    """Ends the process as far as the code can tell."""


def crash(*_args, **_kwargs):
    raise Crash


STAGES = ["write", "write_together", "rename", "sync_folder", "rmtree"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("swept", [True, False], ids=["exception", "kill"])
def test_a_crash_at_any_stage_leaves_whole_checkpoints(tmp_path, monkeypatch, stage, swept):
    saved(tmp_path, 1, step=1)
    saved(tmp_path, 2, step=2)
    with monkeypatch.context() as patch:
        if not swept:
            patch.setattr(room.shutil, "rmtree", lambda *_args, **_kwargs: None)  # a kill cleans nothing up
        if stage == "rename":
            patch.setattr(room.Path, "rename", crash)
        elif stage == "write":
            patch.setattr(FileGroup, "write", crash)
        elif stage == "rmtree":
            patch.setattr(room.shutil, "rmtree", lambda _path, ignore_errors=False: None if ignore_errors else crash())
        else:
            patch.setattr(room, stage, crash)
        with pytest.raises(Crash):
            saved(tmp_path, 3, step=3, keep=2)
    found = checkpoints(tmp_path)
    whole = {"sync_folder": [1, 2, 3], "rmtree": [2, 3]}.get(stage, [1, 2])
    assert [value_of(p) for p in found] == whole

    saved(tmp_path, 3, step=3, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000002", "000003"]
    assert [value_of(p) for p in checkpoints(tmp_path)] == [2, 3]


def test_a_half_deleted_checkpoint_is_no_checkpoint(tmp_path, monkeypatch):
    saved(tmp_path, 1, step=1)
    real = room.shutil.rmtree

    def interrupted(path, ignore_errors=False):
        if not ignore_errors:
            path.joinpath(STATE).unlink()
            raise Crash
        real(path, ignore_errors=True)

    monkeypatch.setattr(room.shutil, "rmtree", interrupted)
    with pytest.raises(Crash):
        saved(tmp_path, 2, step=2, keep=1)
    assert [value_of(p) for p in checkpoints(tmp_path)] == [2]


def test_what_an_earlier_process_of_the_same_id_left_does_not_stop_this_one(tmp_path):
    leftover = tmp_path / f".000001.new.{os.getpid()}.tmp"
    leftover.mkdir()
    (leftover / TENSORS).write_bytes(b"half")
    assert value_of(saved(tmp_path, 5)) == 5
    assert not leftover.exists()


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    saved(tmp_path, "old")
    assert value_of(saved(tmp_path, "new")) == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    saved(tmp_path, 1)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "write_together", full)
    with pytest.raises(CheckpointError) as caught:
        saved(tmp_path, 2, step=2)
    assert str(caught.value) == (
        f"{tmp_path / '000002'} cannot be written: No space left on device. Earlier checkpoints are intact. "
        "Free some space or choose another folder, and resume."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["000001"]


def damage(name, content):
    return lambda path: path.joinpath(name).write_bytes(content)


def forge(name, content):
    """Damage that the digests do not show."""

    def harm(path):
        path.joinpath(name).write_bytes(content)
        names = (TENSORS, STATE)
        sums = [f"{hashlib.sha256(path.joinpath(n).read_bytes()).hexdigest()}  {n}\n" for n in names]
        path.joinpath(DIGESTS).write_text("".join(sums))

    return harm


NOT_THE_SAME = "the files do not match the digests in SHA256SUMS"


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda path: path.joinpath(STATE).unlink(), "No such file or directory"),
        (lambda path: path.joinpath(TENSORS).unlink(), "No such file or directory"),
        (lambda path: path.joinpath(DIGESTS).unlink(), "No such file or directory"),
        (damage(STATE, b"{}"), NOT_THE_SAME),
        (damage(TENSORS, b""), NOT_THE_SAME),
        (damage(DIGESTS, b""), NOT_THE_SAME),
        (forge(STATE, b'{"dict": [['), "Expecting value"),
        (forge(STATE, b"\xff\xff"), "utf-8"),
        (forge(STATE, b'{"dict": [["value", {"tensor": "none"}]]}'), "'none'"),
        (forge(STATE, b'{"dict": 3}'), "not iterable"),
        (forge(STATE, b'{"dict": [], "list": []}'), "too many values"),
        (forge(STATE, b'{"dict": [[[1], 2]]}'), "unhashable"),
        (forge(STATE, b"[" * 100_000), "recursion"),
        (forge(STATE, b"[]"), "state.json holds no dict"),
        (forge(TENSORS, b""), "is damaged or not a safetensors file"),
        (forge(TENSORS, b"\xff" * 64), "is damaged or not a safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, harm, text):
    path = saved(tmp_path, torch.ones(3))
    harm(path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged (")
    assert text in message
    assert message.endswith(").")


@given(data=st.data())
def test_a_flipped_bit_or_a_cut_end_of_any_file_is_noticed(tmp_path_factory, data):
    path = saved(tmp_path_factory.mktemp("run"), [torch.arange(5.0), "text"])
    file = path / data.draw(st.sampled_from([TENSORS, STATE, DIGESTS]))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = content[:at]
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_digests_are_those_of_sha256sum(tmp_path):
    path = saved(tmp_path, torch.ones(3))
    for line in path.joinpath(DIGESTS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(path.joinpath(name).read_bytes()).hexdigest() == digest


def test_the_newest_that_is_whole_is_taken_and_damaged_ones_are_named_and_put_aside(tmp_path):
    for step in (1, 2, 3, 4):
        saved(tmp_path, step, step=step)
    (tmp_path / "000004" / TENSORS).write_bytes(b"")
    (tmp_path / "000003" / STATE).unlink()
    with pytest.warns(UserWarning, match="is skipped") as caught:
        assert newest_state(tmp_path) == {"value": 2}
    first, second = (str(warning.message) for warning in caught)
    assert first == f"{tmp_path / '000004'} is damaged ({NOT_THE_SAME}). It is skipped, and renamed to 000004.damaged."
    assert second.startswith(f"{tmp_path / '000003'} is damaged ([Errno 2] No such file or directory")
    names = ["000001", "000002", "000003.damaged", "000004.damaged"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert newest_state(tmp_path) == {"value": 2}
    saved(tmp_path, 5, step=4, keep=1)
    assert newest_state(tmp_path) == {"value": 5}


def test_all_are_damaged(tmp_path):
    for step in (1, 2):
        (saved(tmp_path, step, step=step) / DIGESTS).write_text("")
    for _ in range(2):  # who asks again is not told that there has never been one
        with pytest.raises(CheckpointError) as caught:
            newest_state(tmp_path)
        assert str(caught.value) == (
            f"each checkpoint in {tmp_path} is damaged, 2 in all. The oldest: {tmp_path / '000001'} is damaged "
            f"({NOT_THE_SAME}). Start in another folder."
        )
    assert [path.name for path in checkpoints(tmp_path)] == ["000001", "000002"]


def test_there_is_none(tmp_path):
    assert newest_state(tmp_path) is None
    assert newest_state(tmp_path / "none") is None
