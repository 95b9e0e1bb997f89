"""The signals that ask a program to stop, kept away from steps that have to be done whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let the signals that ask to stop wait until the end of the block; the first of them is acted on then.

    It meets the handler of that moment: one that is set inside the block stays, so that whoever finds in there
    that it is too late to stop can have the signals that wait ignored, too.

    A handler that raises does so wherever Python happens to be: in a forked child, which would run on in its
    parent's code, or in the hooks around fork(2), out of which no exception gets. Blocking with sigprocmask(2) is
    not enough, as another thread may take the signal. Outside the main thread, where no handler runs, a no-op.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        for number in STOPPING:
            signal.signal(number, note)
        yield
    finally:
        _restore(before, note)
        if waiting:
            signal.raise_signal(waiting[0])


def _restore(before: Mapping[signal.Signals, Any], note: Callable[[int, FrameType | None], None]) -> None:
    """Set the handlers that were there before, all of them, even if the first that is set raises at once."""
    left = [number for number in before if signal.getsignal(number) is note]
    if not left:
        return
    try:
        signal.signal(left[0], signal.SIG_DFL if before[left[0]] is None else before[left[0]])
    finally:
        _restore(before, note)
