"""Files from strangers: whatever is in them, a correct load or an error of ours, soon and without memory."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import fuzzing
import pytest
import torch
from fuzzing import NETWORKS, Watch, changed, encoded, legacy_files, safetensors_files, values, zipped_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import load_reference

from imtrans import PatchDiscriminator, Pix2Pix, ProceduralFacades, Trainer, UNetGenerator, load_pretrained
from imtrans.convert.junyanz import from_junyanz
from imtrans.errors import ImtransError, SavedModelError
from imtrans.training.checkpoint import DIGESTS, STATE, TENSORS, load_checkpoint
from imtrans.training.report.gallery import write_gallery

# The slow test at the end sets both, for a process of its own.
EXAMPLES = int(os.environ.get("IMTRANS_FUZZ_EXAMPLES", "40"))
FOLDER = os.environ.get("IMTRANS_FUZZ_FOLDER")
CLASSES = st.sampled_from(list(NETWORKS))
examples = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    watch = Watch(Path(FOLDER) if FOLDER else tmp_path_factory.mktemp("strange"))
    for state in fuzzing.STATES:  # what is imported at the first load is no part of any later
        torch.save(state, watch.folder / "latest_net_G.pth")
        from_junyanz(watch.folder / "latest_net_G.pth").save_pretrained(watch.folder)
        load_pretrained(watch.folder)
    yield watch
    if FOLDER:
        (watch.folder / "seen.json").write_text(json.dumps(vars(watch), default=str))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The files of a network of each class."""
    torch.manual_seed(0)
    files = {}
    for cls, settings_of in NETWORKS.items():
        folder = tmp_path_factory.mktemp(cls.__name__)
        cls(**settings_of).save_pretrained(folder)
        files[cls] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files


def same(a, b):
    """Whether two tensors are equal bit for bit, NaN included."""
    return a.shape == b.shape and a.numpy().tobytes() == b.to(a.dtype).numpy().tobytes()


@examples
@given(data=st.data())
def test_config_json(watch, saved, data):
    cls = data.draw(CLASSES)
    content = data.draw(encoded(data.draw(changed(json.loads(saved[cls]["config.json"])))))
    files = {**saved[cls], "config.json": content}
    load = data.draw(st.sampled_from([load_pretrained, cls.from_pretrained]))
    found = watch(lambda: load(watch.folder), files)
    if not isinstance(found, SavedModelError):
        assert type(found) is cls
        assert {n: p.shape for n, p in found.state_dict().items()} == weights(files["model.safetensors"])


def weights(content):
    header, _ = fuzzing.split(content)
    return {name: torch.Size(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


@examples
@given(data=st.data())
def test_weights_with_their_true_digest(watch, saved, data):
    """Whoever writes a hostile file writes its digest too."""
    cls = data.draw(CLASSES)
    content = data.draw(safetensors_files(saved[cls]["model.safetensors"]))
    config = {**json.loads(saved[cls]["config.json"]), "sha256": hashlib.sha256(content).hexdigest()}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": content}
    found = watch(lambda: load_pretrained(watch.folder), files)
    if not isinstance(found, SavedModelError):
        assert type(found) is cls
        assert {n: p.shape for n, p in found.state_dict().items()} == weights(saved[cls]["model.safetensors"])


@examples
@given(data=st.data(), index=values)
def test_an_index_of_parts(watch, saved, data, index):
    """Nothing of ours writes or reads one."""
    cls = data.draw(CLASSES)
    parts = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "/etc/passwd"}}
    content = data.draw(encoded(data.draw(changed(parts))) | st.just(json.dumps(index).encode()))
    folder = watch.folder / "index"
    files = {"config.json": saved[cls]["config.json"], "model.safetensors.index.json": content}
    found = watch(lambda: load_pretrained(folder), {f"index/{name}": raw for name, raw in files.items()})
    assert str(found) == (
        f"{folder} is not a saved model: model.safetensors cannot be read (No such file or directory). A saved model "
        "is config.json and model.safetensors, not an index of parts."
    )


def check_reference(watch, content, **options):
    path = watch.folder / "latest_net_G.pth"
    found = watch(lambda: from_junyanz(path), {path.name: content}, **options)
    assert not Path("ran").exists()
    if isinstance(found, SavedModelError):
        assert str(found).startswith(str(path))
        return
    state = torch.load(path, weights_only=True)
    twin = type(found)(**found.config)
    load_reference(twin, dict(dict.items(state)))  # PyTorch sets the attributes that a file gives its dict: "items" too
    for name, tensor in found.state_dict().items():
        assert same(tensor, twin.state_dict()[name])


@examples
@given(content=zipped_files())
def test_checkpoints_of_the_reference(watch, content):
    check_reference(watch, content)


@examples
@given(content=legacy_files())
def test_checkpoints_of_the_reference_before_zip(watch, content):
    """torch asks for the memory that such a file claims, and does not use it."""
    check_reference(watch, content, reserves=True)


