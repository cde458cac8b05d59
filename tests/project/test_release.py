"""What a release needs: a wheel that works alone, workflow files, and versions that agree."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from PIL import Image

import imtrans

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WEIGHTS = ROOT / "examples" / "weights" / "facades"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    return PathDistribution(zipfile.Path(wheel) / f"imtrans-{imtrans.__version__}.dist-info").metadata


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The programs of a new environment with the wheel, and a folder with a copy of the weights."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    bin_folder = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    install = ["-m", "pip", "--python", str(bin_folder / "python"), "install", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    # The dependencies are the ones of this environment. Its own .pth files, with the checkout, are not read.
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    (Path(sysconfig.get_path("purelib", vars=paths)) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copytree(WEIGHTS, folder / "facades")
    return bin_folder, folder


def run(environment, program, *words):
    bin_folder, folder = environment
    done = subprocess.run(
        [bin_folder / program, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def test_the_wheel_has_every_module_and_says_that_it_is_typed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "imtrans/py.typed" in names
    package = [path for path in (ROOT / "imtrans").rglob("*") if path.suffix in (".py", ".j2")]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


def test_the_environment_has_the_wheel_and_not_the_checkout(environment):
    done = run(environment, "python", "-c", "import imtrans; print(imtrans.__file__)")
    assert str(environment[1] / "venv") in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--version"], 0), (["train", "pix2pix", "--help"], 0), (["info", "nowhere"], 1), (["info"], 2)],
)
def test_the_installed_command_ends_with_its_exit_status(environment, words, code):
    assert run(environment, "imtrans", *words).returncode == code


def test_the_installed_wheel_translates_with_the_shipped_weights(environment):
    done = run(environment, "imtrans", "translate", "--weights", "facades", "facades/source.png", "--out", "house.png")
    assert done.returncode == 0, done.stderr
    with Image.open(environment[1] / "house.png") as house, Image.open(WEIGHTS / "source.png") as source:
        assert house.size == source.size
        assert len(house.convert("RGB").getcolors(2**24)) > 1000


@pytest.mark.parametrize(
    ("schema", "paths"),
    [("github-workflows", WORKFLOWS), ("citation-file-format", [ROOT / "CITATION.cff"])],
    ids=["workflows", "citation"],
)
def test_a_file_has_its_form(schema, paths):
    assert paths
    command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_versions_agree(metadata):
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {imtrans.__version__}\n" in citation
    assert f"\n## {imtrans.__version__} " in (ROOT / "CHANGELOG.md").read_text()
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert f"\nrepository-code: {urls['Source']}\n" in citation


def test_the_oldest_and_the_newest_python_that_are_claimed_are_tested(metadata):
    tested = set(re.findall(r'python(?:-version)?: \[?"([\d.]+)"', (ROOT / ".github/workflows/tests.yml").read_text()))
    claimed = [text.rpartition(" ")[2] for text in metadata.get_all("Classifier") if re.search(r":: 3\.\d+$", text)]
    assert f">={claimed[0]}" == metadata["Requires-Python"]
    assert {claimed[0], claimed[-1]} <= tested <= set(claimed)


def test_a_workflow_names_files_and_extras_that_exist(metadata):
    text = "".join(path.read_text() for path in WORKFLOWS)
    assert all((ROOT / name).is_file() for name in re.findall(r"(?:examples|imtrans)/\w+\.py", text))
    extras = {extra for group in re.findall(r"\[([\w,]+)\]\"", text) for extra in group.split(",")}
    assert extras
    assert extras <= set(metadata.get_all("Provides-Extra"))
