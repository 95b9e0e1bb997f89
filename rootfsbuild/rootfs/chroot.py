"""Commands that a user runs in a finished root, in the sandbox that builds use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootfsbuild.errors import TargetError, UsageError
from rootfsbuild.rootfs.mounts import Bind
from rootfsbuild.rootfs.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("TERM", "COLORTERM", "NO_COLOR")
"""What describes the terminal and nothing else of the host."""
_SHELLS = (("/bin/bash", "-l"), ("/bin/sh", "-l"))
_TAKEN = ("/proc", "/sys")


def run_in_root(
    root: str,
    argv: Sequence[str] = (),
    *,
    binds: Sequence[Bind] = (),
    network: bool = False,
    environment: Mapping[str, str] | None = None,
    overlays: Mapping[str, tuple[bytes, int]] | None = None,
    privileged: bool = False,
) -> int:
    """Run a command (a login shell if none is given) in `root` on the caller's terminal.

    Of `environment` only what describes the terminal is passed on. With `network` the host's resolv.conf,
    and its hosts file where the root has none, are shown read-only; nothing of them stays in the root.
    Returns the exit status; 127 if there is no such command, 128 + n if signal n ended it. Raises HostError,
    PackageError, TargetError or UsageError.
    """
    real = os.path.realpath(root)
    if not os.path.isdir(real):
        raise TargetError(root, "is not a directory that holds a root", hint="build one: rootfsbuild RECIPE")
    if real == "/":
        raise TargetError(root, "is this machine's own root")
    sandbox = Sandbox(
        real,
        _environment(environment or {}),
        network=network,
        nosync=False,
        binds=tuple(binds),
        overlays={**(_resolver_files(real) if network else {}), **(overlays or {})},
        privileged=privileged,
    )
    commands = (tuple(argv),) if argv else _SHELLS
    return sandbox.interactive(commands[0], or_else=commands[1:])


def parse_bind(word: str) -> Bind:
    """Read `SRC`, `SRC:DST` or `SRC:DST:ro`; without DST it is shown under its own absolute path."""
    parts = word.split(":")
    writable = not (len(parts) == 3 and parts[2] == "ro")
    if len(parts) > 3 or (len(parts) == 3 and writable) or not all(parts):
        raise UsageError(f"--bind {word}: expected SRC, SRC:DST or SRC:DST:ro")
    source = os.path.abspath(parts[0])
    target = parts[1] if len(parts) > 1 else source
    if not target.startswith("/"):
        raise UsageError(f"--bind {word}: {target} is not an absolute path inside the root")
    target = os.path.normpath("/" + target.lstrip("/"))
    if target == "/" or any(target == taken or target.startswith(f"{taken}/") for taken in _TAKEN):
        raise UsageError(f"--bind {word}: {target} is the sandbox's own")
    if not os.path.exists(source):
        raise UsageError(f"--bind {word}: {source} does not exist")
    return Bind(source, target, writable=writable)


def _environment(host: Mapping[str, str]) -> dict[str, str]:
    kept = {name: host[name] for name in _KEPT if name in host}
    login = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8", "PATH": _PATH}
    return {"TERM": "dumb", **kept, **login}


def _resolver_files(root: str) -> dict[str, tuple[bytes, int]]:
    """Return the host's files by which names are resolved, for the session only."""
    wanted = ["/etc/resolv.conf"]
    if not os.path.lexists(os.path.join(root, "etc/hosts")):
        wanted.append("/etc/hosts")
    found = {}
    for path in wanted:
        try:
            with open(path, "rb") as file:
                found[path] = (file.read(), 0o644)
        except OSError:
            continue  # a host without one: then there is nothing to show
    return found
