"""A disk that is full, or may not be written: what was saved stays whole, and the run goes on when it can."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment
from runs_to_spoil import go_on, remains, small_run

from imtrans.errors import CheckpointError, SavedModelError, TrainingError
from imtrans.training.checkpoint import checkpoints, load_checkpoint

TESTS = Path(__file__).parents[1]
STEPS, NOT_AT_ALL = 12, "not at all"


def on_a_disk_of_its_own(scenario, folder, *, size="16m"):
    """Run ``scenario(disk)`` of this module in a process that has a small tmpfs at `folder`."""
    unshare = shutil.which("unshare")
    script = f"import sys; from pathlib import Path; import test_starved; test_starved.{scenario}(Path(sys.argv[1]))"
    shell = f'mount -t tmpfs -o size={size} tmpfs "$1" || exit 77; exec "$2" -c "$3" "$1"'
    # A name space of its own: no mount is left behind, and nobody must be root.
    command = [str(unshare), "--map-root-user", "--mount", "sh", "-c", shell, "sh", str(folder), sys.executable, script]
    able = unshare and subprocess.run([unshare, "--map-root-user", "--mount", "true"], capture_output=True, check=False)
    if not able or able.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this machine lets nobody mount a tmpfs")
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill(disk, leave):
    """Leave `leave` bytes of the disk free."""
    free = shutil.disk_usage(disk).free
    with (disk / "ballast").open("wb") as file:
        file.write(b"\0" * (free - leave))


def stopped_with(fit):
    """The text of our error that ended a run."""
    try:
        fit()
    except (CheckpointError, TrainingError, SavedModelError) as error:
        return str(error)
    return NOT_AT_ALL


def starve(disk, leave):
    """Fill the disk in the middle of a run, see it stop, make room, and let it go on."""
    shutil.rmtree(disk / "run", ignore_errors=True)

    def on_step(step):
        if step == 6:
            fill(disk, leave)

    stopped = stopped_with(small_run(disk / "run", steps=STEPS, on_step=on_step).fit)
    assert stopped == NOT_AT_ALL or "cannot be written: No space left on device" in stopped, stopped
    kept = checkpoints(disk / "run" / "checkpoints")
    assert kept
    for checkpoint in kept:
        load_checkpoint(checkpoint)
    (disk / "ballast").unlink()
    go_on(disk / "run", steps=STEPS)
    return stopped


def full_at_any_level(disk):
    small_run(disk / "whole", steps=STEPS).fit()
    whole = remains(disk / "whole")
    for leave in [0, 4096, 16384, 40000, 80000, 120000, 160000, 240000, 320000, 480000]:
        print(leave, starve(disk, leave))
        assert remains(disk / "run") == whole, leave


def test_a_full_disk_stops_the_run_loses_nothing_and_it_goes_on_when_there_is_room(tmp_path):
    told = on_a_disk_of_its_own("full_at_any_level", tmp_path).splitlines()
    assert sum(NOT_AT_ALL not in line for line in told) >= 5, told
    assert len({line.split("/run/")[-1].split(" cannot")[0] for line in told if "cannot" in line}) >= 3, told


def make_read_only(disk):
    """Cover the disk with a read-only view of it: the disk itself is busy, as the run has its lock file open."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def read_only(disk):
    small_run(disk / "whole", steps=STEPS).fit()
    told = [stopped_with(small_run(disk / "run", steps=STEPS, on_step=lambda s: s == 6 and make_read_only(disk)).fit)]
    told.append(stopped_with(lambda: small_run(disk / "run", steps=STEPS).fit(resume=True)))
    told.append(stopped_with(small_run(disk / "new", steps=STEPS).fit))
    assert all("cannot be written: Read-only file system" in text for text in told), told
    subprocess.run(["umount", str(disk)], check=True)
    go_on(disk / "run", steps=STEPS)
    assert remains(disk / "run") == remains(disk / "whole")


def test_a_disk_that_becomes_read_only(tmp_path):
    on_a_disk_of_its_own("read_only", tmp_path)


def test_a_folder_without_permission(tmp_path):
    """As root everything is permitted: then the run is that of another user."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    script = f"""
import os, sys
from pathlib import Path
sys.path[:0] = [{str(TESTS / "helpers")!r}, {str(TESTS.parent)!r}]
from runs_to_spoil import small_run
from imtrans.errors import TrainingError
small_run(None, steps=1).fit()  # another user may not import what is still missing
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    small_run(Path(sys.argv[1]), steps=2).fit()
except TrainingError as error:
    print(error)
"""
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(locked / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{locked / 'run'} cannot be written: Permission denied.")
