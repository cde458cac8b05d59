"""What `import imtrans` does, and does not do, to the process that imports it."""

import ast
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

import imtrans

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch._dynamo", "torch._inductor", "torchvision", "torchmetrics", "huggingface_hub", "datasets", "jinja2",
    "filelock", "matplotlib", "scipy",
)  # fmt: skip

LIST_NEW_MODULES = """
import sys
import torch
before = set(sys.modules)
import imtrans
print(*sorted(set(sys.modules) - before))
"""

COMPARE_STATE = """
import os, random, sys, warnings
import numpy, torch

def state():
    return {
        "environment": dict(os.environ),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": str(numpy.random.get_state()),
        "python random": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": [getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "print options": str(vars(torch._tensor_str.PRINT_OPTS)),
        "warning filters": list(warnings.filters),
        "path": list(sys.path),
        "cuda started": torch.cuda.is_initialized(),
    }

before = state()
import imtrans
after = state()
print([name for name in before if before[name] != after[name]])
"""


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")[0]


def test_no_heavy_module_is_imported():
    new = run(LIST_NEW_MODULES).split()
    assert "imtrans.nn.unet" in new
    assert [name for name in new if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY)] == []


def test_no_state_of_the_process_changes():
    assert run(COMPARE_STATE) == "[]"


def test_every_public_name_is_exported_as_itself():
    tree = ast.parse(Path(imtrans.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) + 1 == len(tree.body)  # and the docstring
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    exported = {alias.asname for node in imports for alias in node.names}
    visible = {
        name for name, value in vars(imtrans).items() if name[0] != "_" and not isinstance(value, types.ModuleType)
    }
    assert visible == exported - {"__version__"}


PUBLIC = sorted(name for name, value in vars(imtrans).items() if isinstance(value, (type, types.FunctionType)))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own(name):
    value = getattr(imtrans, name)
    assert value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    assert value.__module__.startswith("imtrans.")


def test_the_version_is_one():
    assert [part.isdecimal() for part in imtrans.__version__.split(".")[:2]] == [True, True]


def test_the_wheel_has_every_module_and_says_that_it_is_typed(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = wheel.build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(path).namelist())
    assert "imtrans/py.typed" in names
    package = [path for path in (ROOT / "imtrans").rglob("*") if path.suffix in (".py", ".j2")]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)
