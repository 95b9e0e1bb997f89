"""The two processes between a build and what runs in its sandbox.

The *keeper* is a child of the caller. It enters new namespaces, furnishes the tree, starts the first process
of the new pid namespace, and waits: to remove at the end what had to be put into the root, and to pass on the
caller's death. The *first* process runs commands one after the other, as it is told over a socket, and adopts
and ends what they leave behind; when it ends, however it ends, the kernel ends everything in its namespace.

Both are forks that import nothing and never return into their caller's code: the files of the host's Python
are out of sight, and another thread's locks may be held for ever.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from rootfsbuild.errors import HostError, PackageError, RootfsbuildError
from rootfsbuild.rootfs import mounts, namespaces, seccomp

if TYPE_CHECKING:
    from collections.abc import Mapping

Message = dict[str, Any]
Builtin = Callable[[Sequence[str]], int]
"""A command in Python: its words, itself the first, to its exit status; in a process of its own, inside. It may
execute a program instead of returning."""

# What Debian's maintainer scripts need. Without the others a script cannot mount, load a module, set the
# clock, trace, see raw devices, open files of the host by handle (dac_read_search) or make its files
# undeletable (linux_immutable).
KEPT = frozenset(namespaces.CAPABILITIES) - {"sys_admin"}
_GRACE = 0.25
"""Seconds in which what a command started may end by itself once the command has ended."""
_DESCRIPTORS = 3


@dataclass(frozen=True)
class Setup:
    """What the two processes need to know."""

    root: str
    """Absolute, without symbolic links."""
    binds: tuple[mounts.Bind, ...]
    overlays: Mapping[str, tuple[bytes, int]]
    hostname: str
    network: bool
    nosync: bool
    privileged: bool
    terminal: bool
    """Stay in the caller's session, so that its terminal can be handed on."""
    builtins: Mapping[str, Builtin] = field(default_factory=dict)


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message, its length first, with descriptors attached to the length."""
    body = json.dumps(message).encode()
    socket.send_fds(channel, [struct.pack("=I", len(body))], list(descriptors))
    channel.sendall(body)


def receive(channel: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message and its descriptors; None at the end."""
    head, descriptors, _flags, _address = socket.recv_fds(
        channel, 4, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL
    )
    if len(head) < 4:
        return None
    left = struct.unpack("=I", head)[0]
    body = bytearray()
    while len(body) < left:
        part = channel.recv(min(left - len(body), 1 << 16))
        if not part:
            return None
        body += part
    return json.loads(body), descriptors


def failure(error: BaseException) -> Message:
    """Describe an error for the caller, who raises it again with `revive`."""
    if isinstance(error, HostError):
        return {"HostError": [error.missing, error.why, error.without]}
    if isinstance(error, PackageError):
        return {"PackageError": [error.package, error.problem, error.path]}
    return {"HostError": ["the sandbox", f"cannot be set up: {error}", WITHOUT]}


def revive(message: Message) -> RootfsbuildError | None:
    """Return the error that a message describes, if it describes one."""
    if "HostError" in message:
        return HostError(*message["HostError"])
    if "PackageError" in message:
        return PackageError(*message["PackageError"])
    return None


WITHOUT = "`--dry-run`, `config` and `why` work without it"


def keep(setup: Setup, channel: socket.socket) -> NoReturn:
    """Be the keeper; called in a fresh child that has all signals blocked."""
    status = 1
    try:
        gc.disable()
        namespaces.default_signals()
        _forget_caller(channel, terminal=setup.terminal)
        made = _furnish(setup)
        try:
            _wait_for_first(setup, channel)
        finally:
            mounts.remove(made)
        status = 0
    except BaseException as error:  # noqa: BLE001 - a child must never run on in its caller's code
        _tell(channel, failure(error))
    finally:
        os._exit(status)


def _forget_caller(channel: socket.socket, *, terminal: bool) -> None:
    """Let go of the caller's descriptors and terminal, but not of its life."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    namespaces.close_others(frozenset({channel.fileno()}))
    namespaces.die_with_parent(signal.SIGTERM)
    os.umask(0)
    if terminal:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
    else:
        os.setsid()


def _furnish(setup: Setup) -> tuple[mounts.Placeholder, ...]:
    mounts.check_mount_points(setup.root)
    namespaces.unshare(network=setup.network)
    namespaces.set_hostname(setup.hostname)
    if not setup.network:
        namespaces.loopback_up()
    return mounts.enter(setup.root, setup.binds, setup.overlays)


def _wait_for_first(setup: Setup, channel: socket.socket) -> None:
    """Start the first process and wait for its end, which SIGTERM, sent by the caller's death too, brings."""
    first = os.fork()
    if first == 0:
        _be_first(setup, channel)
    channel.close()
    signal.signal(signal.SIGTERM, lambda _number, _frame: _kill(first))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.waitpid(first, 0)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _tell(channel: socket.socket, message: Message) -> None:
    try:
        send(channel, message)
    except OSError:
        return  # nobody is left to be told


def _be_first(setup: Setup, channel: socket.socket) -> NoReturn:
    try:
        namespaces.die_with_parent(signal.SIGKILL)
        mounts.mount_proc()
        namespaces.close_others(frozenset({channel.fileno()}))
        wake = _listen_for_children()
        filtered = _restrict(setup)
        send(channel, {"ready": True, "filtered": filtered})
        _serve(setup, channel, wake)
    except BaseException as error:  # noqa: BLE001 - a child must never run on in its caller's code
        _tell(channel, failure(error))
    finally:
        os._exit(0)


