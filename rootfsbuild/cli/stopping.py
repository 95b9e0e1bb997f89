"""The signals that ask the program to stop: an exception until the result is there, nothing from then on."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from rootfsbuild.errors import InterruptedBuildError
from rootfsbuild.events import Event, Published, Report
from rootfsbuild.rootfs.signals import STOPPING


@contextlib.contextmanager
def signals_raise(*, to_the_end: bool) -> Iterator[None]:
    """Turn the first signal that asks to stop into InterruptedBuildError; what follows it is taking down.

    Signals that the caller of the program has had ignored (`nohup`) stay so. With `to_the_end` those that come
    after the block are ignored, so that none changes the status of a program that has nothing left to do but end;
    else the caller's handlers return.
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if not stopped:
            stopped.append(number)
            raise InterruptedBuildError(number)

    hook = sys.unraisablehook
    before = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGALRM)}
    try:
        sys.unraisablehook = _raise_lost(stopped, hook)
        for number in STOPPING:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        stopped.append(0)  # from here on `stop` raises nothing, not even between these steps
        signal.signal(signal.SIGALRM, _nothing)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        if to_the_end:
            _ignore()
        for number in (signal.SIGALRM,) if to_the_end else before:
            signal.signal(number, signal.SIG_DFL if before[number] is None else before[number])


def until_published(report: Report) -> Report:
    """Return a report that has the signals that ask to stop ignored once it hears that the result is there."""

    def heard(event: Event) -> None:
        if isinstance(event, Published):
            for number in STOPPING:
                # SIG_IGN would have Python complain about a signal that it has taken, but not acted on yet.
                signal.signal(number, _nothing)
        report(event)

    return heard


def _raise_lost(
    stopped: list[int], hook: Callable[[sys.UnraisableHookArgs], object]
) -> Callable[[sys.UnraisableHookArgs], None]:
    """Return a hook that raises once more what was raised where no exception gets out, in a finalizer or callback."""

    def again(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, InterruptedBuildError):
            hook(lost)
            return
        number = lost.exc_value.signal

        def stop_again(_number: int, frame: FrameType | None) -> None:
            del frame
            if number in stopped:
                stopped.remove(number)
            # To the handler of that moment: it may have to wait, or be too late.
            signal.raise_signal(number)

        signal.signal(signal.SIGALRM, stop_again)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    return again


def _ignore() -> None:
    # Blocked meanwhile, for the same reason. Python undoes its own handlers when it ends; it leaves this.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _nothing(number: int, frame: FrameType | None) -> None:
    del number, frame
