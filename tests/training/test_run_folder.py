import json
import os
import shutil
import socket

import pytest
import torch
from PIL import Image

from imtrans import PatchDiscriminator, Pix2Pix, UNetGenerator
from imtrans.errors import CheckpointError, TrainingError
from imtrans.methods import Translation
from imtrans.training.publish import TrainingSummary
from imtrans.training.run_folder import NoRunFolder, RunFolder, method_config

NOTHING = TrainingSummary({})


def of(**networks):
    return [Translation(name, network) for name, network in networks.items()]


def picture():
    return {"source": torch.zeros(1, 3, 8, 8)}


@pytest.fixture
def folder(tmp_path):
    """A folder with two checkpoints, and metrics and samples that go beyond them."""
    folder = RunFolder(tmp_path / "run", keep=2)
    with folder.locked(resume=False):
        folder.start({"epochs": 3})
    for step in range(1, 7):
        folder.log({"kind": "train", "step": step, "losses": {"l1": 1 / step}})
        folder.save_sample(step, picture())
        if step in (2, 4):
            folder.log({"kind": "validation", "step": step})
            folder.save_checkpoint(step, {"step": step})
    return folder


def steps(folder):
    return [json.loads(line)["step"] for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def samples(folder):
    return sorted(p.name for p in (folder.path / "samples").iterdir())


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_is_no_folder_for_a_run(tmp_path, resume):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(TrainingError) as caught, RunFolder(tmp_path / "run", keep=1).locked(resume=resume):
        pass
    assert str(caught.value) == f"{tmp_path / 'run'} is a file. Give the run a folder with out=... (--out)."
    assert (tmp_path / "run").read_text() == "mine"


def test_what_came_after_the_checkpoint_is_forgotten(folder):
    assert folder.newest_state() == {"step": 4}
    assert steps(folder) == [1, 2, 2, 3, 4, 4, 5, 6]
    folder.truncate(4)
    assert steps(folder) == [1, 2, 2, 3, 4, 4]
    assert samples(folder) == [f"{n:06d}.png" for n in range(1, 5)]


@pytest.mark.parametrize(
    "torn", [b'{"kind": "train", "st', b"\0" * 40, b'{"step": null}', b"[]", b"\xff\xfe", b"12\n\n"]
)
def test_a_torn_line_belongs_to_no_step(folder, torn):
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    folder.truncate(9)
    assert steps(folder) == [1, 2, 2, 3, 4, 4, 5, 6]
    folder.log({"step": 7})
    assert steps(folder)[-1] == 7


def test_metrics_that_are_cut_at_any_byte_are_read_and_repaired(folder):
    metrics = folder.path / "metrics.jsonl"
    whole = metrics.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(b"".join(lines[:-2])), len(whole) + 1):
        metrics.write_bytes(whole[:length])
        folder.write_gallery()
        folder.truncate(9)
        kept = b"".join(lines[: whole[:length].count(b"\n")])
        # A line that lacks its end alone says all that it said.
        assert metrics.read_bytes() in (kept, kept + whole[len(kept) : length] + b"\n")
        folder.log({"step": 7})
        assert steps(folder)[-1] == 7


def test_forgetting_touches_no_other_files(folder):
    others = [folder.path / "samples" / "mine.png", folder.path / "samples" / "000009.txt"]
    for path in others:
        path.touch()
    (folder.path / "metrics.jsonl").unlink()
    folder.truncate(0)
    assert samples(folder) == ["000009.txt", "mine.png"]
    assert not (folder.path / "metrics.jsonl").exists()


def test_what_a_kill_left_half_written_is_swept(folder):
    (folder.path / "generator").mkdir()
    for name in (".index.html.7.tmp", "generator/.model.safetensors.7.tmp", "samples/.000002.png.7.tmp"):
        (folder.path / name).write_bytes(b"half")
    (folder.path / "generator" / "mine.tmp").write_bytes(b"not ours")
    folder.truncate(4)
    assert [path.name for path in folder.path.rglob("*.tmp")] == ["mine.tmp"]


def test_a_sample_is_a_picture_and_on_the_page(folder):
    with Image.open(folder.path / "samples" / "000003.png") as image:
        assert image.size == (8, 8)
    assert "samples/000006.png" in (folder.path / "index.html").read_text()


def test_the_newest_is_the_highest_number(tmp_path):
    folder = RunFolder(tmp_path, keep=3)
    for step in (999_999, 1_000_000):
        folder.save_checkpoint(step, {"step": step})
    assert folder.newest_state() == {"step": 1_000_000}


def test_products_are_saved_by_name(tmp_path):
    generator = UNetGenerator(base_channels=2, depth=2)
    RunFolder(tmp_path, keep=1).save_networks(of(g=generator, f=generator), NOTHING)
    for name in "gf":
        loaded = UNetGenerator.from_pretrained(tmp_path / name)
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), generator.parameters(), strict=True))


