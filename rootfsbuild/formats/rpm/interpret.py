"""The inner side of a scriptlet: a process of the sandbox that becomes its interpreter, or is Lua itself.

It is told everything by what stands in its standard input (`encode`), so that a script's text, its arguments and what
it shall read need no place in the root. rpm's own temporary file of a script is in /var/tmp, which may not exist yet;
ours is in the sandbox's /tmp, which is gone with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rootfsbuild.formats.rpm.expand import default_macros
from rootfsbuild.formats.rpm.lua import Lua, LuaScript, load_lua
from rootfsbuild.formats.rpm.scriptlets import LUA
from rootfsbuild.rootfs.supervisor import Builtin
from rootfsbuild.rootfs.worker import pack, unpack

SCRIPTLET = "rpm-scriptlet"
"""The name under which a sandbox has it as a command; behind it stands what ps and errors shall show."""

_FILE = "/tmp/rpm-tmp.scriptlet"
_NOT_RUN = 127


@dataclass(frozen=True)
class Job:
    """What to run."""

    name: str
    """What Lua's messages begin with."""
    program: tuple[bytes, ...]
    body: bytes | None
    arguments: tuple[int, ...]
    paths: tuple[bytes, ...] | None
    architecture: str
    prefixes: tuple[bytes, ...] = ()


def encode(job: Job) -> bytes:
    """Return a job as bytes."""
    return pack(
        (
            job.name.encode("utf-8", "surrogateescape"),
            pack(job.program),
            b"" if job.body is None else b"=" + job.body,
            pack([b"%d" % number for number in job.arguments]),
            b"" if job.paths is None else b"=" + pack(job.paths),
            job.architecture.encode("utf-8", "surrogateescape"),
            pack(job.prefixes),
        )
    )


def decode(data: bytes) -> Job:
    """Return what `encode` was given."""
    name, program, body, arguments, paths, architecture, prefixes = unpack(data)
    return Job(
        name.decode("utf-8", "surrogateescape"),
        tuple(unpack(program)),
        body[1:] if body else None,
        tuple(int(number) for number in unpack(arguments)),
        tuple(unpack(paths[1:])) if paths else None,
        architecture.decode("utf-8", "surrogateescape"),
        tuple(unpack(prefixes)),
    )


def load_interpreter() -> Builtin:
    """Import what running scriptlets needs; return the command for a sandbox."""
    lua = load_lua()
    return lambda _words: _interpret(lua)


def _interpret(lua: Lua | None) -> int:
    with open(0, "rb", closefd=False) as file:
        job = decode(file.read())
    _set_input(b"".join(path + b"\n" for path in job.paths or ()))
    if job.program[0] != LUA:
        return _execute(job)
    if lua is None:
        os.write(2, b"Lua is not installed\n")
        return _NOT_RUN
    macros = default_macros(job.architecture)
    arguments = (*job.program, *job.arguments)
    return lua(LuaScript(job.name, job.body or b"", arguments, macros, job.paths, job.prefixes))


def _execute(job: Job) -> int:
    command = list(job.program)
    if job.body is not None:
        _write(job.body)
        command += [os.fsencode(_FILE), *(b"%d" % number for number in job.arguments)]
    try:
        os.execv(command[0], command)  # noqa: S606 - what this process is for
    except OSError as error:
        why = f"cannot run {os.fsdecode(command[0])}: {error.strerror}\n"
        os.write(2, why.encode("utf-8", "surrogateescape"))
    return _NOT_RUN


def _write(body: bytes) -> None:
    if os.path.lexists(_FILE):
        os.unlink(_FILE)
    descriptor = os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(body)


def _set_input(data: bytes) -> None:
    descriptor = os.memfd_create("stdin", 0) if data else os.open(os.devnull, os.O_RDONLY)
    with open(descriptor, "r+b" if data else "rb", buffering=0) as file:
        if data:
            file.write(data)
            file.seek(0)
        os.dup2(descriptor, 0)
