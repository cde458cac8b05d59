"""What Ctrl-C and SIGTERM mean to a run: finish the step, save, and go."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(SystemExit):
    """A run was asked to stop, and has saved its state; the process ends with status 130 (SIGINT) or 143 (SIGTERM)."""


class StopRequest:
    """Whether somebody has asked the run to stop.

    Args:
        signum: the signal that did, once it has come.
    """

    def __init__(self, signum: int | None = None) -> None:
        self.signum = signum
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Note the first signal; at a second one, end the process at once."""
        if os.getpid() != self._process:
            return  # a process that loads data: its end is up to this one
        if self.requested:
            os._exit(128 + signum)
        self.signum = signum
        name = signal.Signals(signum).name
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"\n{name}: finishing the step and saving. A second signal ends the run at once.\n".encode())

    def stop(self, signum: int) -> Stopped:
        """What to raise when all is saved: the signal may have come to another process of the run."""
        return Stopped(128 + signum)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM inside the block instead of dying of them.

    A signal that the process ignores, as one in the background of a shell does, stays ignored. Outside of the main
    thread, where Python delivers no signals, nothing changes.
    """
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, request.receive)
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
