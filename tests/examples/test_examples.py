import contextlib
import hashlib
import http.server
import importlib.util
import io
import json
import re
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from example_runs import run_example
from PIL import Image
from test_example_flags import TESTED, TESTED_PAIRED

from imtrans import UNetGenerator, load_pretrained
from imtrans.cli.train import pix2pix
from imtrans.errors import DataError
from imtrans.runtime import pick_precision

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "pix2pix_facades.py"
TINY = ["--max-steps", "3", "--size", "32", "--base-channels", "4", "--epochs", "1", "--device", "cpu"]


def run(*arguments, script=SCRIPT.name, **options):
    return run_example(script, *arguments, **options)


def succeeded(*arguments, **options):
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill(folder, count, size=(24, 18)):
    """A new folder with `count` pictures of noise."""
    folder.mkdir(parents=True)
    for n in range(count):
        noise = np.random.default_rng(n).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{n}.jpg")


def failed(*arguments, **options):
    """The error, which is one line after what the progress bar may have left."""
    done = run(*arguments, **options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def side_by_side(folder, count=4, size=24):
    folder.mkdir(parents=True)
    for n in range(count):
        picture = np.random.default_rng(n).integers(0, 256, (size, 2 * size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{n}.jpg")


def config_of(out):
    return json.loads((out / "config.json").read_text())


def table_of(output):
    """L1, PSNR and sliced Wasserstein distance of each mode, as printed."""
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: tuple(map(float, row[1:4])) for row in rows if row and row[0] in ("eval", "batch_stats", "paper")}


def test_with_no_data_it_trains_on_procedural_facades_and_resumes(tmp_path):
    output = succeeded(*TINY, cwd=tmp_path, new_process=True)
    out = tmp_path / "runs" / "facades"
    assert "training on   400 procedural facades of seed 0" in output
    assert "validating on 20 procedural facades of seed 1" in output
    assert f"3 steps of batch 1 on cpu in {pick_precision('auto', torch.device('cpu'))}" in output
    assert f"gallery    {(out / 'index.html').as_uri()}" in output
    assert len(table_of(output)) == 3
    assert all(0 < l1 < 1 and 0 < psnr < 50 < swd for l1, psnr, swd in table_of(output).values())
    assert output.count("<- saved with the generator") == 1
    best = min(("eval", "batch_stats"), key=lambda mode: table_of(output)[mode][2])
    assert re.search(f"{best} .*<- saved with the generator", output)
    assert (out / "samples" / "000003.png").is_file()
    assert load_pretrained(out / "generator").config["base_channels"] == 4
    assert config_of(out)["command"].endswith(" ".join(TINY))

    assert failed(*TINY, cwd=tmp_path) == (
        "error: runs/facades already holds a run. Continue it with resume=True (--resume), or give this one another "
        "folder with out=... (--out)."
    )

    longer = ["--max-steps", "5", *TINY[2:], "--resume"]
    assert "5 steps of batch 1" in succeeded(*longer, cwd=tmp_path)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3, 5]
    assert (out / "samples" / "000003.png").is_file()
    assert (out / "samples" / "000005.png").is_file()


def test_every_flag_on_a_folder_of_pairs(tmp_path):
    side_by_side(tmp_path / "pairs" / "train")
    side_by_side(tmp_path / "pairs" / "val", count=2)
    flags = {
        "--data": "pairs", "--direction": "AtoB", "--epochs": 3, "--decay-epochs": 1, "--lr-policy": "linear",
        "--warmup-epochs": 1, "--max-steps": 5, "--size": 32,
        "--base-channels": 4, "--batch-size": 2, "--precision": "bf16", "--device": "cpu", "--seed": 5,
        "--num-workers": 1, "--checkpoint-every": 2, "--out": "runs/mine", "--on-bad-image": "skip",
        "--channels": 3, "--preprocess": "scale_width_and_crop", "--segmenter": "segmenter",
    }  # fmt: skip
    UNetGenerator.preset("unet_2015", 3, 4, base_channels=2, depth=3).save_pretrained(tmp_path / "segmenter")
    more = ["--no-compile", "--value-range", "0", "4095"]
    output = succeeded(*[word for pair in flags.items() for word in pair], *more, cwd=tmp_path)
    told = "values 0 to 4095, 3 to 3 channels, preprocess scale_width_and_crop"
    assert f"training on   4 pairs side by side in pairs/train, 24x24 pixels, {told}, AtoB" in output
    assert f"validating on 2 pairs side by side in pairs/val, 24x24 pixels, {told}, AtoB" in output
    assert "5 steps of batch 2 on cpu in bf16" in output
    assert re.search(r"mode +L1 +PSNR +SWD +texture +layout\n    eval( +[0-9.e+-]+){5}", output)
    config = config_of(tmp_path / "runs" / "mine")
    given = {"epochs": 3, "decay_epochs": 1, "steps": 5, "batch_size": 2, "precision": "bf16", "seed": 5, "size": 32}
    assert {name: config[name] for name in given} == given
    assert config["networks"]["generator"]["arguments"]["base_channels"] == "4"
    checkpoints = sorted(p.name for p in (tmp_path / "runs" / "mine" / "checkpoints").iterdir())
    assert checkpoints == ["000004", "000005"]

    listed = succeeded("--help", cwd=tmp_path)
    tested = {
        *flags, "--no-compile", "--help", "--nproc-per-node=4", "--download", "--sha256", "--resume", "--push-to-hub",
        *TESTED, *TESTED_PAIRED, "--value-range", "--labels", "--instances", "--splits", "--columns",
    }  # fmt: skip
    assert {word.strip("[],):") for word in listed.split() if word.strip("[],):").startswith("--")} == tested


def test_class_ids_and_instances_from_the_command_line(tmp_path):
    for folder, pixels in {"A": np.eye(40), "instances": np.eye(40), "B": np.zeros((40, 40, 3))}.items():
        (tmp_path / "pairs" / "train" / folder).mkdir(parents=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pairs" / "train" / folder / "0.png")
    arguments = ["--data", "pairs", "--direction", "AtoB", "--labels", 2, "--instances", "--size", 32, "--max-steps", 1]
    out = succeeded(*arguments, "--base-channels", 4, "--device", "cpu", cwd=tmp_path)
    assert "source of 2 labels and edges, AtoB" in out


def test_label_maps_from_the_command_line(tmp_path):
    side_by_side(tmp_path / "pairs" / "train")
    arguments = ["--data", "pairs", "--labels", "cmp", "--size", 32, "--base-channels", 4, "--max-steps", 1]
    assert "source of 12 labels, BtoA" in succeeded(*arguments, "--device", "cpu", cwd=tmp_path)
    assert len(load_pretrained(tmp_path / "runs" / "facades" / "generator").palette) == 12


def test_without_val_it_says_so_and_shows_no_table(tmp_path):
    side_by_side(tmp_path / "pairs" / "train")
    output = succeeded(*TINY, "--data", "pairs", "--out", "run", cwd=tmp_path)
    assert "validating on nothing: there is no train/ with val/ or test/ beside it" in output
    assert "4 pairs side by side in pairs/train, 24x24 pixels, BtoA" in output
    assert table_of(output) == {}
    assert f"gallery    {(tmp_path / 'run' / 'index.html').as_uri()}" in output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--data", "none"],
            "error: none/train cannot be read as a folder of pictures: No such file or directory. Check the path.",
        ),
        (["--resume"], "error: there is no run in runs/facades to resume. "),
        (["--size", "0"], "error: ProceduralFacades: size must be a whole number >= 16, got 0."),
        (["--epochs", "0"], "error: Trainer: epochs must be a whole number >= 1, got 0."),
        (["--base-channels", "0"], "error: UNetGenerator: base_channels must be a whole number >= 1, got 0."),
        (["--size", "16", "--base-channels", "4", "--max-steps", "1"], "error: PatchDiscriminator: "),
        (["--device", "gpu"], "error: device='gpu' cannot be used here: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_in_one_line(arguments, text, tmp_path, monkeypatch, capsys):
    script = load()
    monkeypatch.chdir(tmp_path)
    default = [] if "--device" in arguments else ["--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, *default])
    assert script.main(script.run, script.arguments()) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(text)


def test_an_error_ends_the_process_with_one_and_no_traceback(tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    assert failed("--data", "empty", cwd=tmp_path, new_process=True) == (
        "error: empty/train holds no pictures. Put side-by-side pairs (.png, .jpg, .tif, .webp) in it, or two "
        "folders, A and B, of files with the same names."
    )


def test_a_loop_of_ones_own_trains_and_saves(tmp_path):
    assert "A pix2pix training loop" in succeeded("--help", cwd=tmp_path, script="own_loop.py")
    assert list(tmp_path.iterdir()) == []
    output = succeeded(cwd=tmp_path, script="own_loop.py", new_process=True)
    assert "receptive field of the discriminator: 34 pixels" in output
    first, second = (float(loss) for loss in re.findall(r"generator (\d+\.\d+)", output))
    assert second < first
    assert load_pretrained(tmp_path / "runs" / "own_loop" / "generator").depth == 6


def test_bad_pictures_are_an_error_or_left_out_and_noted(tmp_path, monkeypatch):
    train = tmp_path / "pairs" / "train"
    side_by_side(train)
    (train / "2.jpg").write_bytes((train / "2.jpg").read_bytes()[:500])
    arguments = [*TINY, "--data", "pairs", "--out", "run"]
    assert failed(*arguments, cwd=tmp_path).startswith("error: pairs/train/2.jpg cannot be read as a picture (")

    script = load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments[:-1], "other", "--on-bad-image", "skip"])
    with pytest.warns(UserWarning, match=r"1 of 4 samples is bad and left out\. pairs/train/2\.jpg cannot be read"):
        assert script.main(script.run, script.arguments()) == 0
    assert "3 pairs side by side in pairs/train (1 bad one left out)" in config_of(tmp_path / "other")["data"]


def test_a_digest_without_a_download(tmp_path):
    done = run("--sha256", "0" * 64, cwd=tmp_path)
    assert done.returncode == 2
    assert "--sha256 is of the archive that --download fetches" in done.stderr


def test_data_and_download_exclude_one_another(tmp_path):
    done = run("--data", "x", "--download", cwd=tmp_path)
    assert done.returncode == 2
    assert "not allowed with argument" in done.stderr


# The download


def load():
    """The script as a module of its own; it imports from its own folder."""
    if str(SCRIPT.parent) not in sys.path:
        sys.path.append(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("pix2pix_facades", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@contextlib.contextmanager
def served(content, status=200):
    """The address of a file on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/facades.tar.gz"
        finally:
            server.shutdown()
            thread.join()


def archive(*names, link=None):
    """A tar.gz with a small side-by-side picture under each name, and perhaps a link out of it."""
    picture = io.BytesIO()
    Image.new("RGB", (48, 24), (9, 9, 9)).save(picture, "JPEG")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
        if link is not None:
            member = tarfile.TarInfo("facades/link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return packed.getvalue()


WHOLE = archive("facades/train/1.jpg", "facades/train/2.jpg", "facades/val/1.jpg")


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    return load()


def address_of(monkeypatch, address, content):
    monkeypatch.setattr(pix2pix, "CMP_FACADES", address)
    monkeypatch.setattr(pix2pix, "CMP_FACADES_SIZE", len(content))


@pytest.mark.parametrize("insist", [True, False])
def test_download_fetches_unpacks_and_trains(script, tmp_path, monkeypatch, capsys, insist):
    digest = hashlib.sha256(WHOLE).hexdigest()
    flags = ["--sha256", digest] if insist else []
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--download", *flags, "--out", "run", *TINY])
    with served(WHOLE) as address:
        address_of(monkeypatch, address, WHOLE)
        assert script.main(script.run, script.arguments()) == 0
    assert files(tmp_path / "data") == ["facades/train/1.jpg", "facades/train/2.jpg", "facades/val/1.jpg"]
    note = "" if insist else " (not compared with any: see --sha256)"
    assert f"fetching {address}\nsha256   {digest}{note}\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "index.html").is_file()
    # What is there is not fetched again: the server is gone.
    assert pix2pix.download(tmp_path / "data", None) == tmp_path / "data" / "facades"


BROKEN = {
    "climbs out": archive("facades/train/1.jpg", "../../outside.jpg"),
    "absolute link": archive("facades/train/1.jpg", link="/etc/passwd"),
    "link out": archive("facades/train/1.jpg", link="../../../outside"),
    "cut short": WHOLE[:-60],
    "flipped bytes": WHOLE[:100] + bytes(255 - b for b in WHOLE[100:140]) + WHOLE[140:],
    "a web page": b"<!doctype html><title>moved</title>",
    "another archive": archive("maps/train/1.jpg"),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_or_hostile_archive_is_refused_and_leaves_nothing(script, tmp_path, monkeypatch, content):
    into = tmp_path / "deep" / "data"
    with served(content) as address:
        address_of(monkeypatch, address, content)
        with pytest.raises(DataError) as caught:
            pix2pix.download(into, None)
    assert str(caught.value).startswith(str(into / "facades.tar.gz"))
    assert str(caught.value).endswith(". Nothing was unpacked.")
    assert files(tmp_path) == []
    assert list(into.iterdir()) == []

    with served(WHOLE) as address:
        address_of(monkeypatch, address, WHOLE)
        assert len(files(pix2pix.download(into, None))) == 3


def test_an_archive_that_is_not_the_one_of_the_authors(script, tmp_path, monkeypatch):
    with served(WHOLE) as address:
        monkeypatch.setattr(pix2pix, "CMP_FACADES", address)
        for digest in (None, "0" * 64):
            with pytest.raises(DataError, match="is not the expected file"):
                pix2pix.download(tmp_path / "data", digest)
            monkeypatch.setattr(pix2pix, "CMP_FACADES_SIZE", len(WHOLE))
    assert files(tmp_path) == []


def test_a_server_that_refuses(script, tmp_path, monkeypatch):
    with served(b"gone", status=404) as address:
        monkeypatch.setattr(pix2pix, "CMP_FACADES", address)
        with pytest.raises(DataError, match="cannot be fetched: the server answers 404 Not Found"):
            pix2pix.download(tmp_path / "data", None)
    assert files(tmp_path) == []