def test_products_have_cards_of_their_own_folders_and_pictures(tmp_path):
    generator = UNetGenerator(base_channels=2, depth=2)
    provenance = TrainingSummary({"method": "Mine"}, columns=picture())
    RunFolder(tmp_path, keep=1).save_networks(of(g=generator, f=generator), provenance)
    for name in "gf":
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "README.md", "source.png", "samples.png"}
        card = (tmp_path / name / "README.md").read_text()
        assert f'load_pretrained("{tmp_path.as_posix()}/{name}")' in card
        assert "| method | Mine |" in card


def test_without_a_path_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = NoRunFolder()
    with folder.locked(resume=False):
        folder.start({})
        folder.log({"step": 1})
        folder.save_sample(1, picture())
        folder.save_checkpoint(1, {})
        folder.save_networks(of(g=UNetGenerator(base_channels=2, depth=2)), NOTHING)
        folder.truncate(0)
        folder.write_gallery()
    assert folder.newest_state() is None
    assert list(tmp_path.iterdir()) == []


def run_folder(path):
    return NoRunFolder() if path is None else RunFolder(path, keep=1)


def refused(folder, error, *, resume=False):
    with pytest.raises(error) as caught, run_folder(folder).locked(resume=resume):
        pass
    return str(caught.value)


@pytest.mark.parametrize("name", [None, "none", ""])
def test_nothing_to_resume(tmp_path, name):
    folder = None if name is None else tmp_path / name
    assert refused(folder, CheckpointError, resume=True) == (
        f"there is no run in {folder} to resume. Start without resume, or check the folder."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_refused(folder):
    assert refused(folder.path, TrainingError) == (
        f"{folder.path} already holds a run. Continue it with resume=True (--resume), or give this one another "
        "folder with out=... (--out)."
    )
    assert json.loads((folder.path / "config.json").read_text()) == {"epochs": 3}


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_anew(tmp_path):
    RunFolder(tmp_path, keep=1).start({})
    with RunFolder(tmp_path, keep=1).locked(resume=True):
        assert RunFolder(tmp_path, keep=1).newest_state() is None


def test_a_run_whose_checkpoints_are_gone_does_not_start_anew(folder):
    shutil.rmtree(folder.path / "checkpoints")
    with pytest.raises(CheckpointError) as caught:
        folder.newest_state()
    assert str(caught.value) == (
        f"{folder.path} holds a run without a checkpoint: {folder.path / 'checkpoints'} is missing or cannot be "
        "read. Restore it, or start in another folder."
    )


def test_two_runs_at_once_in_a_folder_are_refused(folder):
    for resume in (False, True):
        with folder.locked(resume=True):
            assert refused(folder.path, TrainingError, resume=resume) == (
                f"{folder.path} is in use by process {os.getpid()} on {socket.gethostname()}. Wait for its end or "
                "stop it, or give this run another folder with out=... (--out)."
            )
    with folder.locked(resume=True):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file" / "run", TrainingError) == (
        f"{tmp_path / 'file' / 'run'} cannot be written: Not a directory. Everything saved before is intact. Free some "
        "space or choose another folder, and resume."
    )


def test_what_the_disk_refuses_is_told(folder, monkeypatch):
    def full(path, _content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("imtrans.training.run_folder.write_atomic", full)
    with pytest.raises(TrainingError) as caught:
        folder.save_sample(9, picture())
    assert str(caught.value) == (
        f"{folder.path / 'samples' / '000009.png'} cannot be written: No space left on device. Everything saved before "
        "is intact. Free some space or choose another folder, and resume."
    )


def test_describe_names_method_networks_and_versions():
    method = Pix2Pix(UNetGenerator(base_channels=2, depth=2), PatchDiscriminator(6, base_channels=2))
    described = json.loads(json.dumps(method_config(method)))
    assert described["method"] == "Pix2Pix"
    assert described["networks"]["generator"] == {
        "class": "UNetGenerator",
        "arguments": {name: repr(value) for name, value in method.generator.config.items()},
    }
    assert described["networks"]["generator"]["arguments"]["depth"] == "2"
    assert list(described["networks"]) == ["generator", "discriminator"]
    assert described["torch"] == torch.__version__


def test_a_restart_by_torchrun_goes_on_with_its_own_run_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    folder = RunFolder(tmp_path, keep=1)
    with folder.locked(resume=False) as goes_on:
        assert not goes_on
        folder.start({"seed": 0})
    with pytest.raises(TrainingError, match="already holds a run"), folder.locked(resume=False):
        pass
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with folder.locked(resume=False) as goes_on:
        assert goes_on
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    with pytest.raises(TrainingError, match="already holds a run"), folder.locked(resume=False):
        pass
