"""A place on this machine where a root's own programs run and the host is out of their reach.

`Sandbox` is a value, the settings. `Sandbox.open` gives a `Session`: one set of namespaces in which commands
run one after the other. `supervisor` has the other side, the processes in between.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rootfsbuild.errors import HostError
from rootfsbuild.events import Detail, Report, ignore
from rootfsbuild.rootfs import namespaces, supervisor
from rootfsbuild.rootfs.mounts import Bind as Bind  # noqa: PLC0414 - part of this module's interface
from rootfsbuild.rootfs.signals import postponed
from rootfsbuild.rootfs.supervisor import WITHOUT

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

Log = Callable[[bytes], object] | int
"""Where output goes: a callable that takes chunks, or a descriptor to write to."""

_TAIL_LINES, _TAIL_BYTES, _LINE_LENGTH = 20, 16384, 400
_CLOSING = 2.0
"""Seconds for the processes of a session to end before they are asked again."""


@dataclass(frozen=True)
class Completed:
    """How a command ended."""

    status: int
    """Exit status; negative: the signal that ended it; 127 if it could not be started."""
    tail: tuple[str, ...] = ()
    """At most the last 20 lines of its output."""
    left: tuple[str, ...] = ()
    """Names of processes that it left running, ended a quarter of a second after it."""
    timed_out: bool = False
    """Whether it was ended, with everything it started, because its time was up."""


@dataclass(frozen=True)
class Sandbox:
    """The settings of a sandbox. Needs root with CAP_SYS_ADMIN."""

    root: str
    environment: Mapping[str, str]
    """Complete: nothing of the host's is added."""
    network: bool = False
    """Share the host's network (and its abstract sockets) instead of having none but a loopback."""
    nosync: bool = True
    """Make fsync and its kin do nothing."""
    timeout: float | None = None
    """Seconds for each command, unless it is given its own."""
    binds: tuple[Bind, ...] = ()
    overlays: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    """Absolute path: (content, mode), shown read-only in its place. What is absent is made for the session
    and removed at its end. A path shown like this cannot be renamed or deleted inside (EBUSY)."""
    hostname: str = "localhost"
    privileged: bool = False
    """Keep the caller's capabilities, for a build inside; only namespaces then protect the host."""
    builtins: Mapping[str, Callable[[], supervisor.Builtin]] = field(default_factory=dict)
    """Commands that are functions of this program: name -> what imports all that the function will need, before the
    host's files are out of sight, and returns it."""
    report: Report = field(default=ignore, compare=False)

    def open(self, *, terminal: bool = False) -> Session:
        """Set up the namespaces; `terminal` keeps the caller's, for `Session.interactive`.

        Call it from the main thread: the sandbox ends with the thread that opened it. Raises HostError, or
        PackageError if the root has something unfit where /proc, /sys, /dev, /run or /tmp are mounted.
        """
        return Session(self, terminal=terminal)

    def interactive(self, argv: Sequence[str], *, or_else: Sequence[Sequence[str]] = ()) -> int:
        """Run one command on the caller's terminal; return its exit status, 128 + n if signal n ended it.

        `or_else` are commands to try in turn if the first does not exist in the root.
        """
        sandbox = replace(self, binds=(*self.binds, *_console()))
        with sandbox.open(terminal=True) as session:
            return session.interactive((argv, *or_else))


def _console() -> tuple[Bind, ...]:
    """Show the caller's terminal as /dev/console, where `tty` and its kin find it again."""
    try:
        return (Bind(os.ttyname(0), "/dev/console"),)
    except OSError:
        return ()


def check_host() -> None:
    """Raise HostError unless this process may set up a sandbox."""
    if os.geteuid() == 0 and namespaces.effective_capabilities() >> namespaces.CAPABILITIES["sys_admin"] & 1:
        return
    lacks = "root" if os.geteuid() else "CAP_SYS_ADMIN"
    why = "needed to run the root's own programs in namespaces, apart from this host"
    raise HostError(lacks, why, WITHOUT, hint="run as root, in a container with CAP_SYS_ADMIN (--privileged)")


