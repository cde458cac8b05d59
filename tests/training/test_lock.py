import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imtrans.errors import TrainingError
from imtrans.training.run_folder import LOCK, LOCK_OWNER, RunFolder

HOLDER = """
import sys, time, os
from pathlib import Path
from imtrans.training.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), keep=1).locked(resume=False):
    if sys.argv[2:] == ["fork"] and os.fork() == 0:
        os.write(1, b"child %d\\n" % os.getpid())
        time.sleep(600)
    os.write(1, b"held\\n")
    time.sleep(600)
"""


def locked(path):
    return RunFolder(path, keep=1).locked(resume=False)


@pytest.fixture
def hold(tmp_path):
    """Start processes that hold the lock on `tmp_path`; end them."""
    running = []

    def start(*options):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", HOLDER, str(tmp_path), *options]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        running.append(process)
        lines = [process.stdout.readline() for _ in range(1 + len(options))]
        children = [int(line.split()[1]) for line in lines if line.startswith("child")]
        return process, children

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_lock_is_let_go_at_the_end(tmp_path):
    for _ in range(3):
        with locked(tmp_path):
            assert (tmp_path / LOCK_OWNER).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path, hold):
    process, _ = hold()
    with pytest.raises(TrainingError) as caught, locked(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path} is in use by process {process.pid} on {socket.gethostname()}. Wait for its end or stop it, or "
        "give this run another folder with out=... (--out)."
    )


def test_the_lock_of_a_killed_process_is_stale(tmp_path, hold):
    process, _ = hold()
    process.kill()
    process.wait()
    assert (tmp_path / LOCK).exists()
    assert (tmp_path / LOCK_OWNER).exists()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_OWNER).read_text()


def test_a_lock_file_that_names_a_living_process_means_nothing_if_nobody_holds_it(tmp_path):
    for name in (LOCK, LOCK_OWNER):
        (tmp_path / name).write_text("process 1 on elsewhere\n" * 50)
    with locked(tmp_path):
        assert (tmp_path / LOCK_OWNER).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_child_that_outlives_a_killed_process_does_not_hold_its_lock(tmp_path, hold):
    process, (child,) = hold("fork")
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_that_was_deleted_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Between opening and locking, the one who had it may have finished, and a third may have come."""
    real, opened = fcntl.flock, []

    def late(handle, how):
        if not opened:
            opened.append(handle)
            (tmp_path / LOCK).unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        handle = os.open(tmp_path / LOCK, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            real(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)


def test_a_disk_that_knows_no_locks_is_told(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with pytest.warns(UserWarning) as caught, locked(tmp_path):  # noqa: PT030
        pass
    assert [str(w.message) for w in caught] == [
        f"{tmp_path} cannot be locked (Operation not supported). Make sure that no second run uses it."
    ]
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_many_at_once_never_hold_it_together(tmp_path):
    script = """
import sys, time
from pathlib import Path
from imtrans.errors import TrainingError
from imtrans.training.run_folder import RunFolder
folder, token, end = Path(sys.argv[1]), sys.argv[2], time.monotonic() + 2
while time.monotonic() < end:
    try:
        with RunFolder(folder / "run", keep=1).locked(resume=False):
            inside = folder / "inside"
            fd = inside.open("x")  # fails if somebody else is inside
            fd.close()
            inside.unlink()
            with (folder / token).open("a") as file:
                file.write("x")
    except TrainingError:
        pass
"""
    (tmp_path / "run").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)], env=environment) for n in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert sum(len((tmp_path / str(n)).read_text()) for n in range(3) if (tmp_path / str(n)).exists()) > 10