def _listen_for_children() -> int:
    """Return a descriptor that becomes readable when a child ends."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return read


def _restrict(setup: Setup) -> bool:
    """Give up what scripts must not have; say whether the system-call filter could be installed."""
    os.setgroups([])
    os.umask(0o022)
    namespaces.plain_limits()
    namespaces.set_name("rootfsbuild")
    filtered = seccomp.install(os.uname().machine, nosync=setup.nosync)
    if not setup.privileged:
        namespaces.keep_capabilities(KEPT)
    # Its executable is the host's Python, and its environment the caller's: neither is a script's to see.
    namespaces.hide_memory()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return filtered


def _serve(setup: Setup, channel: socket.socket, wake: int) -> None:
    """Carry out requests until the caller closes its end."""
    while (received := receive(channel)) is not None:
        request, descriptors = received
        if "commands" not in request:
            continue  # a wish about a command that has ended meanwhile
        child = os.fork()
        if child == 0:
            _become(setup, request, descriptors)
        # The terminal is kept, to be handed back after a stop; any other end kept open would hide the end.
        kept = descriptors if setup.terminal else []
        for descriptor in descriptors:
            if descriptor not in kept:
                os.close(descriptor)
        report = _attend(channel, wake, child, kept)
        if report is None:
            return
        for descriptor in kept:
            os.close(descriptor)
        send(channel, report)


def _become(setup: Setup, request: Message, descriptors: list[int]) -> NoReturn:
    """Turn a child of the first process into the command."""
    status = 127
    try:
        if request["terminal"]:
            namespaces.default_signals()  # the terminal's, which its keepers ignore
            if request["foreground"]:
                os.setpgid(0, 0)
                take_terminal(descriptors[0], os.getpid())
        else:
            os.setsid()
        _connect(descriptors)
        os.chdir(request["cwd"])
        words = request["commands"][0]
        if words[0] in setup.builtins:
            _forget_first(request["environment"])
            status = setup.builtins[words[0]](words)
        else:
            os.write(2, _execute(request["commands"], request["environment"]).encode(errors="replace"))
    except BaseException as error:  # noqa: BLE001 - a child must never run on in its caller's code
        os.write(2, f"cannot start the command: {error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _forget_first(environment: Mapping[str, str]) -> None:
    """Rid a process that executes nothing of what it has from the first one, and that from its caller."""
    signal.set_wakeup_fd(-1)
    namespaces.default_signals()
    os.environ.clear()
    os.environ.update(environment)
    namespaces.wipe_environment()


def _connect(descriptors: list[int]) -> None:
    """Make (output), (output, input) or (input, output, errors) the standard three."""
    if len(descriptors) == 3:
        sources = descriptors
    else:
        output = descriptors[0]
        sources = [
            descriptors[1] if len(descriptors) > 1 else os.open("/dev/null", os.O_RDONLY),
            output,
            output,
        ]
    for target, source in enumerate(sources):
        os.dup2(source, target)
    namespaces.close_others(frozenset())


def _execute(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> str:
    """Execute the first command that exists; return why none could be."""
    problem = ""
    for arguments in commands:
        try:
            os.execvpe(arguments[0], list(arguments), environment)  # noqa: S606 - what this module is for
        except OSError as error:
            problem = f"cannot run {arguments[0]}: {error.strerror}\n"
    return problem


def _attend(channel: socket.socket, wake: int, child: int, terminal: list[int]) -> Message | None:
    """Wait for the command's end while listening to the caller; None when the caller is gone."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while (status := _reap(channel, child, stops=bool(terminal))) is None:
        for descriptor, _events in poll.poll():
            if descriptor == wake:
                _drain(wake)
            elif not _obey(channel, child, terminal):
                return None
    return {"status": os.waitstatus_to_exitcode(status), "left": _end_leftovers(wake)}


def _reap(channel: socket.socket, child: int, *, stops: bool) -> int | None:
    """Collect everything that has ended; return the command's wait status if it is among them."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | (os.WUNTRACED if stops else 0))
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == child:
            if os.WIFSTOPPED(status):
                send(channel, {"stopped": os.WSTOPSIG(status)})
            else:
                result = status


def _obey(channel: socket.socket, child: int, terminal: list[int]) -> bool:
    """Carry out a wish about the running command; False when the caller is gone."""
    received = receive(channel)
    if received is None:
        return False
    if "kill" in received[0]:
        os.kill(-1, signal.SIGKILL)
    if "continue" in received[0]:
        if received[0]["continue"] == "foreground":
            take_terminal(terminal[0], child)
        os.killpg(child, signal.SIGCONT)
    return True


def take_terminal(descriptor: int, group: int) -> None:
    """Make a process group the one that the terminal's keys and input belong to."""
    old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(descriptor, group)
    except (OSError, termios.error):
        return  # no longer our terminal
    finally:
        signal.signal(signal.SIGTTOU, old)


def _drain(wake: int) -> None:
    try:
        while os.read(wake, 512):
            pass
    except BlockingIOError:
        return


def _end_leftovers(wake: int) -> list[str]:
    """End what the command has left running; return the names of what did not end in time by itself."""
    deadline = time.monotonic() + _GRACE
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    while _children_left() and (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        _drain(wake)
    names = _others() if _children_left() else []
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return names


def _children_left() -> bool:
    """Collect what has ended and say whether anything else lives: all orphans are children of the first."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _others() -> list[str]:
    names = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            continue  # ended meanwhile
        if pid != "1" and not rest.startswith(" Z"):
            names.append(name)
    return sorted(names)
