"""The command `imtrans` as a whole: its parser, its help, its exit statuses, and what it imports."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from command_runs import failed, interrupt_command, run_command, succeeded
from PIL import Image
from processes import environment

from imtrans import UNetGenerator, __version__
from imtrans.cli.command import COMMANDS
from imtrans.cli.train.command import METHODS

ROOT = Path(__file__).parents[2]
LEAVES = [*((name,) for name in COMMANDS if name != "train"), *(("train", name) for name in METHODS)]


def python(script, *arguments, **more):
    """Run a script that imports imtrans, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment(PYTHONWARNINGS="error"), capture_output=True,
        text=True, check=False, **more,
    )  # fmt: skip


def test_help_lists_the_commands():
    text = succeeded("--help")
    assert "usage: imtrans [-h] [-V] COMMAND ..." in text
    for name, line in COMMANDS.items():
        assert re.search(rf"^    {name} +{line}$", text, re.M)
    text = succeeded("train", "--help")
    assert text.startswith("usage: imtrans train [-h] COMMAND ...\n\nTrain the networks of a method")
    for name, line in METHODS.items():
        assert name in text
        assert line in text


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_each_command_has_help(words):
    text = succeeded(*words, "--help")
    name = " ".join(words)
    assert text.startswith(f"usage: imtrans {name} ")
    examples = [line for line in text.splitlines() if line.startswith("imtrans ")]
    assert examples
    assert all(line.startswith(f"imtrans {name} ") for line in examples)
    assert max(map(len, text.splitlines())) <= 120


def test_the_version():
    assert succeeded("--version") == succeeded("-V") == f"imtrans {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], []])
def test_help_does_not_import_torch(words):
    script = """
import sys
from imtrans.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    print([name for name in ("torch", "numpy", "PIL") if name in sys.modules])
"""
    done = python(script, *words)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("words", [[], ["train"]])
def test_without_a_command_the_help_is_an_error(words):
    done = run_command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == succeeded(*words, "--help")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trin"], "error: argument COMMAND: invalid choice: 'trin' (choose from "),
        (["train", "pix"], "error: argument COMMAND: invalid choice: 'pix' (choose from "),
        (["info"], "error: the following arguments are required: NAME. See imtrans info --help."),
        (["info", "a", "b"], "error: unrecognized arguments: b. See imtrans info --help."),
        (["info", "a", "--size", "1", "2", "3"], "error: argument --size: give one number, or height and width. See "),
        (["info", "a", "--size", "x"], "error: argument --size: invalid int value: 'x'. See imtrans info --help."),
        (["translate", "a"], "error: the following arguments are required: --weights, --out. See imtrans translate "),
        (
            ["translate", "a", "--weights", "b", "--out", "c", "--mod", "eval"],
            "error: unrecognized arguments: --mod eval",
        ),
        (["export", "a"], "error: the following arguments are required: --onnx. See imtrans export --help."),
        (["convert", "a"], "error: the following arguments are required: FOLDER. See imtrans convert --help."),
        (["train", "pix2pix", "--l1", "1"], "error: unrecognized arguments: --l1 1. See imtrans train pix2pix --help."),
        (["train", "cyclegan", "--l1-weight", "1"], "error: unrecognized arguments: --l1-weight 1. See imtrans train "),
        (["train", "pix2pix", "--no-flip"], "error: --no-flip is for the images of a folder, and there is no --data."),
        (["train", "colorization", "--no-flip"], "error: --no-flip is for the images of a folder, and there is no"),
        (["train", "pix2pix", "--labels", "cmp"], "error: --labels is for the label maps of --data or --download."),
        (["train", "cyclegan", "--data-a", "x"], "error: give --data, or --data-a and --data-b, or none of them."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_line_and_the_status_is_2(words, text):
    assert failed(*words, code=2).startswith(text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["info", "nowhere"], "error: nowhere is neither a folder nor the name of a repo on the Hub, 'user/repo'. "),
        (["export", "nowhere", "--onnx", "a.onnx"], "error: nowhere is neither a folder nor the name of a repo"),
        (
            ["translate", "none.png", "--weights", "a", "--out", "b"],
            "error: none.png is not an image file, nor a folder",
        ),
        (["convert", "none.pth", "folder"], "error: none.pth "),
        (
            ["train", "pix2pix", "--data", "none"],
            "error: none/train cannot be read as a folder of pictures: No such file",
        ),
        (["train", "cyclegan", "--data", "none"], "error: none/trainA cannot be read as a folder of pictures: No such"),
        (
            ["train", "colorization", "--data", "none"],
            "error: none cannot be read as a folder of pictures: No such file",
        ),
        (["train", "pix2pix", "--device", "abacus"], "error: device='abacus' cannot be used here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_the_status_is_1(words, text, tmp_path):
    assert failed(*words, cwd=tmp_path).startswith(text)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_130(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("imtrans.cli.convert.from_junyanz", interrupted)
    done = run_command("convert", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


def test_ctrl_c_ends_a_translation_without_a_traceback(tmp_path):
    UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path / "weights")
    (tmp_path / "in").mkdir()
    Image.effect_noise((400, 400), 64).save(tmp_path / "a.bmp")
    for index in range(1000):
        (tmp_path / "in" / f"{index:03}.bmp").symlink_to(tmp_path / "a.bmp")
    words = ["translate", "in", "--weights", "weights", "--out", "out", "--device", "cpu"]
    output, errors = interrupt_command(*words, cwd=tmp_path, at="out/*.png")
    assert errors.endswith("\ninterrupted\n")
    assert output == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_ends_is_no_traceback(tmp_path, unbuffered):
    UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path / "weights")
    process = subprocess.Popen(
        [sys.executable, "-m", "imtrans", "info", "weights", "--size", "16", "--device", "cpu"], cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED=unbuffered), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == ("", 1)
    process.stderr.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_module(name):
    module = import_module(f"imtrans.cli.{name}")
    assert callable(module.add_arguments)
    assert callable(getattr(module, "run", None)) == (name != "train")
    assert module.__doc__.splitlines()[0].endswith(".")
