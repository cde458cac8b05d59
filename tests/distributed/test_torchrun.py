"""The main job in several processes, started and restarted by torchrun itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import ROOT, environment, finish, free_port

from imtrans import load_pretrained
from imtrans.training.checkpoint import checkpoints, load_checkpoint

# gloo may abort a process that ends while the machine is busy: "terminate called without an active exception".
pytestmark = pytest.mark.flaky(reruns=2, only_rerun="terminate called without an active exception")

SCRIPT = ROOT / "examples" / "pix2pix_facades.py"
TINY = ["--size", "32", "--base-channels", "4", "--device", "cpu", "--precision", "fp32", "--checkpoint-every", "2"]


def torchrun(out, *arguments, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    command += ["--master-port", free_port(), str(SCRIPT), *TINY, "--out", str(out), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def worker(run, rank):
    """The process id of a worker, once torchrun has started it."""
    children = Path("/proc", str(run.pid), "task", str(run.pid), "children").read_text().split()
    for pid in children:
        if f"\0RANK={rank}\0" in Path("/proc", pid, "environ").read_text():
            return int(pid)
    raise AssertionError(f"no worker {rank} among {children}")


def wait_for(path, run, seconds=100):
    for _ in range(10 * seconds):
        if path.exists():
            return
        if run.poll() is not None:
            raise AssertionError(run.communicate()[0])
        time.sleep(0.1)
    run.kill()
    raise AssertionError(f"{path} did not come: {run.communicate()[0]}")


def weights(out, step):
    return load_checkpoint(out / "checkpoints" / f"{step:06d}")["method"]


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_goes_on_by_torchruns_restart_and_ends_in_the_same_weights(tmp_path):
    (whole,) = finish([run := torchrun(tmp_path / "whole", "--max-steps", 12)])
    assert run.returncode == 0, whole
    assert whole.count("12 steps of batch 1 in each of 2 processes on cpu in fp32") == 1
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["processes"] == 2
    assert load_pretrained(tmp_path / "whole" / "generator")

    run = torchrun(tmp_path / "killed", "--max-steps", 12, restarts=1)
    wait_for(tmp_path / "killed" / "checkpoints" / "000004", run)
    os.kill(worker(run, 1), signal.SIGKILL)
    (output,) = finish([run])
    assert run.returncode == 0, output
    torch.testing.assert_close(weights(tmp_path / "killed", 12), weights(tmp_path / "whole", 12), atol=0, rtol=0)
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [12, 12]  # the losses, and the validation


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_killed_ends_the_job(tmp_path, rank):
    run = torchrun(tmp_path / "killed", "--max-steps", 100000)
    wait_for(tmp_path / "killed" / "checkpoints" / "000004", run)
    other, killed = worker(run, 1 - rank), worker(run, rank)
    os.kill(killed, signal.SIGKILL)
    (output,) = finish([run], timeout=60)
    assert run.returncode != 0
    assert not Path("/proc", str(other)).exists(), output


@pytest.mark.slow
def test_a_job_that_is_asked_to_stop_saves_and_is_resumed(tmp_path):
    run = torchrun(tmp_path / "stopped", "--max-steps", 100000)
    wait_for(tmp_path / "stopped" / "checkpoints" / "000004", run)
    run.send_signal(signal.SIGTERM)
    (output,) = finish([run], timeout=60)
    assert run.returncode != 0
    step = int(checkpoints(tmp_path / "stopped" / "checkpoints")[-1].name)
    (output,) = finish([run := torchrun(tmp_path / "stopped", "--max-steps", step + 2, "--resume")])
    assert run.returncode == 0, output
    assert checkpoints(tmp_path / "stopped" / "checkpoints")[-1].name == f"{step + 2:06d}"


@pytest.mark.slow
def test_a_restart_does_not_go_on_with_the_run_of_somebody_else(tmp_path):
    (output,) = finish([run := torchrun(tmp_path / "run", "--max-steps", 2)])
    assert run.returncode == 0, output
    (output,) = finish([run := torchrun(tmp_path / "run", "--max-steps", 4, restarts=1)])
    assert run.returncode != 0
    assert output.count(f"error: {tmp_path / 'run'} already holds a run.") == 2
    assert [p.name for p in checkpoints(tmp_path / "run" / "checkpoints")] == ["000000", "000002"]
