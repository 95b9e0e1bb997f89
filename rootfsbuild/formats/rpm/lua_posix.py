"""The functions of rpm's `posix` table for Lua, on the system calls of this process (rpm's Lua manual, lposix).

Strings are bytes. What cannot be done returns nil, a message and the error's number, as there; wrong arguments raise
LuaArgumentError. Users and groups are looked up in the root's own /etc/passwd and /etc/group by reading them: the C
library would load the root's modules into this process.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Value = Any
"""What Lua and Python hand each other: None, bool, int, float, bytes, a list or dict that becomes a table, or a tuple
of several results or none."""

_TYPES = {
    stat.S_IFREG: b"regular",
    stat.S_IFLNK: b"link",
    stat.S_IFDIR: b"directory",
    stat.S_IFCHR: b"character device",
    stat.S_IFBLK: b"block device",
    stat.S_IFIFO: b"fifo",
    stat.S_IFSOCK: b"socket",
}
_ACCESS = {" ": 0, "f": os.F_OK, "r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000}


class LuaArgumentError(Exception):
    """A function was called in a way that it does not have."""


@dataclass
class Process:
    """What the functions remember of this process."""

    forked: bool = False
    """Whether this is a child that a script has made: only there may it execute a program or exit."""
    error: int = 0
    """The last error's number."""


def posix_functions(process: Process) -> dict[str, Callable[..., Value]]:
    """Return the table, each function by its name; those that take options are called with the arguments given."""
    return {
        **{name: _answering(action) for name, action in _ACTIONS.items()},
        "access": _access,
        "chmod": lambda path, mode: _chmod(text(path), mode),
        "ctermid": lambda: b"/dev/tty",
        "dir": lambda path=b".": [b".", b"..", *os.listdir(text(path))],
        "errno": lambda: (os.strerror(process.error).encode(), process.error),
        "exec": lambda *words: _exec(process, words),
        "files": lambda path=b".": _iterate([b".", b"..", *os.listdir(text(path))]),
        "fork": lambda: _fork(process),
        "getcwd": os.getcwdb,
        "getenv": _getenv,
        "getgroup": _getgroup,
        "getlogin": lambda: None,
        "getpasswd": _getpasswd,
        "getpid": os.getpid,
        "getprocessid": _getprocessid,
        "open_shell": _open_shell,
        "putenv": _putenv,
        "readlink": lambda path: os.readlink(text(path)),
        "redirect2null": lambda number: _redirect_to_null(process, integer(number)),
        "run_shell": _run_shell,
        "setenv": _setenv,
        "stat": _stat,
        "ttyname": lambda _number=0: None,
        "umask": _umask,
        "uname": _uname,
        "unsetenv": _unsetenv,
        "utime": _utime,
        "wait": lambda pid=-1: os.waitpid(integer(pid), 0)[0],
    }


def _answering(action: Callable[..., None]) -> Callable[..., int]:
    """Return 0 for an action that only succeeds or fails; it takes no more arguments than it has."""
    most = action.__code__.co_argcount

    def answer(*arguments: Value) -> int:
        action(*arguments[:most])
        return 0

    return answer


def text(value: Value) -> bytes:
    """Return a string argument; Lua's numbers are strings too."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value).encode()
    raise LuaArgumentError("string expected")


def integer(value: Value) -> int:
    """Return a whole number; Lua's strings of digits are numbers too."""
    try:
        return int(value)
    except (TypeError, ValueError):
        raise LuaArgumentError("number expected") from None


def change_mode(mode: int, change: str) -> int:
    """Return a mode as `change` makes it: octal digits, nine letters such as `rwxr-xr-x`, or as for chmod(1)."""
    if change[:1].isdigit():
        return _octal(change)
    if len(change) == 9 and not set(change) - set("rwxs-"):
        return _spelled(change)
    for clause in change.replace(" ", "").split(","):
        mode = _clause(mode, clause)
    return mode


def spell_mode(mode: int) -> bytes:
    """Return the nine letters of a mode, without its type."""
    letters = stat.filemode(mode & 0o7777)[1:]
    return letters.replace("t", "x").replace("T", "-").encode()


def _octal(digits: str) -> int:
    try:
        return int(digits.partition(".")[0], 8) & 0o7777
    except ValueError:
        raise LuaArgumentError("bad mode") from None


