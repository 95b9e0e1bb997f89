"""Lua scriptlets, run by Lua itself (lupa) in a process inside the root, which needs no shell nor anything else there.

A script sees Lua's own libraries, rpm's `posix` and `rpm` tables (lua_posix, lua_rpm), `macros`, and `arg`: its
interpreter, then the numbers. `posix.fork`, `.exec` and `.wait`, which rpm 6 no longer has, work as in rpm 4: the
scriptlets of distributions that are current use them. Unlike in rpm, scripts share no globals with each other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rootfsbuild.formats.rpm.lua_posix import LuaArgumentError, Process, Value, posix_functions
from rootfsbuild.formats.rpm.lua_rpm import SpawnError, rpm_functions

_libc = ctypes.CDLL(None)

_PRELUDE = rb"""
local posix_functions, rpm_functions, forbidden, leave = ...
local pack, unpack = table.pack, table.unpack

local function wrap(call)
  return function(...)
    local answer = pack(call(...))
    if not answer[1] then error(answer[2], 2) end
    return unpack(answer, 2, answer.n)
  end
end
local function wrap_all(functions)
  local wrapped = {}
  for name, call in pairs(functions) do wrapped[name] = wrap(call) end
  return wrapped
end

posix = wrap_all(posix_functions)
posix.version = "posix library for " .. _VERSION
rpm = wrap_all(rpm_functions)
rpm.redirect2null = posix.redirect2null
os.exit = wrap(leave)

local iterate = posix.files
function posix.files(...)
  local call, message, number = iterate(...)
  if not call then return nil, message, number end
  local next_name = wrap(call)
  return function() return next_name() end
end

-- The C library's system and popen, as Lua has them where it knows of no POSIX, tell too little.
local run_shell, open_shell = posix.run_shell, posix.open_shell
posix.run_shell, posix.open_shell = nil, nil
function os.execute(command)
  if command == nil then return posix.access("/bin/sh", "x") ~= nil end
  return run_shell(command)
end
local open_file = io.open
function io.popen(command, mode)
  if mode and mode:sub(1, 1) ~= "r" then error("popen only reads here", 2) end
  local number, message, code = open_shell(command)
  if not number then return nil, message, code end
  return open_file("/proc/self/fd/" .. number, "r")
end

local opened = { open = rpm.file_open, read = rpm.file_read, write = rpm.file_write, seek = rpm.file_seek,
                 flush = rpm.file_flush, close = rpm.file_close }
for _, name in ipairs { "open", "read", "write", "seek", "flush", "close" } do rpm["file_" .. name] = nil end
local stream = {}
stream.__index = stream
stream.__gc = function(self) opened.close(self.number) end
function rpm.open(path, mode)
  local number, message = opened.open(path, mode or "r")
  if not number then error(message, 2) end
  return setmetatable({ number = number, path = path }, stream)
end
function stream:reopen(mode)
  opened.close(self.number)
  self.number = assert(opened.open(self.path, mode))
  return self
end
for _, name in ipairs { "read", "write", "seek", "flush", "close" } do
  stream[name] = function(self, ...) return assert(opened[name](self.number, ...)) end
end

local version = {}
version.__index = version
version.__tostring = function(self)
  return (self.e and self.e .. ":" or "") .. self.v .. (self.r and "-" .. self.r or "")
end
version.__eq = function(one, other) return rpm.vercmp(tostring(one), tostring(other)) == 0 end
version.__lt = function(one, other) return rpm.vercmp(tostring(one), tostring(other)) < 0 end
version.__le = function(one, other) return rpm.vercmp(tostring(one), tostring(other)) <= 0 end
function rpm.ver(e, v, r)
  if v then return setmetatable({ e = e and tostring(e), v = tostring(v), r = r and tostring(r) }, version) end
  local epoch, rest = e:match("^(%d+):(.*)$")
  rest = rest or e
  local name, release = rest:match("^(.*)-([^-]*)$")
  return setmetatable({ e = epoch, v = name or rest, r = release }, version)
end

macros = setmetatable({}, {
  __index = function(_, name) if rpm.isdefined(name) then return rpm.expand("%{" .. name .. "}") end end,
  __newindex = function(_, name, body)
    if body == nil then rpm.undefine(name) else rpm.define(name .. " " .. body) end
  end,
})

for _, place in ipairs { { io, "open" }, { io, "lines" }, { io, "input" }, { io, "output" }, { _G, "loadfile" } } do
  local library, name = place[1], place[2]
  local original = library[name]
  library[name] = function(path, ...)
    if type(path) == "string" and forbidden(path) then return nil, path .. ": Permission denied", 13 end
    return original(path, ...)
  end
