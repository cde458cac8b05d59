import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from imtrans import files
from imtrans.files import read_file, tensor_bytes, write_atomic, write_json, write_together


def test_it_writes_and_replaces(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"newer"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "file", b"content")
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
    write_together(tmp_path, {"a": b"1", "b": b"1"})
    real, asked = os.fsync, []

    def full(handle):
        asked.append(handle)
        if len(asked) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_together(tmp_path, {"a": b"2", "b": b"2"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"1"}
    write_together(tmp_path, {"a": b"3", "b": b"3"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"3", "b": b"3"}


def test_json_is_indented_and_ends_its_last_line(tmp_path):
    write_json(tmp_path / "file.json", {"a": [1, None]})
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.startswith('{\n  "a"')
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", object())
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
    write_atomic(tmp_path / "file.safetensors", tensor_bytes(tensors))
    loaded = load_file(tmp_path / "file.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


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
