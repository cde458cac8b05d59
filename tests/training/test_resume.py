"""Resuming a run with fewer files: allowed, told and recorded. Other files are refused."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_trainer import QUIET, Recorder, equal, metrics, numbers

from imtrans import LabImages, PairedImages, PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator, UnpairedImages
from imtrans.errors import CheckpointError
from imtrans.files import json_bytes
from imtrans.training.checkpoint import newest_state
from imtrans.training.report.gallery import write_gallery
from imtrans.training.resume import compare_configs
from imtrans.training.schedule import Schedule

FILES = [f"{letter}.png" for letter in "abcdef"]


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in FILES:
        Image.fromarray(rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)).save(folder / name)
    return folder


def trainer(folder, out, *, on_bad_image="error", **settings):
    torch.manual_seed(7)
    method = Pix2Pix(UNetGenerator(base_channels=2, depth=2), PatchDiscriminator(6, base_channels=2, n_layers=1))
    data = PairedImages(folder, size=16, on_bad_image=on_bad_image)
    return Trainer(method, data, out=out, **{"epochs": 3, "batch_size": 2, "log_every": 1, **QUIET, **settings})


def config_of(out):
    return json.loads((out / "config.json").read_text())


def test_a_file_that_was_taken_out_is_told_and_recorded(tmp_path, pairs, capsys):
    out = tmp_path / "run"
    trainer(pairs, out, max_steps=4).fit()
    assert config_of(out)["files"] == FILES
    for name in ("c.png", "d.png"):
        (pairs / name).unlink()
    run = trainer(pairs, out, max_steps=9)
    run.fit(resume=True)
    assert (
        "Resumed after step 4 without 2 of 6 files: c.png, d.png. Epoch 2 continues with the others; the run has 7 "
        "steps now." in capsys.readouterr().err
    )
    config = config_of(out)
    assert config["files"] == ["a.png", "b.png", "e.png", "f.png"]
    (change,) = config["changes"]
    assert (change["step"], change["files"]) == (4, {"left_out": ["c.png", "d.png"]})
    assert [text[:7] for text in change["data"]] == ["6 pairs", "4 pairs"]
    assert (run.step, config["steps"]) == (7, 7)
    # 3 batches in each epoch, then 2: after batch 1 of epoch 1 comes its batch 2, and one whole epoch.
    assert [(line["step"], line["epoch"]) for line in metrics(out)] == [
        (1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 2), (7, 2),
    ]  # fmt: skip


def test_a_damaged_picture_is_skipped_on_resume(tmp_path, pairs, capsys):
    out = tmp_path / "run"
    trainer(pairs, out, max_steps=4).fit()
    whole = (pairs / "b.png").read_bytes()
    (pairs / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="1 of 6 samples is bad"):
        run = trainer(pairs, out, on_bad_image="skip")
    run.fit(resume=True)
    assert "Resumed after step 4 without 1 of 6 files: b.png. Epoch 2 continues" in capsys.readouterr().err
    assert config_of(out)["changes"][0]["files"] == {"left_out": ["b.png"]}
    assert run.step == run.total_steps == 9
    (pairs / "b.png").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"1 of 6 files is not among the 5 of the run: b[.]png"):
        trainer(pairs, out).fit(resume=True)


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_with_fewer_files_is_resumed_bit_for_bit(tmp_path, pairs, saved):
    """Also if the second stop comes before the first checkpoint with fewer files."""
    trainer(pairs, tmp_path / "one", max_steps=4).fit()
    for name in FILES[:3]:
        (pairs / name).unlink()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = trainer(pairs, tmp_path / "one", checkpoint_every=1)
    one.fit(resume=True)

    class Stop(BaseException):
        pass

    def stop(stopped, losses):
        if stopped.step == 6:
            raise Stop

    every = 1 if saved else 99
    with pytest.raises(Stop):
        trainer(pairs, tmp_path / "two", on_step_end=stop, checkpoint_every=every).fit(resume=True)
    state = newest_state(tmp_path / "two" / "checkpoints")
    assert (state["step"], state.get("extra_steps")) == ((5, 1) if saved else (4, None))
    two = trainer(pairs, tmp_path / "two", checkpoint_every=1)
    two.fit(resume=True)
    assert one.step == two.step == one.total_steps == 7
    assert equal(one.method.state_dict(), two.method.state_dict())
    assert [change["files"] for change in config_of(tmp_path / "two")["changes"] if "files" in change] == [
        {"left_out": FILES[:3]}
    ]
    (pairs / "f.png").unlink()  # of a finished run
    assert trainer(pairs, tmp_path / "two").fit(resume=True) is None
    assert config_of(tmp_path / "two")["steps"] == 7


def test_files_that_were_renamed_or_added_are_refused(tmp_path, pairs):
    out = tmp_path / "run"
    trainer(pairs, out, max_steps=4).fit()
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    (pairs / "c.png").rename(pairs / "z.png")
    (pairs / "a.png").unlink()
    with pytest.raises(CheckpointError) as caught:
        trainer(pairs, out).fit(resume=True)
    assert "; 1 of 5 files is not among the 6 of the run: z.png. Resume it with the values" in str(caught.value)
    shutil.copy(pairs / "z.png", pairs / "c.png")
    shutil.copy(pairs / "z.png", pairs / "a.png")
    with pytest.raises(CheckpointError, match=r"1 of 7 files is not among the 6 of the run: z[.]png[.] Resume"):
        trainer(pairs, out).fit(resume=True)
    (pairs / "z.png").rename(tmp_path / "z.png")
    (pairs / "b.png").unlink()
    with pytest.raises(CheckpointError, match=r"has other arguments: seed was 0, now 1\. Resume"):
        trainer(pairs, out, seed=1).fit(resume=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_arguments_are_compared_before_the_pictures_are_decoded(tmp_path, pairs, monkeypatch):
    out = tmp_path / "run"
    trainer(pairs, out, max_steps=1).fit()
    loaded, load = [], PairedImages.load
    monkeypatch.setattr(PairedImages, "load", lambda data, index: loaded.append(index) or load(data, index))
    with pytest.raises(CheckpointError, match="other arguments: seed was 0, now 1"):
        trainer(pairs, out, seed=1).fit(resume=True)
    assert not loaded
    trainer(pairs, out, max_steps=2).fit(resume=True)  # the lock was released
    assert sorted(set(loaded)) == [0, 1, 2, 3, 4, 5]


def test_fewer_files_do_not_hide_other_settings(tmp_path, pairs):
    def run(**changes):
        method = Pix2Pix(UNetGenerator(base_channels=2, depth=2), PatchDiscriminator(6, base_channels=2, n_layers=1))
        data = PairedImages(pairs, size=16, **changes)
        return Trainer(method, data, out=tmp_path / "run", epochs=1, **QUIET)

    run().fit()
    (pairs / "b.png").unlink()
    with pytest.raises(CheckpointError, match=r"has other arguments: data was '6 pairs .*, now '5 pairs .*BtoA"):
        run(direction="BtoA").fit(resume=True)


def test_a_run_of_before_without_a_list_of_files_is_compared_by_its_data(tmp_path, pairs):
    out = tmp_path / "run"
    trainer(pairs, out, max_steps=4).fit()
    config = config_of(out)
    del config["files"], config["data_settings"]
    (out / "config.json").write_bytes(json_bytes(config))
    (pairs / "b.png").rename(tmp_path / "b.png")
    with pytest.raises(CheckpointError, match=r"has other arguments: data was '6 pairs .*, now '5 pairs"):
        trainer(pairs, out).fit(resume=True)
    (tmp_path / "b.png").rename(pairs / "b.png")
    trainer(pairs, out, max_steps=5).fit(resume=True)
    assert config_of(out)["files"] == FILES  # from now on, it may lose some
    (pairs / "b.png").unlink()
    trainer(pairs, out, max_steps=6).fit(resume=True)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("1 pairs in a (1 bad ones left out), 8x8 pixels", "1 pair in a (1 bad one left out), 8x8 pixels"),
        ("1 procedural facades of seed 0", "1 procedural facade of seed 0"),
        ("pairs in a, source of 1 labels and edges", "pairs in a, source of 1 label and edges"),
    ],
)
def test_a_run_of_before_is_resumed_if_only_the_grammar_differs(tmp_path, before, now):
    assert compare_configs({"data": before, "settings": {}}, {"data": now, "settings": {}}, folder=tmp_path) == {}
    with pytest.raises(CheckpointError, match="data was '1"):
        compare_configs({"data": "11 pairs", "settings": {}}, {"data": now, "settings": {}}, folder=tmp_path)


def test_what_a_data_set_of_ones_own_needs(tmp_path):
    class Named(list):
        settings = "numbers"

        @property
        def files(self):
            return [f"{int(sample['number'])}.npy" for sample in self]

    arguments = {"epochs": 2, "lr": 1e-3, **QUIET}
    Trainer(Recorder(), Named(numbers(4)), out=tmp_path, max_steps=3, **arguments).fit()
    method = Recorder()
    Trainer(method, Named(numbers(4)[1:]), out=tmp_path, **arguments).fit(resume=True)
    assert len(method.seen) == 1 + 3  # epoch 0 was at its fourth batch, and has three now: its last one
    with pytest.raises(CheckpointError, match="the files have another order"):
        Trainer(Recorder(), Named(numbers(4)[:0:-1]), out=tmp_path, **arguments).fit(resume=True)


def test_the_files_of_each_folder_and_the_settings_do_not_depend_on_each_other(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
        for index in range(3):
            Image.new("RGB", (20 + index, 20)).save(tmp_path / side / f"{index}.png")

    def made():
        return UnpairedImages(tmp_path / "A", tmp_path / "B", size=16), LabImages(tmp_path / "A", size=16)

    unpaired, lab = made()
    assert unpaired.files == ["A/0.png", "A/1.png", "A/2.png", "B/0.png", "B/1.png", "B/2.png"]
    assert lab.files == ["0.png", "1.png", "2.png"]
    (tmp_path / "A" / "1.png").unlink()
    for before, after in zip((unpaired, lab), made(), strict=True):
        assert repr(before) != repr(after)
        assert before.settings == after.settings
        assert "16" in before.settings
    assert UnpairedImages(tmp_path / "B", tmp_path / "A", size=16).settings != unpaired.settings
    assert LabImages(tmp_path / "A", size=16, flip=False).settings != lab.settings


def test_a_hundred_thousand_files(tmp_path):
    old = {"data": "100000 pairs", "data_settings": "pairs", "files": [f"{i:06d}\udcff.png" for i in range(100_000)]}
    new = {**old, "data": "99998 pairs", "files": [*old["files"][:7], *old["files"][9:]]}
    assert compare_configs(json.loads(json_bytes(old)), new, folder=tmp_path)["files"] == {
        "left_out": ["000007\udcff.png", "000008\udcff.png"]
    }
    (tmp_path / "config.json").write_bytes(json_bytes(old))
    page = write_gallery(tmp_path).read_text()
    assert "100000 pairs" in page
    assert len(page) < 20_000


COUNTS = st.integers(1, 9)


@given(counts=st.lists(COUNTS, min_size=2, max_size=4), batch_size=COUNTS, epochs=COUNTS, data=st.data())
def test_epochs_stay_when_samples_are_left_out(counts, batch_size, epochs, data):
    """Each resume stays in its epoch, at the same batch or the last one; the others run to their ends."""
    counts = sorted(counts, reverse=True)
    step = extra = 0
    for samples, fewer in pairwise(counts):
        before, after = (Schedule(n, epochs=epochs, batch_size=batch_size) for n in (samples, fewer))
        before.extra_steps = extra
        step = data.draw(st.integers(step, before.total_steps))
        epoch, batch = before.epoch_and_batch(step)
        after.resume_with_fewer(step, samples=samples, extra_steps=extra)
        assert after.epoch_and_batch(step) == (epoch, min(batch, after.batches_per_epoch - 1))
        assert after.total_steps - step == (epochs - epoch) * after.batches_per_epoch - after.epoch_and_batch(step)[1]
        assert (after.extra_steps == extra) or samples > fewer
        extra = after.extra_steps
