"""Run the examples, in this process or in a new one."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import torch
from processes import environment

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(script, *arguments, cwd, new_process=False):
    """Run ``python examples/SCRIPT ARGUMENTS``, by default in this process: it has imported torch already.

    Warnings are errors in a new process, too.
    """
    command = [str(EXAMPLES / script), *map(str, arguments)]
    if not new_process:
        return _run_here(command, cwd)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment(PYTHONWARNINGS="error"), capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _run_here(command, cwd):
    output, errors, code = io.StringIO(), io.StringIO(), 0
    folder, argv, path, precision = os.getcwd(), sys.argv, sys.path[:], torch.get_float32_matmul_precision()
    os.chdir(cwd)
    sys.argv = command
    sys.path.insert(0, str(EXAMPLES))
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    finally:
        os.chdir(folder)
        sys.argv, sys.path[:] = argv, path
        torch.set_float32_matmul_precision(precision)
    return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())