def _spelled(letters: str) -> int:
    mode = 0
    for place, letter in enumerate(letters):
        if letter == "-":
            continue
        if letter == "s" and place in {2, 5}:
            mode |= 0o4100 if place == 2 else 0o2010
        elif letter == "rwx"[place % 3]:
            mode |= 0o400 >> place
        else:
            raise LuaArgumentError("bad mode")
    return mode


def _clause(mode: int, clause: str) -> int:
    who = len(clause) - len(clause.lstrip("ugoa"))
    operation, letters = clause[who : who + 1], clause[who + 1 :]
    if operation not in {"+", "-", "="} or set(letters) - set(_BITS):
        raise LuaArgumentError("bad mode")
    mask = 0
    for letter in clause[:who] or "a":
        mask |= _WHO[letter]
    bits = 0
    for letter in letters:
        bits |= _BITS[letter]
    bits &= mask
    if operation == "+":
        return mode | bits
    return mode & ~bits if operation == "-" else (mode & ~mask) | bits


def _access(path: Value, mode: Value = b"f") -> Value:
    wanted = 0
    for letter in text(mode).decode("utf-8", "replace"):
        if letter not in _ACCESS:
            raise LuaArgumentError(f"unknown mode option '{letter}'")
        wanted |= _ACCESS[letter]
    if os.access(text(path), wanted):
        return 0
    os.stat(text(path))
    raise PermissionError(13, os.strerror(13), text(path))


def _chmod(path: bytes, mode: Value) -> int:
    changed = change_mode(stat.S_IMODE(os.stat(path).st_mode), text(mode).decode("utf-8", "replace"))
    os.chmod(path, changed)
    return 0


def _exec(process: Process, words: tuple[Value, ...]) -> Value:
    if not process.forked:
        raise LuaArgumentError("exec not permitted in this context")
    command = [text(word) for word in words]
    os.execvp(command[0], command)  # noqa: S606 - what the function is for, inside the sandbox


