"""The rules that tools can check: lint, format, types, the layer contract, the docs."""

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


def test_a_package_imports_only_from_floors_below():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept" in done.stdout