class Session:
    """A sandbox in which commands can run, one at a time; close it, or use it in a `with` statement."""

    def __init__(self, sandbox: Sandbox, *, terminal: bool = False) -> None:
        check_host()
        self._sandbox = sandbox
        self._keeper = 0
        self._channel, far_end = socket.socketpair()
        try:
            self._fork(far_end, terminal=terminal)
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fork(self, far_end: socket.socket, *, terminal: bool) -> None:
        sandbox = self._sandbox
        setup = supervisor.Setup(
            os.path.realpath(sandbox.root),
            tuple(replace(bind, source=os.path.abspath(bind.source)) for bind in sandbox.binds),
            dict(sandbox.overlays),
            sandbox.hostname,
            sandbox.network,
            sandbox.nosync,
            sandbox.privileged,
            terminal,
            {name: load() for name, load in sandbox.builtins.items()},
        )
        # No handler of the caller may run in the child, nor between the fork and the note of it here.
        with postponed():
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._keeper = os.fork()
                if self._keeper == 0:
                    supervisor.keep(setup, far_end)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        far_end.close()

    def _await_ready(self) -> None:
        message, _ = self._receive()
        if not message["filtered"]:
            machine = os.uname().machine
            self._sandbox.report(Detail(f"no system-call filter for {machine}: fsync is not skipped"))

    def _receive(self) -> tuple[supervisor.Message, list[int]]:
        try:
            received = supervisor.receive(self._channel)
        except ConnectionError:
            received = None
        if received is None:
            raise HostError("the sandbox", "its first process was ended from outside, or for want of memory")
        error = supervisor.revive(received[0])
        if error is not None:
            raise error
        return received

    def run(
        self,
        argv: Sequence[str],
        *,
        log: Log,
        stdin: bytes | None = None,
        extra_env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end, its output and errors merged into the log as they come.

        It gets `stdin` or an empty input, the sandbox's environment and `extra_env`, and no terminal. When it
        has ended, or its seconds are up, all that it started is ended. Any exception closes the session.
        """
        write = _writer(log)
        seconds = self._sandbox.timeout if timeout is None else timeout
        read, output = os.pipe()
        try:
            self._request((argv,), extra_env or {}, output, stdin)
            os.close(output)
            output = -1
            return _Follower(self._channel, read, write, seconds).follow(self._receive)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(read)
            if output >= 0:
                os.close(output)

    def _request(
        self, commands: Sequence[Sequence[str]], extra: Mapping[str, str], output: int, stdin: bytes | None
    ) -> None:
        descriptors = [output]
        if stdin is not None:
            descriptors.append(_memory_file(stdin))
        try:
            supervisor.send(self._channel, self._message(commands, extra), descriptors)
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)

    def _message(self, commands: Sequence[Sequence[str]], extra: Mapping[str, str]) -> supervisor.Message:
        return {
            "commands": [list(command) for command in commands],
            "environment": {**self._sandbox.environment, **extra},
            "cwd": "/",
            "terminal": False,
            "foreground": False,
        }

    def interactive(self, commands: Sequence[Sequence[str]]) -> int:
        """Run the first of `commands` that exists on the caller's standard input, output and errors.

        The session must have been opened with `terminal`. Returns the exit status, or 128 + signal.
        """
        terminal = _foreground_terminal()
        message = {**self._message(commands, {}), "terminal": True, "foreground": terminal is not None}
        saved = None if terminal is None else termios.tcgetattr(terminal)
        try:
            supervisor.send(self._channel, message, (0, 1, 2))
            while "status" not in (report := self._receive()[0]):
                self._stop(terminal)
        except BaseException:
            self.close()
            raise
        finally:
            if terminal is not None and saved is not None:
                supervisor.take_terminal(terminal, os.getpgrp())
                termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
        status = int(report["status"])
        return status if status >= 0 else 128 - status

    def _stop(self, terminal: int | None) -> None:
        """Stop like the command did, so that the caller's shell sees it, and go on with it later."""
        if terminal is not None:
            supervisor.take_terminal(terminal, os.getpgrp())
        os.kill(os.getpid(), signal.SIGSTOP)
        where = "background" if _foreground_terminal() is None else "foreground"
        supervisor.send(self._channel, {"continue": where})

    def close(self) -> None:
        """End every process of the sandbox, with which its mounts go too, and wait until they are gone."""
        self._channel.close()
        keeper, self._keeper = self._keeper, 0
        if keeper:
            os.kill(keeper, signal.SIGTERM)
            os.waitpid(keeper, 0)


def _foreground_terminal() -> int | None:
    """Return standard input if it is a terminal that currently belongs to this process's group."""
    try:
        return 0 if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp() else None
    except OSError:
        return None


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _writer(log: Log) -> Callable[[bytes], object]:
    if callable(log):
        return log
    descriptor = log

    def write(chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            left = left[os.write(descriptor, left) :]

    return write


class _Follower:
    """One command's output on its way to the log, and its clock."""

    def __init__(
        self, channel: socket.socket, read: int, write: Callable[[bytes], object], seconds: float | None
    ) -> None:
        self._channel, self._read, self._write = channel, read, write
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._tail: deque[bytes] = deque()
        self._size = 0
        self._timed_out = False

    def follow(self, receive: Callable[[], tuple[supervisor.Message, list[int]]]) -> Completed:
        """Copy until the command's end is reported, then what is still in the pipe."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        report = None
        while report is None:
            for descriptor, _events in poll.poll(self._remaining()):
                if descriptor == self._channel.fileno():
                    report = receive()[0]
                elif not self._copy():
                    poll.unregister(self._read)
        while self._ready() and self._copy():
            pass
        left = () if self._timed_out else tuple(report["left"])
        return Completed(int(report["status"]), self._lines(), left, self._timed_out)

    def _remaining(self) -> float | None:
        """Return milliseconds to wait; when the time is up, ask once for the end of everything."""
        if self._deadline is None or self._timed_out:
            return None
        left = self._deadline - time.monotonic()
        if left > 0:
            return left * 1000 + 1
        self._timed_out = True
        supervisor.send(self._channel, {"kill": True})
        return None

    def _ready(self) -> bool:
        return bool(select.select([self._read], [], [], 0)[0])

    def _copy(self) -> bool:
        chunk = os.read(self._read, 1 << 16)
        self._tail.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._tail[0]) > _TAIL_BYTES:
            self._size -= len(self._tail.popleft())
        if chunk:
            self._write(chunk)
        return bool(chunk)

    def _lines(self) -> tuple[str, ...]:
        text = b"".join(self._tail)[-_TAIL_BYTES:].decode(errors="replace")
        return tuple(line[:_LINE_LENGTH] for line in text.splitlines()[-_TAIL_LINES:])
