"""Commands in a root, one after the other in one sandbox that opens when the first of them comes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rootfsbuild.errors import ScriptError
from rootfsbuild.rootfs.sandbox import Sandbox, Session

_REMEMBERED = 256 << 10  # bytes of output, in which dpkg's first complaint is still found behind all that follows


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    """Exit status; negative: the signal that ended it."""
    lines: tuple[str, ...]
    """The end of its output, as far as it is remembered."""


class Run(Protocol):
    """Runs a command in the sandbox with extra variables; raises ScriptError if it hung or left processes."""

    def __call__(self, argv: Sequence[str], *, extra_env: Mapping[str, str], stdin: bytes | None = None) -> Ended:
        """Run `argv` to its end; its input is empty, or `stdin`."""


@contextlib.contextmanager
def open_runner(sandbox: Sandbox, log: Callable[[bytes], object]) -> Iterator[Run]:
    """Yield a Run whose sandbox opens at the first command, since an empty root has nowhere to mount /proc."""
    with contextlib.ExitStack() as stack:
        sessions: list[Session] = []

        def run(argv: Sequence[str], *, extra_env: Mapping[str, str], stdin: bytes | None = None) -> Ended:
            if not sessions:
                sessions.append(stack.enter_context(sandbox.open()))
            chunks: deque[bytes] = deque()

            def keep(chunk: bytes) -> None:
                log(chunk)
                chunks.append(chunk)
                while sum(map(len, chunks)) > _REMEMBERED and len(chunks) > 1:
                    chunks.popleft()

            done = sessions[0].run(argv, log=keep, extra_env=extra_env, stdin=stdin)
            lines = tuple(b"".join(chunks).decode("utf-8", "replace").splitlines())
            if done.timed_out:
                raise ScriptError(
                    "",
                    " ".join(argv),
                    done.status,
                    (*lines[-20:], "(its time was up)"),
                    hint="--script-timeout SECONDS gives scripts more time",
                )
            if done.left:
                raise ScriptError(
                    "",
                    " ".join(argv),
                    done.status,
                    (*lines[-20:], f"(it left processes running: {', '.join(done.left)})"),
                    hint="no service may start during a build; report it to the package that starts one",
                )
            return Ended(done.status, lines)

        yield run
