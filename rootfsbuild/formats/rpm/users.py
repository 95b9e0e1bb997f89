"""Users and groups by name, as a root's own /etc/passwd and /etc/group have them, and those that packages bring.

Since rpm 4.19 a package says in its Provides which users and groups it needs (`user(name) = LINE`, LINE being a line
of sysusers.d(5) in base64), and rpm creates them before it lays the package's files down. Its own script for that needs
a working root; here they are written down directly.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.inside import Inside

PASSWD, GROUP, SHADOW, GSHADOW = "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"
_PROVIDED = re.compile(r"(?:user|group|groupmember)\((?P<names>[^)]*)\)(?: = (?P<line>[A-Za-z0-9+/=]+))?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
_SYSTEM = range(999, 0, -1)
"""Where systemd-sysusers(8) looks for a free number, the highest first."""


@dataclass(frozen=True)
class Accounts:
    """The users and groups of a root."""

    users: Mapping[bytes, int]
    groups: Mapping[bytes, int]


def read_accounts(root: Inside) -> Accounts:
    """Return what a root's files say; root itself is known in any case."""
    return Accounts({b"root": 0, **_numbers(root, PASSWD)}, {b"root": 0, **_numbers(root, GROUP)})


def create_accounts(root: Inside, provides: Iterable[str], label: str, epoch: int) -> None:
    """Create the users and groups that a package provides, as far as they are not there (systemd-sysusers(8)).

    `epoch` is the build's time in seconds: the day of the passwords' last change. Raises PackageError.
    """
    lines = [line for text in provides if (line := _read_provided(text, label))]
    # Groups first, so that a user's own group may have been given a number.
    for words in sorted(lines, key=lambda words: "gum".index(words[0])):
        if words[0] == "g":
            _add_group(root, words[1], _id(words))
        elif words[0] == "u":
            _add_user(root, words, epoch)
        else:
            _add_member(root, words[1], words[2])


def _read_provided(text: str, label: str) -> list[str] | None:
    """Return the words of a sysusers.d line that a Provides carries, None for a Provides of another kind."""
    match = _PROVIDED.fullmatch(text)
    if match is None or match["line"] is None:
        return None
    try:
        words = shlex.split(base64.b64decode(match["line"], validate=True).decode())
    except (binascii.Error, ValueError):
        words = []
    kind = words[0].rstrip("!") if words else ""
    names = words[1:3] if kind == "m" else words[1:2]
    if kind not in {"u", "g", "m"} or len(words) < 2 + (kind == "m") or not all(map(_NAME.fullmatch, names)):
        raise PackageError(label, f"{text} is no line of sysusers.d(5)")
    if any(":" in word or "\n" in word for word in words[3:]):
        raise PackageError(label, f"{text} would break {PASSWD}")
    return [kind, *words[1:]]


def _id(words: list[str]) -> str:
    return words[2] if len(words) > 2 else "-"


def _add_group(root: Inside, name: str, wanted: str) -> int:
    groups = _numbers(root, GROUP)
    if name.encode() in groups:
        return groups[name.encode()]
    number = int(wanted) if wanted.isdigit() else _free(groups.values(), _numbers(root, PASSWD).values())
    _append(root, GROUP, f"{name}:x:{number}:\n", 0o644)
    if root.exists(GSHADOW):
        _append(root, GSHADOW, f"{name}:!*::\n", 0)
    return number


def _add_user(root: Inside, words: list[str], epoch: int) -> None:
    name, wanted = words[1], _id(words)
    users = _numbers(root, PASSWD)
    if name.encode() in users:
        return
    user, _, group = wanted.partition(":")
    number = int(user) if user.isdigit() else _free(users.values(), _numbers(root, GROUP).values())
    if group and not group.isdigit():
        own = _numbers(root, GROUP).get(group.encode(), number)
    elif group:
        own = int(group)
    else:
        own = _add_group(root, name, str(number))
    text, home, shell = (_word(words, at, default) for at, default in ((3, ""), (4, "/"), (5, "/usr/sbin/nologin")))
    _append(root, PASSWD, f"{name}:x:{number}:{own}:{text}:{home}:{shell}\n", 0o644)
    if root.exists(SHADOW):
        _append(root, SHADOW, f"{name}:!*:{epoch // 86400}::::::\n", 0)


def _word(words: list[str], at: int, default: str) -> str:
    return words[at] if len(words) > at and words[at] != "-" else default


def _add_member(root: Inside, user: str, group: str) -> None:
    lines = (root.read(GROUP) or b"").decode("utf-8", "surrogateescape").splitlines()
    changed = []
    for line in lines:
        name, _, rest = line.partition(":")
        members = [member for member in rest.rpartition(":")[2].split(",") if member]
        if name == group and user not in members:
            changed.append(f"{line.rpartition(':')[0]}:{','.join([*members, user])}")
        else:
            changed.append(line)
    if changed != lines:
        root.write(GROUP, ("\n".join(changed) + "\n").encode("utf-8", "surrogateescape"))


def _numbers(root: Inside, path: str) -> dict[bytes, int]:
    """Return name -> number of passwd(5) or group(5); the first line of a name counts."""
    found: dict[bytes, int] = {}
    for line in (root.read(path) or b"").splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit():
            found.setdefault(fields[0], int(fields[2]))
    return found


def _free(*taken: Iterable[int]) -> int:
    used = {number for numbers in taken for number in numbers}
    return next(number for number in _SYSTEM if number not in used)


def _append(root: Inside, path: str, line: str, mode: int) -> None:
    status = root.status(path)
    text = root.read(path) or b""
    glue = b"" if not text or text.endswith(b"\n") else b"\n"
    root.write(path, text + glue + line.encode(), mode if status is None else status.st_mode & 0o7777)
