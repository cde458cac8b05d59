"""The rules that tools can check: lint, format, types, the layer contract, the docs, the shape of the packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ["imtrans", "examples", "tests"]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", *CODE],
        ["ruff", "format", "--check", *CODE],
        ["mypy"],
        ["mkdocs", "build", "--strict", "--site-dir"],
    ],
    ids=["lint", "format", "types", "docs"],
)
def test_tool_finds_nothing(command, tmp_path):
    extra = [str(tmp_path)] if command[-1] == "--site-dir" else []
    done = subprocess.run(
        [sys.executable, "-m", *command, *extra], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_imports_only_from_layers_below():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


INITS = sorted((ROOT / "imtrans").glob("*/**/__init__.py"))  # the names of the whole are tested in test_import.py


def test_the_package_is_small_enough_to_remember():
    entries = {path.name for path in (ROOT / "imtrans").iterdir()} - {"__pycache__"}
    assert len(entries) <= 21, sorted(entries)


@pytest.mark.parametrize("path", INITS, ids=lambda path: path.parent.relative_to(ROOT).as_posix())
def test_an_init_describes_its_package_and_only_re_exports(path):
    tree = ast.parse(path.read_text())
    docstring, *imports = tree.body
    assert isinstance(docstring, ast.Expr), "no docstring"
    # Packages inside packages need no more than one line.
    expected = 2 if path.parent.parent == ROOT / "imtrans" else 1
    assert len([line for line in ast.get_docstring(tree).splitlines() if line.strip()]) >= expected
    assert [ast.unparse(node) for node in imports if not isinstance(node, ast.ImportFrom)] == []
    assert [name.name for node in imports for name in node.names if name.name != name.asname] == []
