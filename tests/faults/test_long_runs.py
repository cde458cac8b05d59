"""A run of many steps: it takes no more memory and no more open files at its end than near its beginning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

RUN = """
import json, os, sys
from runs_to_spoil import small_run

def now():
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

out, steps = sys.argv[1], int(sys.argv[2])
seen = []
often = {"log_every": 10, "sample_every": steps // 20, "checkpoint_every": steps // 40, "validate_every": steps // 60}
watch = lambda step: seen.append(now()) if step % (steps // 20) == 0 else None
small_run(out, steps=steps, on_step=watch, **often).fit()
print(json.dumps(seen))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("steps", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_memory_and_open_files_are_flat(tmp_path, steps):
    command = [sys.executable, "-c", RUN, str(tmp_path / "run"), str(steps)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    memory, files = zip(*json.loads(done.stdout), strict=True)
    # What is loaded at the first validation, sample and checkpoint stays; from there on nothing grows.
    settled = len(memory) // 5
    print(f"{steps} steps: {memory[settled] / 2**20:.1f} -> {memory[-1] / 2**20:.1f} MiB, {files[-1]} open files")
    assert memory[-1] < 1.05 * memory[settled]
    assert files[-1] <= files[settled]
