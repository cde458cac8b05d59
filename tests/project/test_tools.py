"""The rules that tools can check: lint, format, types, the layer contract, the docs, the sizes of rooms."""

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
        ["mkdocs", "build", "--strict", "--quiet", "--site-dir"],
    ],
    ids=["lint", "format", "types", "docs"],
)
def test_tool_finds_nothing(command, tmp_path):
    extra = [str(tmp_path)] if command[-1] == "--site-dir" else []
    done = subprocess.run(
        [sys.executable, "-m", *command, *extra], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_room_imports_only_from_floors_below():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept" in done.stdout


ROOMS = sorted((ROOT / "imtrans").rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rooms_and_functions_are_small_enough_to_read(room):
    source = room.read_text()
    assert source.count("\n") <= 305
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 42, f"{room.name}: {node.name} has {lines} lines"
