"""File capabilities as packages write them (cap_from_text(3)) and as Linux stores them (capabilities(7))."""

from __future__ import annotations

import re
import struct

_IN_ORDER = """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
    sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
    mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
"""
NAMES = tuple(f"cap_{name}" for name in _IN_ORDER.split())
"""By number (linux/capability.h)."""

_ALL = (1 << len(NAMES)) - 1
_REVISION = 0x02000000
_EFFECTIVE = 1
_CLAUSE = re.compile(r"(?P<names>\w+(?:,\w+)*)?(?P<actions>=[eip]*(?:[+-][eip]+)*|(?:[+-][eip]+)+)", re.ASCII)
_ACTION = re.compile(r"([=+-])([eip]*)")


def encode_capabilities(text: str) -> bytes:
    """Return the value of `security.capability` (VFS_CAP_REVISION_2) that `cap_net_raw=ep` and the like describe.

    Raises ValueError for what cap_from_text(3) does not take, and for effective capabilities that are neither
    none nor all, which a file cannot have.
    """
    effective, inheritable, permitted = _parse(text)
    if effective and (permitted | inheritable) & ~effective:
        raise ValueError("of a file's capabilities all are effective, or none")
    flags = _EFFECTIVE if effective else 0
    words = [(held >> shift) & 0xFFFFFFFF for shift in (0, 32) for held in (permitted, inheritable)]
    return struct.pack("<5I", _REVISION | flags, *words)


def _parse(text: str) -> tuple[int, int, int]:
    """Return the effective, inheritable and permitted sets."""
    held = dict.fromkeys("eip", 0)
    for clause in text.split():
        found = _CLAUSE.fullmatch(clause)
        if found is None or (found["names"] is None and not found["actions"].startswith("=")):
            raise ValueError(f"{clause!r} describes no capabilities")
        named = _ALL if found["names"] is None else _named(found["names"])
        for operator, flags in _ACTION.findall(found["actions"]):
            for flag in held:
                if operator == "=":
                    held[flag] &= ~named
                if flag in flags:
                    held[flag] = held[flag] & ~named if operator == "-" else held[flag] | named
    return held["e"], held["i"], held["p"]


def _named(names: str) -> int:
    bits = 0
    for name in names.lower().split(","):
        if name == "all":
            bits |= _ALL
        elif name in NAMES:
            bits |= 1 << NAMES.index(name)
        elif name.isdecimal() and int(name) < len(NAMES):
            bits |= 1 << int(name)
        else:
            raise ValueError(f"there is no capability {name!r}")
    return bits
