"""The signals that ask a program to stop, kept away from steps that have to be done whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let the signals that ask to stop wait until the end of the block; the first of them is acted on then.

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

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if waiting:
            signal.raise_signal(waiting[0])
