"""Several processes of one run, started as torchrun starts them."""

import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**more):
    """Of a process that finds imtrans and the tests, and does not fight for cores."""
    tests = [str(folder) for folder in (ROOT / "tests").iterdir() if folder.is_dir()]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *tests]), **more}


def heed_interrupts():
    """As ``preexec_fn``: a shell starts what runs in its background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(module, function, *arguments, size, **more):
    """Start `size` processes that call ``module.function(*arguments)``."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **more}
    script = f"import sys, {module}; {module}.{function}(*sys.argv[1:])"
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return [
        subprocess.Popen(
            command,
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes, timeout=100):
    """Wait for them, at most so long; return what each one wrote. None outlives this."""
    try:
        return [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def together(module, function, folder, *arguments, size=2):
    """What ``module.function(*arguments)`` returns in each of `size` processes, in their order."""
    processes = start("processes", "_keep", module, function, folder, *arguments, size=size)
    outputs = finish(processes)
    assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)
    return [pickle.loads(Path(folder, f"{rank}.pkl").read_bytes()) for rank in range(size)]


def _keep(module, function, folder, *arguments):
    found = getattr(__import__(module), function)(*arguments)
    Path(folder, f"{os.environ['RANK']}.pkl").write_bytes(pickle.dumps(found))
