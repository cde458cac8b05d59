"""What `import imtrans` does, and does not do, to the process that imports it."""

import ast
import importlib
import subprocess
import sys
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
{statement}
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
from imtrans import *
after = state()
print([name for name in before if before[name] != after[name]])
"""


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")[0]


def test_no_heavy_module_is_imported():
    new = run(LIST_NEW_MODULES.format(statement="from imtrans import *")).split()
    assert {"imtrans.nn.unet", "imtrans.training.trainer"} <= set(new)
    assert [name for name in new if any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY)] == []


def test_a_public_name_loads_its_own_package_and_those_below():
    assert run(LIST_NEW_MODULES.format(statement="import imtrans")).split() == ["imtrans", "imtrans.version"]
    new = run(LIST_NEW_MODULES.format(statement="from imtrans import UNetGenerator")).split()
    assert "imtrans.nn.unet" in new
    assert not any(name.startswith(("imtrans.training", "imtrans.data", "PIL")) for name in new)


def test_no_state_of_the_process_changes():
    assert run(COMPARE_STATE) == "[]"


def test_every_public_name_is_exported_as_itself():
    tree = ast.parse(Path(imtrans.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(typed.body)
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    exported = {alias.asname: node.module for node in imports for alias in node.names}
    # What type checkers see is what Python loads.
    assert set(imtrans.__all__) == set(exported)
    assert len(imtrans.__all__) == len(exported)
    for name, module in exported.items():
        assert getattr(imtrans, name) is getattr(importlib.import_module(module), name)


def test_packages_are_attributes_and_other_names_are_not():
    assert run("import imtrans; print(imtrans.errors.ArgumentError, imtrans.nn.UNetGenerator.__name__)").endswith("tor")
    assert set(imtrans.__all__) < set(dir(imtrans))
    assert not hasattr(imtrans, "UnetGenerator")
    with pytest.raises(ImportError, match="cannot import name 'UnetGenerator' from 'imtrans'"):
        exec("from imtrans import UnetGenerator")


PUBLIC = sorted(imtrans.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own(name):
    value = getattr(imtrans, name)
    assert value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    assert value.__module__.startswith("imtrans.")


def test_the_version_is_one():
    assert [part.isdecimal() for part in imtrans.__version__.split(".")[:2]] == [True, True]
