"""The system calls that separate a process from its host, each as a function that raises OSError.

All of them are reached through the C library that Python itself runs on (glibc and musl export every one), so
that nothing has to be compiled and no helper program has to exist on the host.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)

# The flags of mount(2), from linux/mount.h
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTE, REMOUNT = 1, 2, 4, 8, 32
BIND, MOVE, RECURSIVE, PRIVATE = 4096, 8192, 16384, 1 << 18
_DETACH = 2

# linux/prctl.h
_PDEATHSIG, _DUMPABLE, _NAME, _BOUNDING_READ, _BOUNDING_DROP, _AMBIENT = 1, 4, 15, 23, 24, 47
_AMBIENT_CLEAR = 4

# linux/capability.h, the ones that this project names
CAPABILITIES = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,
    "net_bind_service": 10,
    "net_raw": 13,
    "sys_chroot": 18,
    "sys_admin": 21,
    "mknod": 27,
    "audit_write": 29,
    "setfcap": 31,
}

# linux/sockios.h, linux/if.h
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def _succeed(result: int, doing: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), doing)
    return result


def unshare(*, network: bool, processes: bool = True) -> None:
    """Enter new mount, ipc, uts, cgroup and (unless `network` is to be the host's) network namespaces.

    With `processes`, children are born into a new pid namespace, whose first is its init (pid_namespaces(7)).
    """
    flags = _NEWNS | _NEWIPC | _NEWUTS | (_NEWPID if processes else 0) | (0 if network else _NEWNET)
    if _libc.unshare(flags | _NEWCGROUP) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        _succeed(-1, "unshare")
    # EINVAL: a kernel built without cgroup namespaces, which hide names but protect nothing.
    _succeed(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Attach a file system or a part of the tree (mount(2)); empty `kind` and `options` become NULL."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _succeed(result, f"mount {kind or source} on {target}")


def unmount(target: str) -> None:
    """Detach a mount and everything below it (umount2(2), MNT_DETACH)."""
    _succeed(_libc.umount2(os.fsencode(target), _DETACH), f"unmount {target}")


def pivot() -> None:
    """Make the current directory, which must be a mount point, the root, and let go of the old one.

    The old root is put onto the very same place and detached, so that no directory is needed for it
    (pivot_root(2), NOTES).
    """
    _succeed(_libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def set_hostname(name: str) -> None:
    """Set the host name of the current uts namespace."""
    raw = name.encode()
    _succeed(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def loopback_up() -> None:
    """Switch on the loopback interface of the current network namespace, which is born switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _GET_FLAGS, request), 16)[0]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def _prctl(option: int, argument: int = 0, third: int = 0, doing: str = "prctl") -> int:
    words = [ctypes.c_ulong(word) for word in (argument, third, 0, 0)]
    return _succeed(int(_libc.prctl(option, *words)), doing)


def die_with_parent(number: int) -> None:
    """Have the kernel send a signal when the thread that made this process ends."""
    _prctl(_PDEATHSIG, number, doing="PR_SET_PDEATHSIG")


def hide_memory() -> None:
    """Close /proc/PID/{exe,root,fd,mem,environ} of this process to everyone without CAP_SYS_PTRACE."""
    _prctl(_DUMPABLE, 0, doing="PR_SET_DUMPABLE")


def wipe_environment() -> None:
    """Overwrite what /proc/self/environ shows, which is what this process was started with, whatever came since."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    # proc(5), env_start and env_end: fields 50 and 51, of which the first two stand before the bracket.
    begin, end = int(fields[47]), int(fields[48])
    if 0 < begin < end:
        ctypes.memset(begin, 0, end - begin)


def set_name(name: str) -> None:
    """Set the name that `ps` shows, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_NAME, ctypes.addressof(buffer), doing="PR_SET_NAME")


def effective_capabilities() -> int:
    """Return the capabilities in force as a bit set."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def keep_capabilities(names: frozenset[str]) -> None:
    """Give up every capability that is not named, for this process and whatever it executes, for good."""
    wanted = sum(1 << CAPABILITIES[name] for name in names)
    for number in range(64):
        try:
            held = _prctl(_BOUNDING_READ, number)
        except OSError:
            break  # past the last one that this kernel knows
        if held and not wanted >> number & 1:
            _prctl(_BOUNDING_DROP, number, doing="PR_CAPBSET_DROP")
    _prctl(_AMBIENT, _AMBIENT_CLEAR, doing="PR_CAP_AMBIENT")
    _reduce_sets(wanted)


def _reduce_sets(wanted: int) -> None:
    """Cut effective and permitted down to `wanted`, and inheritable to nothing (capset(2), version 3)."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(24)
    _succeed(_libc.capget(header, data), "capget")
    words = list(struct.unpack("=6I", data.raw))
    for half in (0, 1):
        mask = wanted >> 32 * half & 0xFFFFFFFF
        words[3 * half] &= mask
        words[3 * half + 1] &= mask
        words[3 * half + 2] = 0
    data = ctypes.create_string_buffer(struct.pack("=6I", *words), 24)
    _succeed(_libc.capset(header, data), "capset")


def close_others(keep: frozenset[int]) -> None:
    """Close every descriptor but the standard three and those to keep, cached locks and sockets included."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # the one that listed the directory is gone already


def default_signals() -> None:
    """Give every signal its default disposition: what is ignored stays ignored across exec (signal(7))."""
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue  # SIGKILL, SIGSTOP and the two that the C library keeps for itself


def plain_limits() -> None:
    """Dump no core, and offer the usual 1024 descriptors: some programs close all that they may have."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024 if hard < 0 or hard > 1024 else hard, hard))