def _run_shell(command: Value) -> Value:
    """Return what Lua's `os.execute` does: whether it ended well, how it ended, its status or signal."""
    child = os.posix_spawn("/bin/sh", [b"sh", b"-c", text(command)], os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return (True if status == 0 else None, b"exit" if status >= 0 else b"signal", abs(status))


def _open_shell(command: Value) -> int:
    """Run a command to its end; return a file with what it printed."""
    output = os.memfd_create("popen")
    actions = [(os.POSIX_SPAWN_DUP2, output, 1)]
    child = os.posix_spawn("/bin/sh", [b"sh", b"-c", text(command)], os.environ, file_actions=actions)
    os.waitpid(child, 0)
    return output


def _fork(process: Process) -> int:
    child = os.fork()
    if child == 0:
        process.forked = True
    return child


def _redirect_to_null(process: Process, number: int) -> int:
    if not process.forked:
        raise LuaArgumentError("redirect2null not permitted in this context")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
    return number


def _iterate(names: list[bytes]) -> Callable[[], bytes | None]:
    left = iter(names)
    return lambda: next(left, None)


def _getenv(name: Value = None) -> Value:
    return dict(os.environb) if name is None else os.environb.get(text(name))


def _putenv(assignment: Value) -> int:
    name, _, value = text(assignment).partition(b"=")
    os.environb[name] = value
    return 0


def _setenv(name: Value, value: Value, overwrite: Value = True) -> int:  # noqa: FBT002 - Lua's arguments have no names
    if overwrite is None or overwrite or text(name) not in os.environb:
        os.environb[text(name)] = text(value)
    return 0


def _unsetenv(name: Value) -> tuple[()]:
    os.environb.pop(text(name), None)
    return ()


def _database(path: str, fields: int) -> Iterator[list[bytes]]:
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in lines:
        row = line.split(b":")
        if len(row) >= fields and row[2].isdigit():
            yield row


def _find(path: str, fields: int, who: Value) -> list[bytes] | None:
    column, wanted = (2, b"%d" % int(who)) if isinstance(who, (int, float)) else (0, text(who))
    return next((row for row in _database(path, fields) if row[column] == wanted), None)


def _uid(user: Value) -> int:
    if isinstance(user, (int, float)):
        return int(user)
    row = _find("/etc/passwd", 7, user)
    return int(row[2]) if row else -1


def _gid(group: Value) -> int:
    if isinstance(group, (int, float)):
        return int(group)
    row = _find("/etc/group", 4, group)
    return int(row[2]) if row else -1


def _getpasswd(user: Value = None, selector: Value = None) -> Value:
    row = _find("/etc/passwd", 7, os.geteuid() if user is None else user)
    if row is None:
        return None
    name, password, uid, gid, gecos, home, shell = row[:7]
    return _select(
        selector,
        {
            "name": name,
            "uid": int(uid),
            "gid": int(gid),
            "dir": home,
            "shell": shell,
            "gecos": gecos,
            "passwd": password,
        },
    )


def _getgroup(group: Value) -> Value:
    row = _find("/etc/group", 4, group)
    if row is None:
        return None
    members = dict(enumerate((name for name in row[3].split(b",") if name), start=1))
    return {b"name": row[0], b"gid": int(row[2]), **members}


def _getprocessid(selector: Value = None) -> Value:
    return _select(
        selector,
        {
            "egid": os.getegid(),
            "euid": os.geteuid(),
            "gid": os.getgid(),
            "uid": os.getuid(),
            "pgrp": os.getpgrp(),
            "pid": os.getpid(),
            "ppid": os.getppid(),
        },
    )


def _stat(path: Value, selector: Value = None) -> Value:
    found = os.lstat(text(path))
    return _select(
        selector,
        {
            "mode": spell_mode(found.st_mode),
            "ino": found.st_ino,
            "dev": found.st_dev,
            "nlink": found.st_nlink,
            "uid": found.st_uid,
            "gid": found.st_gid,
            "size": found.st_size,
            "atime": int(found.st_atime),
            "mtime": int(found.st_mtime),
            "ctime": int(found.st_ctime),
            "type": _TYPES.get(stat.S_IFMT(found.st_mode), b"?"),
            "_mode": found.st_mode,
        },
    )


def _select(selector: Value, values: dict[str, Value]) -> Value:
    if selector is None:
        return {name.encode(): value for name, value in values.items()}
    name = text(selector).decode("utf-8", "replace")
    if name not in values:
        raise LuaArgumentError(f"invalid option '{name}'")
    return values[name]


def _umask(mode: Value = None) -> bytes:
    old = os.umask(0)
    allowed = ~old & 0o777
    if mode is not None:
        allowed = change_mode(allowed, text(mode).decode("utf-8", "replace")) & 0o777
    os.umask(~allowed & 0o777)
    return spell_mode(allowed)


def _uname(form: Value = b"%s %n %r %v %m") -> bytes:
    names = os.uname()
    values = {
        "%": "%",
        "s": names.sysname,
        "n": names.nodename,
        "r": names.release,
        "v": names.version,
        "m": names.machine,
    }
    pieces = text(form).decode("utf-8", "replace").split("%")
    if any(piece[:1] not in values for piece in pieces[1:] if piece):
        raise LuaArgumentError("unknown format option")
    return (pieces[0] + "".join(values[piece[0]] + piece[1:] for piece in pieces[1:] if piece)).encode()


def _utime(path: Value, modified: Value = None, accessed: Value = None) -> int:
    now = int(time.time())
    times = (now if accessed is None else integer(accessed), now if modified is None else integer(modified))
    os.utime(text(path), times)
    return 0


_ACTIONS: dict[str, Callable[..., None]] = {
    "chdir": lambda path: os.chdir(text(path)),
    "chown": lambda path, user=-1, group=-1: os.chown(text(path), _uid(user), _gid(group)),
    "kill": lambda pid, number=15: os.kill(integer(pid), integer(number)),
    "link": lambda old, new: os.link(text(old), text(new), follow_symlinks=False),
    "mkdir": lambda path: os.mkdir(text(path), 0o777),
    "mkfifo": lambda path: os.mkfifo(text(path), 0o777),
    "rename": lambda old, new: os.rename(text(old), text(new)),
    "rmdir": lambda path: os.rmdir(text(path)),
    "setgid": lambda group: os.setgid(_gid(group)),
    "setuid": lambda user: os.setuid(_uid(user)),
    "sleep": lambda seconds: time.sleep(integer(seconds)),
    "symlink": lambda old, new: os.symlink(text(old), text(new)),
    "unlink": lambda path: os.unlink(text(path)),
}
