"""SIGINT (Ctrl-C) and SIGTERM stop a training run after the current step, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(SystemExit):
    """A signal stopped the run, and its state is saved. The process exits with status 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class StopRequest:
    """Signal handler that records the number of the first signal in `signum`, which is 0 before."""

    def __init__(self) -> None:
        self.signum = 0
        self._process = os.getpid()

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Record the first signal; exit at once at the second."""
        if os.getpid() != self._process:
            return  # a data loading worker, which the main process ends
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        name = signal.Signals(signum).name
        # Not print: the signal may have interrupted one.
        os.write(2, f"\n{name}: finishing the step and saving. A second signal ends the run at once.\n".encode())


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Context manager that records SIGINT and SIGTERM instead of ending the process. Ignored signals stay ignored."""
    request = StopRequest()
    before = {}
    # Python delivers all signals to the main thread; in another one, no handler changes.
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, request.receive)
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
