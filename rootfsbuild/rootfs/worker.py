"""A process that sees nothing but a root: forked, confined, fed tasks, and ended with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rootfsbuild.errors import HostError, PackageError, StorageError
from rootfsbuild.rootfs.signals import postponed

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_MS_PRIVATE_RECURSIVE = 1 << 18 | 1 << 14
_LARGEST_ANSWER = 1 << 30
"""Bytes; a million paths are a tenth of it."""
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENFILE, errno.EMFILE}
_libc = ctypes.CDLL(None, use_errno=True)

Fields = Sequence[bytes]
Task = Callable[[Fields, int], Fields]
"""Does one task: its fields and the file sent with it (the callee closes it), to the fields of the answer."""


@dataclass(frozen=True)
class Worker:
    """A confined process, seen from outside."""

    pid: int
    tasks: socket.socket
    answers: int
    """The reading end of a pipe."""

    def send(self, fields: Fields, fd: int) -> None:
        """Hand over a task and a file; the process must be idle."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.tasks, [pack(fields)], [fd])

    def receive(self, subject: str) -> Fields:
        """Wait for the answer; raise what the task raised, PackageError for `subject` if the process died."""
        try:
            fields = unpack(_read(self.answers, int.from_bytes(_read(self.answers, 8), "little")))
        except EOFError:
            _, status = os.waitpid(self.pid, 0)
            ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status >> 8}"
            raise PackageError(subject, f"the process that unpacked it ended with {ended}") from None
        if fields[0] != b"done":
            raise _revived([os.fsdecode(field) for field in fields])
        return fields[1:]

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.tasks.close()
        os.close(self.answers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def start_worker(root: str, prepare: Callable[[], Task]) -> Worker:
    """Fork a process, confine it to `root`, and let it do tasks until it is ended or this thread dies.

    `prepare` runs before the confinement: everything the task will import must be loaded there.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    parent = os.getpid()
    with postponed():
        pid = os.fork()
        if pid == 0:
            _become(root, prepare, theirs, writing, parent)
    theirs.close()
    os.close(writing)
    return Worker(pid, ours, reading)


def pack(fields: Fields) -> bytes:
    """Return fields as bytes, each behind its length."""
    return b"".join(len(field).to_bytes(4, "little") + field for field in fields)


def unpack(data: bytes) -> list[bytes]:
    """Return the fields that `pack` was given; EOFError for anything else."""
    fields: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise EOFError
        fields.append(data[start:at])
    return fields


def storage_failed(error: OSError) -> bool:
    """Tell whether the file system refused, rather than the package being at fault."""
    return error.errno in _STORAGE


def _become(root: str, prepare: Callable[[], Task], tasks: socket.socket, answers: int, parent: int) -> None:
    """Be the child: never returns."""
    status = 1
    try:
        tied = _tie_to(parent)
        tasks, answers = _keep_only(tasks, answers)
        failure: Fields | None = None
        try:
            task = prepare()
            _confine(root)
        except OSError as error:
            failure = (b"HostError", b"chroot", _reason(error))
        while tied:
            data, fds, _, _ = socket.recv_fds(tasks, 1 << 16, 1)
            if not data:
                break
            _answer(answers, failure or _attempt(task, unpack(data), fds[0]))
        status = 0
    finally:
        os._exit(status)


def _attempt(task: Task, fields: Fields, fd: int) -> Fields:
    try:
        return (b"done", *task(fields, fd))
    except PackageError as error:
        return (b"PackageError", *(os.fsencode(text) for text in (error.package, error.problem, error.path)))
    except OSError as error:
        name = error.filename if isinstance(error.filename, bytes) else os.fsencode(str(error.filename or ""))
        kind = b"StorageError" if storage_failed(error) else b"PackageError"
        return (kind, fields[0], _reason(error), name)
    except MemoryError:
        return (b"PackageError", fields[0], b"takes more memory than there is", b"")
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        return (b"PackageError", fields[0], os.fsencode(f"{type(error).__name__}: {error}"), b"")


def _revived(fields: Sequence[str]) -> Exception:
    kind, *rest = fields
    if kind == "StorageError" and len(rest) == 3:
        return StorageError(rest[2] or rest[0], rest[1], hint="free some space or build elsewhere with -o or TMPDIR")
    if kind == "HostError":
        return HostError("chroot", f"unpacking is confined to the root: {rest[-1]}")
    return PackageError(*[*rest, "", "", ""][:3])


def _reason(error: OSError) -> bytes:
    return os.fsencode(error.strerror or str(error))


def _tie_to(parent: int) -> bool:
    """End with the parent; False if it is gone already. Signals to the group are for the parent to act on."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    return os.getppid() == parent


def _keep_only(tasks: socket.socket, answers: int) -> tuple[socket.socket, int]:
    """Close what was inherited: a pipe end held here would keep its reader from ever seeing the end."""
    sock, pipe = tasks.detach(), answers
    low, high = min(sock, pipe), max(sock, pipe)
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 1 << 20)
    return socket.socket(fileno=sock), pipe


def _confine(root: str) -> None:
    # A mount namespace of its own keeps later mounts of the host out of sight; chroot alone has to do where a
    # container withholds it.
    if _libc.unshare(_CLONE_NEWNS) == 0:
        _libc.mount(None, b"/", None, _MS_PRIVATE_RECURSIVE, None)
    os.chroot(root)
    os.chdir("/")
    os.umask(0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    gc.freeze()
    gc.disable()


def _answer(pipe: int, fields: Fields) -> None:
    data = pack(fields)
    view = memoryview(len(data).to_bytes(8, "little") + data)
    while view:
        view = view[os.write(pipe, view) :]


def _read(pipe: int, count: int) -> bytes:
    if count > _LARGEST_ANSWER:
        raise EOFError
    data = bytearray()
    while len(data) < count:
        piece = os.read(pipe, min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
