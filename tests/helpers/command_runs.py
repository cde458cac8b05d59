"""Run the command `imtrans`, in this process or in a new one."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import torch
from processes import environment, heed_interrupts

from imtrans.cli import main


def run_command(*arguments, cwd=None, new_process=False):
    """Run ``imtrans ARGUMENTS``, by default in this process: it has imported torch already."""
    words = list(map(str, arguments))
    if new_process:
        return subprocess.run(
            [sys.executable, "-m", "imtrans", *words], cwd=cwd, env=environment(PYTHONWARNINGS="error"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    output, errors = io.StringIO(), io.StringIO()
    folder, precision = os.getcwd(), torch.get_float32_matmul_precision()
    os.chdir(cwd or folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(words)
    except SystemExit as end:
        code = end.code or 0
    finally:
        os.chdir(folder)
        torch.set_float32_matmul_precision(precision)
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


def succeeded(*arguments, **options):
    """The output of a command that ends with 0."""
    done = run_command(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def failed(*arguments, code=1, **options):
    """The error of a command, which is one line and its only output."""
    done = run_command(*arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def interrupt_command(*arguments, cwd, at, after=0):
    """Run ``imtrans ARGUMENTS`` in a new process, and press Ctrl-C `after` seconds after a file matches `at` in `cwd`.

    Returns its output and its errors: it ends with 130 and has no traceback.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "imtrans", *arguments], cwd=cwd, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    try:
        while not list(cwd.glob(at)) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return output, errors