end
function dofile(path) return assert(loadfile(path))() end

debug = { traceback = debug.traceback, getinfo = debug.getinfo }
package.path, package.cpath, package.loadlib = "/usr/lib/rpm/lua/?.lua", "", nil
python = nil
io.stdout:setvbuf("no")

return function(body, name, arguments, prefixes)
  arg, RPM_INSTALL_PREFIX = arguments, prefixes
  local chunk, problem = load("local opt, arg = {}, arg; " .. body, "=" .. name, "t")
  if not chunk then return false, "invalid syntax in lua script: " .. problem end
  local done, problem = pcall(chunk)
  return done, not done and "lua script failed: " .. tostring(problem) or ""
end
"""


@dataclass(frozen=True)
class LuaScript:
    """A scriptlet for Lua, ready to run."""

    name: str
    """What its messages begin with, a colon and the line behind it."""
    body: bytes
    arguments: tuple[Value, ...]
    """`arg`: the interpreter's words, then the numbers."""
    macros: Mapping[str, str]
    paths: tuple[bytes, ...] | None = None
    """What `rpm.next_file` returns one after the other."""
    prefixes: tuple[bytes, ...] = ()


Lua = Callable[[LuaScript], int]


def load_lua() -> Lua | None:
    """Import Lua, which must happen before the host's files are out of sight; None if it is not installed.

    What is returned runs a script in this process, for which it takes it over, and returns its exit status; what is
    wrong with the script goes to standard error with its line.
    """
    try:
        from lupa.lua54 import LuaRuntime  # noqa: PLC0415 - 15 ms, and only RPM distributions need it
    except ImportError:
        return None
    return lambda script: _run(LuaRuntime, script)


def _run(runtime_class: Any, script: LuaScript) -> int:
    process, pid = Process(), os.getpid()
    lua = runtime_class(
        encoding=None,
        unpack_returned_tuples=True,
        register_eval=False,
        register_builtins=False,
        attribute_filter=_no_attributes,
    )
    tables = [
        lua.table_from({name.encode(): _guard(lua, process, call) for name, call in functions.items()})
        for functions in (posix_functions(process), rpm_functions(dict(script.macros), script.paths))
    ]
    leave = _guard(lua, process, lambda status=0: _leave(process, status))
    main = lua.execute(_PRELUDE, *tables, _is_forbidden, leave)
    arguments = lua.table_from(list(script.arguments))
    prefixes = lua.table_from(list(script.prefixes)) if script.prefixes else None
    done, problem = main(script.body, script.name.encode("utf-8", "surrogateescape"), arguments, prefixes)
    if os.getpid() != pid:
        os.write(2, b"No exec() called after fork() in lua scriptlet\n")
        _leave(process, 1)
    # Files that the script has left open are Lua's own streams: only the C library knows what is still in them.
    _libc.fflush(None)
    if not done:
        os.write(2, problem + b"\n")
    return 0 if done else 1


def _guard(lua: Any, process: Process, call: Callable[..., Value]) -> Callable[..., tuple[Value, ...]]:
    """Return a function that answers (True, results) or (False, message), as no exception crosses Lua with its line."""

    def guarded(*arguments: Value) -> tuple[Value, ...]:
        try:
            return (True, *_for_lua(lua, process, call(*arguments)))
        except OSError as error:
            process.error = error.errno or 0
            return (True, None, _reason(error), process.error)
        except LuaArgumentError as error:
            return (False, str(error).encode())
        except (TypeError, ValueError, KeyError, EOFError) as error:
            return (False, f"bad argument: {error}".encode())

    return guarded


def _for_lua(lua: Any, process: Process, value: Value) -> tuple[Value, ...]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, list | dict):
        return (lua.table_from(value),)
    if callable(value):
        return (_guard(lua, process, value),)
    return (value,)


def _reason(error: OSError) -> bytes:
    why = (error.strerror or str(error)).encode()
    if isinstance(error, SpawnError) or error.filename is None or error.filename2 is not None:
        return why
    name = error.filename if isinstance(error.filename, bytes) else os.fsencode(str(error.filename))
    return name + b": " + why


def _leave(process: Process, status: Value) -> None:
    if not process.forked:
        raise LuaArgumentError("exit not permitted in this context")
    _libc.fflush(None)
    os._exit(int(status) if not isinstance(status, bool) else int(not status))


def _is_forbidden(path: bytes) -> bool:
    """Tell whether a path is this process's memory, which once was its caller's."""
    real = os.path.realpath(path)
    return real.startswith(b"/proc/") and os.path.basename(real) in {b"mem", b"environ"}


def _no_attributes(_value: object, _name: object, _setting: object) -> None:
    raise AttributeError("not for Lua")