LINES = [
    {"kind": "train", "step": 1, "epoch": 1, "lr": 2e-4, "images_per_second": 3.5, "losses": {"l1": 0.5, "gan": 0.7}},
    {"kind": "validation", "step": 2, "epoch": 1, "best": "eval", "eval": {"l1": 0.5, "psnr": 9.0}, "paper": {"l1": 1}},
]
RUN = {"method": "Pix2Pix", "command": "python x.py", "epochs": 2, "data": "a", "size": 8, "seed": 0, "version": "0.1"}
MANY = [
    *({"kind": "train", "step": step, "losses": {f"loss {step}": step}} for step in range(1500)),
    *({"kind": "validation", "step": step, f"mode {step}": {"l1": step}} for step in range(1500)),
]


@examples
@given(data=st.data())
def test_the_folder_of_a_run(watch, data):
    lines = [data.draw(changed(data.draw(st.sampled_from(LINES)), 0)) for _ in range(data.draw(st.integers(0, 6)))]
    if data.draw(st.integers(1, 20)) == 1:
        lines += map(json.dumps, MANY)
    name = data.draw(st.sampled_from(["000001.png", "9" * 60 + ".png", "٣.png", "².png"]))
    files = {
        "run/config.json": data.draw(encoded(data.draw(changed(RUN, 0)))),
        "run/metrics.jsonl": data.draw(encoded("\n".join(lines))),
        f"run/samples/{name}": data.draw(st.binary(max_size=40)),
    }
    page = watch(lambda: write_gallery(watch.folder / "run"), files)
    text = page.read_text()
    assert text.endswith("</html>")
    assert not re.search("<(script|iframe|object|link)", text)


def digested(tensors, state):
    """A checkpoint's files; whoever writes a hostile one writes its digests too."""
    files = {TENSORS: tensors, STATE: state}
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return {**files, DIGESTS: lines.encode()}


def trainer(out):
    torch.manual_seed(0)
    method = Pix2Pix(UNetGenerator(**NETWORKS[UNetGenerator]), PatchDiscriminator(**NETWORKS[PatchDiscriminator]))
    data = ProceduralFacades(2, size=16)
    options = {"out": out, "epochs": 1, "checkpoint_every": 1, "keep": 3, "device": "cpu", "precision": "fp32"}
    return Trainer(method, data, val_data=data, progress=False, **options)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The files of a run that was stopped after one of two steps; of its checkpoint, the folder apart."""
    out = tmp_path_factory.mktemp("run")
    trainer(out).fit()
    checkpoint = out / "checkpoints" / "000001"
    return {
        "config.json": (out / "config.json").read_bytes(),
        "metrics.jsonl": (out / "metrics.jsonl").read_bytes(),
        **{name: (checkpoint / name).read_bytes() for name in (TENSORS, STATE)},
    }


@st.composite
def checkpoint_files(draw, files):
    tensors, state = files[TENSORS], files[STATE]
    if draw(st.booleans()):
        state = draw(encoded(draw(changed(json.loads(state), 0))))
    if state == files[STATE] or draw(st.integers(1, 4)) == 1:
        tensors = draw(safetensors_files(tensors))
    return digested(tensors, state)


@examples
@given(data=st.data())
def test_a_checkpoint_with_its_true_digests(watch, stopped, data):
    files = data.draw(checkpoint_files(stopped))
    found = watch(lambda: load_checkpoint(watch.folder / "1"), {f"1/{name}": raw for name, raw in files.items()})
    assert isinstance(found, dict) or str(found).startswith(f"{watch.folder / '1'} is damaged (")


@examples
@given(data=st.data())
def test_resuming_from_a_checkpoint_with_its_true_digests(watch, stopped, data):
    out = watch.folder / "resumed"
    shutil.rmtree(out, ignore_errors=True)
    files = {f"resumed/checkpoints/000001/{n}": raw for n, raw in data.draw(checkpoint_files(stopped)).items()}
    for name in ("config.json", "metrics.jsonl"):
        files[f"resumed/{name}"] = stopped[name]
    run = trainer(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of a damaged checkpoint is of use, and is tested elsewhere
        found = watch(lambda: run.fit(resume=True), files)
    if not isinstance(found, ImtransError):
        assert run.step == run.total_steps


TEN_THOUSAND = {
    test_config_json: 2500,
    test_weights_with_their_true_digest: 2000,
    test_checkpoints_of_the_reference: 2000,
    test_checkpoints_of_the_reference_before_zip: 1500,
    test_a_checkpoint_with_its_true_digests: 1000,
    test_the_folder_of_a_run: 500,
    test_an_index_of_parts: 300,
    test_resuming_from_a_checkpoint_with_its_true_digests: 200,
}


def test_they_are_ten_thousand():
    assert sum(TEN_THOUSAND.values()) == 10_000


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "examples"), TEN_THOUSAND.items(), ids=lambda value: getattr(value, "__name__", None))
def test_many_strange_files(tmp_path, kind, examples):
    """In a process of its own, which a crash ends, and leaves the files that did it."""
    environment = {**os.environ, "IMTRANS_FUZZ_EXAMPLES": str(examples), "IMTRANS_FUZZ_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"{__file__}::{kind.__name__}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = f"{done.stdout[-5000:]}{done.stderr[-2000:]}"
    assert done.returncode == 0, f"status {done.returncode}; the files are in {tmp_path}.\n{said}"
    seen = json.loads((tmp_path / "seen.json").read_text())
    print({**seen, "kind": kind.__name__})
    assert seen["runs"] >= examples
