from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from rootfsbuild.rootfs.signals import STOPPING, postponed


class StoppedError(Exception):
    pass


@pytest.fixture
def stopping():
    """Handlers that raise, as the command line's do."""

    def stop(number, _frame):
        raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_waits_for_the_end_of_the_block(stopping):
    done = []

    def work():
        with postponed():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError, match=str(int(signal.SIGTERM))):
        work()
    assert done == ["whole"]
    assert all(signal.getsignal(number) is stopping for number in STOPPING)


def test_without_a_signal_nothing_changes(stopping):
    with postponed():
        pass
    assert all(signal.getsignal(number) is stopping for number in STOPPING)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with postponed():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_it_does_nothing():
    failures = []

    def work():
        try:
            with postponed():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


LOST_AT_FORK = """
import os, signal
from rootfsbuild.rootfs.worker import start_worker
class Stopped(Exception): pass
def stop(*_): raise Stopped
signal.signal(signal.SIGTERM, stop)
# As if the signal came while Python runs the hooks that it has around fork(2), logging's for one.
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM) or sum(range(1000)))
try:
    start_worker("/", lambda: None)
except Stopped:
    print("stopped")
"""


def test_a_signal_during_a_fork_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST_AT_FORK], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


LOST_IN_A_FINALIZER = """
import os, signal, sys, time
from rootfsbuild import cli
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
def work(_):
    Dying()
    time.sleep(30)
cli._dispatch = work
sys.exit(cli.main([]))
"""


def test_a_signal_in_a_finalizer_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST_IN_A_FINALIZER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: stopped by signal 2\n")


LATE = """
import os, signal, sys
from rootfsbuild import cli
def work(_):
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(1000))
cli._dispatch = work
sys.argv[1:] = []
status = cli.main()
os.kill(os.getpid(), signal.SIGINT)
sys.exit(status)
"""


def test_a_second_signal_does_not_change_the_exit_status():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "error: stopped by signal 15\n")
