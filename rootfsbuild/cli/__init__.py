"""The command line: the only code that prints, exits or catches the project's errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from rootfsbuild.cli.arguments import parse
from rootfsbuild.cli.exits import FAILED, exit_status
from rootfsbuild.cli.stopping import signals_raise
from rootfsbuild.errors import InterruptedBuildError, RootfsbuildError, StorageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Without `argv` it is the program's own, with which the program ends: signals that ask to stop are ignored after it.
    """
    try:
        with signals_raise(to_the_end=argv is None):
            return _dispatch(sys.argv[1:] if argv is None else argv)
    except (RootfsbuildError, InterruptedBuildError) as error:
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


def _print_error(error: RootfsbuildError | InterruptedBuildError) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    label, hint = ("\x1b[1;31merror:\x1b[0m", "\x1b[1;36mhint:\x1b[0m") if colour else ("error:", "hint:")
    text = str(error).encode("utf-8", "backslashreplace").decode()
    print(f"{label} {text}", file=sys.stderr)  # noqa: T201 - the command line is where printing happens
    if error.hint:
        print(f"{hint} {error.hint}", file=sys.stderr)  # noqa: T201 - the same
