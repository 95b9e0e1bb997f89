"""The command line: the only code that prints, exits or catches the project's errors."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from rootfsbuild.cli.arguments import parse
from rootfsbuild.cli.exits import FAILED, exit_status
from rootfsbuild.errors import InterruptedBuildError, RootfsbuildError, StorageError
from rootfsbuild.rootfs.signals import STOPPING


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    try:
        with _signals_raise():
            return _dispatch(sys.argv[1:] if argv is None else argv)
    except RootfsbuildError as error:
        _print_error(error)
        return exit_status(error)
    except BrokenPipeError:
        # The reader of our output went away; whatever is still buffered has no one to go to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno is None:
            raise
        _print_error(_describe(error))
        return FAILED


def _dispatch(argv: Sequence[str]) -> int:
    arguments = parse(argv)
    from rootfsbuild.cli.commands import COMMANDS  # noqa: PLC0415 - --help must not wait for the whole program

    return COMMANDS[arguments.verb](arguments)


def _describe(error: OSError) -> StorageError:
    hint = "free some space, or choose another place with --cache-dir and -o" if error.errno == errno.ENOSPC else ""
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "input or output"
    return StorageError(place, error.strerror or str(error), hint=hint)


def _print_error(error: RootfsbuildError) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    label, hint = ("\x1b[1;31merror:\x1b[0m", "\x1b[1;36mhint:\x1b[0m") if colour else ("error:", "hint:")
    text = str(error).encode("utf-8", "backslashreplace").decode()
    print(f"{label} {text}", file=sys.stderr)  # noqa: T201 - the command line is where printing happens
    if error.hint:
        print(f"{hint} {error.hint}", file=sys.stderr)  # noqa: T201 - the same


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the signals that ask a program to stop into an exception, once: what follows is taking down.

    They stay ignored then, to the end of the program, so that a second one cannot change its exit status.
    """
    stopped = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        stopped.append(number)
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise InterruptedBuildError(number)

    def again(lost: sys.UnraisableHookArgs) -> None:
        """Raise once more what was raised where no exception gets out, in a finalizer or a callback."""
        if isinstance(lost.exc_value, InterruptedBuildError):
            number = lost.exc_value.signal
            signal.signal(signal.SIGALRM, lambda _number, frame: stop(number, frame))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(lost)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        for number, handler in before.items() if not stopped else ():
            signal.signal(number, handler)
