"""The functions of rpm's own table for Lua: programs, macros, versions, paths, compressed files (rpm's Lua manual).

What only a build needs is missing: hooks, `rpm.load` finds nothing, `rpm.interactive` has no terminal.
"""

from __future__ import annotations

import base64
import bz2
import glob
import gzip
import lzma
import os
import shlex
from collections.abc import Callable, Sequence
from typing import IO, Any

from rootfsbuild.formats.rpm.expand import expand_macros
from rootfsbuild.formats.rpm.lua_posix import LuaArgumentError, Value, integer, text
from rootfsbuild.formats.rpm.version import compare

_STANDARD = {b"stdin": 0, b"stdout": 1, b"stderr": 2}
_SEEK = {b"set": os.SEEK_SET, b"cur": os.SEEK_CUR, b"end": os.SEEK_END}


class SpawnError(OSError):
    """A program that was started and did not end well; it has the number of the signal or status."""


def rpm_functions(macros: dict[str, str], paths: Sequence[bytes] | None) -> dict[str, Callable[..., Value]]:
    """Return the table, each function by its name.

    `macros` is what is defined, and changes; `paths` are the lines of a file trigger, for `next_file`.
    """
    files = _Files()
    functions: dict[str, Callable[..., Value]] = {
        "b64decode": _decode,
        "b64encode": _encode,
        "define": lambda line: _define(macros, line),
        "execute": lambda *words: _spawn([text(word) for word in words], {}),
        "expand": lambda line: _expand(macros, line),
        "glob": _glob,
        "interactive": _interactive,
        "isdefined": lambda name: (_name(name) in macros, False),
        "load": lambda _path: -1,
        "spawn": lambda words, streams=None: _spawn_table(words, streams),
        "splitargs": lambda line: [word.encode("utf-8", "surrogateescape") for word in _split(line)],
        "undefine": lambda name: _undefine(macros, name),
        "unsplitargs": lambda words: shlex.join([os.fsdecode(word) for word in _items(words)]).encode(),
        "vercmp": lambda first, second: compare(_name(first), _name(second)),
        "file_open": files.open,
        "file_read": files.read,
        "file_write": files.write,
        "file_seek": files.seek,
        "file_flush": files.flush,
        "file_close": files.close,
    }
    if paths is not None:
        left = iter(paths)
        functions["next_file"] = lambda: next(left, None)
    return functions


class _Files:
    """The files that a script has opened with `rpm.open`, by numbers that it holds."""

    def __init__(self) -> None:
        self._open: dict[int, IO[bytes]] = {}

    def open(self, path: Value, mode: Value = b"r") -> int:
        flags, _, kind = text(mode).partition(b".")
        wanted = "".join(letter for letter in flags.decode("ascii", "replace") if letter in "rwax+") + "b"
        number = max(self._open, default=0) + 1
        self._open[number] = _open(text(path), wanted, kind.decode("ascii", "replace"))
        return number

    def read(self, number: Value, length: Value = -1) -> bytes:
        return self._open[integer(number)].read(-1 if length is None else integer(length))

    def write(self, number: Value, data: Value, length: Value = None) -> int:
        return self._open[integer(number)].write(text(data)[: None if length is None else integer(length)])

    def seek(self, number: Value, whence: Value = b"cur", offset: Value = 0) -> int:
        return self._open[integer(number)].seek(integer(offset or 0), _SEEK[text(whence or b"cur")])

    def flush(self, number: Value) -> int:
        self._open[integer(number)].flush()
        return 0

    def close(self, number: Value) -> int:
        file = self._open.pop(integer(number), None)
        if file is not None:
            file.close()
        return 0


def _open(path: bytes, mode: str, kind: str) -> IO[bytes]:
    openers: dict[str, Any] = {"gzdio": gzip.open, "bzdio": bz2.open, "xzdio": lzma.open, "lzdio": lzma.open}
    if kind in {"", "ufdio", "fdio", "fpio"}:
        return open(path, mode)  # the script closes it
    if kind not in openers:
        raise LuaArgumentError(f"{kind} is not known here")
    found: IO[bytes] = openers[kind](path, mode)
    return found


def _name(value: Value) -> str:
    return text(value).decode("utf-8", "surrogateescape")


def _items(table: Value) -> list[bytes]:
    """Return the words of a Lua table that is a list."""
    try:
        return [text(table[number]) for number in range(1, len(table) + 1)]
    except TypeError:
        raise LuaArgumentError("table expected") from None


def _split(line: Value) -> list[str]:
    try:
        return shlex.split(_name(line))
    except ValueError as error:
        raise LuaArgumentError(str(error)) from None


def _decode(value: Value) -> bytes | None:
    try:
        return base64.b64decode(b"".join(text(value).split()), validate=True)
    except ValueError:
        return None


def _encode(value: Value, width: Value = None) -> bytes:
    """Return base64 in lines, each with its end, of a width (64 if it is absent or negative); 0: without lines."""
    encoded = base64.b64encode(text(value))
    wanted = -1 if width is None else integer(width)
    step = 64 if wanted < 0 else wanted // 4 * 4
    if not step:
        return encoded
    return b"".join(encoded[at : at + step] + b"\n" for at in range(0, len(encoded), step))


def _define(macros: dict[str, str], line: Value) -> tuple[()]:
    name, _, body = _name(line).strip().partition(" ")
    if not name.isidentifier():
        raise LuaArgumentError("error defining macro")
    macros[name] = body.strip()
    return ()


def _undefine(macros: dict[str, str], name: Value) -> tuple[()]:
    macros.pop(_name(name), None)
    return ()


def _expand(macros: dict[str, str], line: Value) -> bytes:
    return expand_macros(_name(line), macros).encode("utf-8", "surrogateescape")


def _glob(pattern: Value, flags: Value = b"") -> list[bytes]:
    found = sorted(glob.glob(text(pattern)))
    return found or ([text(pattern)] if b"c" in text(flags or b"") else [])


def _interactive() -> None:
    raise LuaArgumentError("not a tty")


def _spawn_table(words: Value, streams: Value) -> int:
    return _spawn(_items(words), {} if streams is None else {key: text(value) for key, value in streams.items()})


def _spawn(words: list[bytes], streams: dict[bytes, bytes]) -> int:
    if not words:
        raise LuaArgumentError("command not supplied")
    if set(streams) - set(_STANDARD):
        raise LuaArgumentError("invalid spawn directive")
    actions = [
        (os.POSIX_SPAWN_OPEN, _STANDARD[name], path, _flags(name), 0o644)  # what rpm opens them with
        for name, path in streams.items()
    ]
    child = os.posix_spawnp(words[0], words, os.environb, file_actions=actions)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise SpawnError(abs(status), "exit signal" if status < 0 else "exit code")
    return 0


def _flags(stream: bytes) -> int:
    return os.O_RDONLY if stream == b"stdin" else os.O_WRONLY | os.O_APPEND | os.O_CREAT
