"""Environment variables that torchrun sets for each process of a run."""

import os
import socket

from imtrans.errors import ArgumentError


def world_size_from_environment() -> int:
    """Return the number of processes, 1 without torchrun; an ArgumentError names variables that are not valid."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return 1
    invalid = [name for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if not os.environ.get(name, "").isdecimal()]
    invalid += [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if invalid:
        raise ArgumentError(
            f"WORLD_SIZE={size} says that this is one of several processes, but {' and '.join(invalid)} is missing or "
            "not a number. Start them with torchrun --nproc-per-node=N, or unset WORLD_SIZE."
        )
    return int(size)


def local_world_size() -> int:
    """Return the number of processes of the run on this machine, which share its memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def torchrun_id() -> str | None:
    """Return an identifier of this torchrun job that restarts do not change; None without torchrun."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    # Without --rdzv-id the id is "none" for every job. The parent process is the same after each restart.
    return f"{socket.gethostname()}:{os.getppid()}" if run_id == "none" else run_id


def restarted_run_id() -> str | None:
    """Return `torchrun_id` if torchrun has restarted the processes after a failure, else None."""
    return torchrun_id() if _restart_count() > 0 else None


def store_prefix() -> str:
    """Return a prefix for the keys of the rendezvous store."""
    # On one machine torchrun keeps its store over restarts, with the addresses of the processes that died in it.
    return f"after {_restart_count()} restarts" if os.environ.get("GROUP_WORLD_SIZE") == "1" else ""


def _restart_count() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
