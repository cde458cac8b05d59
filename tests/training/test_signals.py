import os
import signal
import threading

import pytest

from imtrans.training import signals as room
from imtrans.training.signals import Stopped, stop_on_signals


@pytest.fixture(autouse=True)
def _as_in_the_foreground():
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_the_handlers_come_back(signum, status, capfd):
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    with stop_on_signals() as asked:
        assert asked.signum == 0
        signal.raise_signal(signum)
        assert asked.signum == signum
    assert {s: signal.getsignal(s) for s in before} == before
    stopped = Stopped(asked.signum)
    assert isinstance(stopped, Stopped)
    assert stopped.code == status
    assert capfd.readouterr().err == (
        f"\n{signum.name}: finishing the step and saving. A second signal ends the run at once.\n"
    )


def test_the_second_one_ends_the_process(monkeypatch, capfd):
    ended = []
    monkeypatch.setattr(room.os, "_exit", ended.append)
    with stop_on_signals():
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
    assert ended == [130]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as asked:
            signal.raise_signal(signal.SIGINT)
        assert asked.signum == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes():
    found = []

    def run():
        with stop_on_signals() as asked:
            found.append((asked.signum, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(0, signal.SIG_DFL)]


def test_a_process_that_loads_data_leaves_the_end_to_its_parent():
    with stop_on_signals():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_error_inside_gives_the_handlers_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError), stop_on_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGINT) is before
