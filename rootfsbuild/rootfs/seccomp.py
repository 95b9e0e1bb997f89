"""A system-call filter that turns synchronisation into nothing and closes what namespaces leave open.

A root under construction is worthless until it is published, and publishing syncs it once; dpkg syncs its
database hundreds of times. The filter answers 0 to those calls. It refuses the kernel's key rings, which no
namespace covers, and typing into the terminal (TIOCSTI), which reaches the shell that started us.
Everything else that could touch the host is refused by missing capabilities, not here.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYNC = ("fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range")
_KEYS = ("add_key", "request_key", "keyctl")
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: asm-generic/ioctls.h, the same on every machine below


@dataclass(frozen=True)
class Abi:
    """One way of calling the kernel: its number in audit records and its system-call numbers."""

    audit: int
    """AUDIT_ARCH_* of linux/audit.h: the ELF machine, 0x80000000 if 64-bit, 0x40000000 if little-endian."""
    numbers: Mapping[str, int]
    """By name; `sync_file_range2` of arm and powerpc is filed under `sync_file_range`."""
    mask: int = 0xFFFFFFFF
    """What of the number counts: x32 calls carry bit 30 and mean the same (asm/unistd.h)."""


def _numbers(*values: int) -> Mapping[str, int]:
    return dict(zip((*_SYNC, *_KEYS, "ioctl", "seccomp"), values, strict=True))


# In the order of _numbers: fsync fdatasync sync syncfs msync sync_file_range add_key request_key keyctl ioctl
# seccomp. Sources, all in Linux 6.1: syscall_64.tbl and syscall_32.tbl under arch/x86, the syscall.tbl of
# arm, powerpc and s390, and asm-generic/unistd.h of the user's headers for aarch64 and riscv64.
ABIS: Mapping[str, Abi] = {
    "x86_64": Abi(0xC000003E, _numbers(74, 75, 162, 306, 26, 277, 248, 249, 250, 16, 317), 0xBFFFFFFF),
    "i386": Abi(0x40000003, _numbers(118, 148, 36, 344, 144, 314, 286, 287, 288, 54, 354)),
    "aarch64": Abi(0xC00000B7, _numbers(82, 83, 81, 267, 227, 84, 217, 218, 219, 29, 277)),
    "arm": Abi(0x40000028, _numbers(118, 148, 36, 373, 144, 341, 309, 310, 311, 54, 383)),
    "riscv64": Abi(0xC00000F3, _numbers(82, 83, 81, 267, 227, 84, 217, 218, 219, 29, 277)),
    "ppc64le": Abi(0xC0000015, _numbers(118, 148, 36, 348, 144, 308, 269, 270, 271, 54, 358)),
    "s390x": Abi(0x80000016, _numbers(118, 148, 36, 338, 144, 307, 278, 279, 280, 54, 348)),
}

# What uname(2) says, and the ways of calling that such a kernel may offer: (64-bit process, 32-bit process).
_X86, _ARM = ("x86_64", "i386"), ("aarch64", "arm")
MACHINES: Mapping[str, tuple[str, ...]] = {
    "x86_64": _X86,
    **dict.fromkeys(("i386", "i486", "i586", "i686"), _X86),
    "aarch64": _ARM,
    **dict.fromkeys(("armv6l", "armv7l", "armv8l"), _ARM),
    "riscv64": ("riscv64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
}

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM = 1
_NUMBER, _ARCH, _SECOND_ARGUMENT = 0, 4, 24
_SET_FILTER, _SPEC_ALLOW, _PR_SET_SECCOMP = 1, 4, 22


def known(machine: str) -> bool:
    """Say whether there are numbers for this machine, as `uname -m` names it."""
    return machine in MACHINES


def program(machine: str, *, nosync: bool, byteorder: str = sys.byteorder) -> bytes:
    """Return the filter as struct sock_filter values (seccomp(2)); a call of an unknown ABI is allowed."""
    blocks = [_block(ABIS[name], nosync=nosync, byteorder=byteorder) for name in MACHINES[machine]]
    code = [(_LOAD, 0, 0, _ARCH)]
    for abi, block in zip(MACHINES[machine], blocks, strict=True):
        code += [(_EQUAL, 0, len(block), ABIS[abi].audit), *block]
    code.append((_RETURN, 0, 0, _ALLOW))
    order = "<" if byteorder == "little" else ">"
    return b"".join(struct.pack(f"{order}HBBI", *instruction) for instruction in code)


def _block(abi: Abi, *, nosync: bool, byteorder: str) -> list[tuple[int, int, int, int]]:
    """Return the part for one ABI: every path through it ends in a verdict."""
    code = [(_LOAD, 0, 0, _NUMBER), (_AND, 0, 0, abi.mask)]
    verdicts = [
        *((name, _ERRNO) for name in (_SYNC if nosync else ())),
        *((n, _ERRNO | _EPERM) for n in _KEYS),
    ]
    for name, verdict in verdicts:
        code += [(_EQUAL, 0, 1, abi.numbers[name]), (_RETURN, 0, 0, verdict)]
    code.append((_EQUAL, 0, 1 + 2 * len(_TERMINAL), abi.numbers["ioctl"]))
    code.append((_LOAD, 0, 0, _SECOND_ARGUMENT + (0 if byteorder == "little" else 4)))
    for request in _TERMINAL:
        code += [(_EQUAL, 0, 1, request), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def install(machine: str, *, nosync: bool) -> bool:
    """Filter this process and its descendants; False, and nothing done, on a machine without numbers.

    Needs CAP_SYS_ADMIN, which spares PR_SET_NO_NEW_PRIVS: setuid programs go on working. Raises OSError.
    """
    if not known(machine):
        return False
    code = ctypes.create_string_buffer(program(machine, nosync=nosync))
    count = (len(code) - 1) // 8
    # struct sock_fprog: a short count, padding, and a pointer.
    header = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    number = ABIS[_own_abi(machine)].numbers["seccomp"]
    # Without SPEC_ALLOW, kernels before 5.16 slow filtered processes down against speculation attacks.
    if libc.syscall(ctypes.c_long(number), _SET_FILTER, ctypes.c_ulong(_SPEC_ALLOW), header) == 0:
        return True
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), header, ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0:
        return True
    code_of_error = ctypes.get_errno()
    raise OSError(code_of_error, os.strerror(code_of_error), "seccomp")


def _own_abi(machine: str) -> str:
    abis = MACHINES[machine]
    return abis[-1] if ctypes.sizeof(ctypes.c_void_p) == 4 else abis[0]
