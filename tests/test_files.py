import errno
import hashlib
import json
import os
import resource
import stat

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from imtrans import files
from imtrans.errors import HubError, SavedModelError
from imtrans.files import disk_errors, json_bytes, read_file, sha256_of, write_atomic, write_together


def test_it_writes_and_replaces(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"newer"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o007])
@pytest.mark.parametrize("content", [b"content", {"a": torch.zeros(3)}], ids=["bytes", "tensors"])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, umask, content):
    before = os.umask(umask)
    try:
        with write_together(tmp_path) as group:
            group.write("file", content)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_when_the_write_fails_the_old_file_stays_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    write_atomic(path, b"old")

    def record(handle):
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", record)
    write_atomic(path, b"new")
    assert synced[0] == (False, b"old")
    if os.name == "posix":
        assert synced[1:] == [(True, b"new")]


def test_files_that_belong_together_are_all_the_old_ones_when_one_cannot_be_written(tmp_path, monkeypatch):
    def write(content):
        with write_together(tmp_path) as group:
            for name in ("a", "b"):
                group.write(name, content)

    write(b"1")
    real, asked = os.fsync, []

    def full(handle):
        asked.append(handle)
        if len(asked) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"1"}
    write(b"3")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"3", "b": b"3"}


def test_json_is_indented_and_ends_its_last_line(tmp_path):
    write_atomic(tmp_path / "file.json", json_bytes({"a": [1, None]}))
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.startswith('{\n  "a"')
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "file.json", json_bytes(1))
    with pytest.raises(TypeError):
        write_atomic(tmp_path / "file.json", json_bytes(object()))
    assert (tmp_path / "file.json").read_text() == "1\n"


def test_tensors_of_every_layout_come_back_equal(tmp_path):
    base = torch.arange(48.0).reshape(2, 3, 2, 4)
    tensors = {
        "plain": base,
        "channels_last": base.to(memory_format=torch.channels_last),
        "view": base[:, 1],
        "transposed": base.mT,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "bf16": base.bfloat16(),
        "scalar": torch.tensor(3),
        "same": base,
    }
    with write_together(tmp_path) as group:
        group.write("file.safetensors", tensors)
    loaded = load_file(tmp_path / "file.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_tensors_are_written_as_safetensors_writes_them_and_the_digest_is_returned(tmp_path):
    tensors = {"b": torch.randn(40, 50), "a": torch.arange(3), "half": torch.ones(2).half(), "none": torch.empty(0)}
    with write_together(tmp_path) as group:
        digests = [group.write("tensors", tensors), group.write("bytes", b"content")]
    content = (tmp_path / "tensors").read_bytes()
    assert content == safetensors.torch.save(tensors, metadata={"format": "pt"})
    assert digests == [hashlib.sha256(content).hexdigest(), hashlib.sha256(b"content").hexdigest()]
    assert digests == [sha256_of(tmp_path / "tensors"), sha256_of(b"content")]
    assert sorted(os.listdir(tmp_path)) == ["bytes", "tensors"]


def test_the_digest_of_a_file_of_several_chunks(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_tensors_on_a_full_disk_are_an_os_error_and_leave_the_old_files(tmp_path):
    """The library that writes them raises an error of its own."""
    write_atomic(tmp_path / "file", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, write_together(tmp_path) as group:
            group.write("file", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_tensors_that_cannot_be_written_are_the_librarys_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: invalid tensor")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    with pytest.raises(SafetensorError, match="invalid tensor"), write_together(tmp_path) as group:
        group.write("file", {"a": torch.zeros(1)})
    assert os.listdir(tmp_path) == []


def test_disk_errors_become_ours(tmp_path):
    def fail(error):
        with disk_errors(SavedModelError, "x {cannot} be written", "Make room."):
            raise error

    with pytest.raises(SavedModelError) as caught:
        fail(OSError(errno.ENOSPC, "No space left on device"))
    assert str(caught.value) == "x {cannot} be written: No space left on device. Make room."
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(SavedModelError, match=r"written: odd\. Make room"):
        fail(OSError("odd"))
    for ours in (HubError("refused"), ValueError("other")):
        with pytest.raises(type(ours)) as caught:
            fail(ours)
        assert caught.value is ours


def test_the_folder_is_synced_where_the_system_can(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "name", "nt")
    monkeypatch.setattr(os, "open", lambda *args: pytest.fail("Windows cannot open a folder"))
    files.sync_folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
def test_a_pipe_and_a_device_are_not_read(tmp_path):
    """Reading the one would wait for ever, reading the other would fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="Not a regular file"):
            read_file(tmp_path / name)


def test_a_file_is_read_whole_or_to_a_length(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert (read_file(tmp_path / "file"), read_file(tmp_path / "file", most=3)) == (b"content", b"con")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
