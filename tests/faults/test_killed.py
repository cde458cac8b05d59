"""A run that is killed at any instant, and resumed, ends as the run that nobody touched."""

import random
import signal
import subprocess
import sys
import time

import pytest
from processes import environment
from runs_to_spoil import remains, small_run

RUN = "import sys; from runs_to_spoil import go_on; go_on(sys.argv[1], steps=int(sys.argv[2]))"


def start(out, steps):
    command = [sys.executable, "-c", RUN, str(out), str(steps)]
    return subprocess.Popen(command, env=environment(PYTHONWARNINGS="error"))


def wait_for(process, there):
    while process.poll() is None and not there():
        time.sleep(0.001)


def kill_again_and_again(out, *, kills, steps, longest):
    """Kill a run `kills` times: at a random moment since it took the folder, or just while it saves.

    Return how often a half-written checkpoint was left.
    """
    draw, torn = random.Random(kills), 0
    for _ in range(kills):
        process = start(out, steps)
        wait_for(process, (out / ".lock").exists)  # what comes before is the import of torch
        if draw.random() < 0.5:
            time.sleep(draw.uniform(0, longest))
        else:
            wait_for(process, lambda: any((out / "checkpoints").glob(".*.tmp")))
            time.sleep(draw.uniform(0, 0.01))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed: give it more steps"
        torn += any((out / "checkpoints").glob(".*.tmp"))
    process = start(out, steps)
    assert process.wait() == 0
    return torn


@pytest.mark.parametrize(
    ("kills", "steps", "longest"), [(5, 250, 0.7), pytest.param(50, 2500, 0.7, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_nobody_touched(tmp_path, kills, steps, longest):
    out = tmp_path / "killed" / "run"
    torn = kill_again_and_again(out, kills=kills, steps=steps, longest=longest)
    print(f"killed {kills} times, {torn} half-written checkpoints")
    small_run(tmp_path / "whole" / "run", steps=steps).fit()
    killed, whole = remains(out), remains(tmp_path / "whole" / "run")
    # The checkpoints that are kept are those of the same steps, whatever was saved on the way.
    assert killed == whole
