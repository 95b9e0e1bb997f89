"""dpkg's database, written as dpkg would have left it after unpacking (deb-control(5), dpkg(1) FILES)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rootfsbuild.rootfs.inside import Inside

ADMIN = "/var/lib/dpkg"
INFO = f"{ADMIN}/info"

_SCRIPTS = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})
_MULTI_ARCH_SAME = re.compile(rb"^Multi-Arch:[ \t]*same[ \t]*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Unpacked:
    """One package whose files lie in the root, with what its records need."""

    name: str
    architecture: str
    fields: bytes
    """Its control file, as shipped."""
    members: Mapping[str, tuple[bytes, int]]
    """The other members of control.tar: bytes and mode."""
    paths: Sequence[bytes]
    """Every path of the payload in archive order, absolute, the root as `/.`."""
    conffiles: Mapping[bytes, str]
    """MD5 of each conffile that the payload holds, by absolute path."""

    @property
    def record(self) -> str:
        """The stem of its files in info/: with the architecture for a Multi-Arch: same package only."""
        return f"{self.name}:{self.architecture}" if _MULTI_ARCH_SAME.search(self.fields) else self.name


def create_database(root: Inside, architecture: str) -> None:
    """Make the empty database that dpkg expects to find."""
    for directory in ("alternatives", "info", "parts", "triggers", "updates"):
        root.make_directory(f"{ADMIN}/{directory}")
    root.write(f"{ADMIN}/arch", f"{architecture}\n".encode())
    root.write(f"{ADMIN}/status", b"")
    root.write(f"{INFO}/format", b"1\n")


def record_unpacked(root: Inside, packages: Sequence[Unpacked]) -> None:
    """Record packages as `install ok unpacked`: status, info/*, trigger interests and activations."""
    for package in packages:
        _write_info(root, package)
    stanzas = b"".join(_stanza(package) for package in packages)
    root.write(f"{ADMIN}/status", stanzas, append=True)
    _record_interests(root, packages)
    _activate_file_triggers(root, packages)


def write_list(root: Inside, package: Unpacked) -> None:
    """Write which paths a package has; again when another one took some of them over (Debian Policy 7.6.1)."""
    root.write(f"{INFO}/{package.record}.list", b"".join(path + b"\n" for path in package.paths))


def _write_info(root: Inside, package: Unpacked) -> None:
    write_list(root, package)
    for member, (data, _) in package.members.items():
        root.write(f"{INFO}/{package.record}.{member}", data, 0o755 if member in _SCRIPTS else 0o644)
    if "md5sums" not in package.members:
        root.write(f"{INFO}/{package.record}.md5sums", b"".join(_md5sums(root, package)))


def _md5sums(root: Inside, package: Unpacked) -> Iterator[bytes]:
    # dpkg makes the file when a package ships none, and `dpkg --audit` complains where it is missing.
    for path in package.paths:
        status = root.status(os.fsdecode(path))
        if status is not None and stat.S_ISREG(status.st_mode):
            digest = hashlib.md5(root.read(os.fsdecode(path)) or b"", usedforsecurity=False).hexdigest()
            yield b"%s  %s\n" % (digest.encode(), path.lstrip(b"/"))


def _stanza(package: Unpacked) -> bytes:
    lines = [package.fields.strip(b"\n"), b"Status: install ok unpacked"]
    conffiles = [_conffile(package, line) for line in _conffile_lines(package)]
    if conffiles:
        lines += [b"Conffiles:", *conffiles]
    return b"\n".join(lines) + b"\n\n"


def _conffile_lines(package: Unpacked) -> list[bytes]:
    data, _ = package.members.get("conffiles", (b"", 0))
    return [line.strip() for line in data.splitlines() if line.strip()]


def _conffile(package: Unpacked, line: bytes) -> bytes:
    # A file that is not shipped has nothing to hash: `newconffile` is dpkg's own word for "decide when configuring".
    flag, path = _split_conffile(line)
    digest = package.conffiles.get(path, "newconffile").encode()
    return b" ".join((b"", path, digest, *([flag] if flag else [])))


def _split_conffile(line: bytes) -> tuple[bytes, bytes]:
    """Return the flag that may stand before the name (deb-conffiles(5)), and the name, which may hold blanks."""
    flag, _, path = line.partition(b" ")
    return (b"", line) if line.startswith(b"/") else (flag, path)


def _trigger_lines(package: Unpacked, verb: str) -> list[tuple[str, bool]]:
    data, _ = package.members.get("triggers", (b"", 0))
    found = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) == 2 and words[0].startswith(verb):
            found.append((words[1], words[0].endswith("-noawait")))
    return found


def _record_interests(root: Inside, packages: Sequence[Unpacked]) -> None:
    by_file: dict[str, list[str]] = {}
    for package in sorted(packages, key=lambda package: package.name):
        for trigger, noawait in _trigger_lines(package, "interest"):
            owner = package.record + ("/noawait" if noawait else "")
            if trigger.startswith("/"):
                by_file.setdefault("File", []).append(f"{trigger} {owner}\n")
            else:
                by_file.setdefault(trigger, []).append(f"{owner}\n")
    for name, lines in by_file.items():
        root.write(f"{ADMIN}/triggers/{name}", "".join(lines).encode("utf-8", "surrogateescape"), append=True)


def _activate_file_triggers(root: Inside, packages: Sequence[Unpacked]) -> None:
    # Only a package that is configured already can be triggered; dpkg drops the others by itself when it
    # incorporates this file, since configuring them does what their trigger would.
    interests = _file_interests(root)
    activated: dict[str, list[str]] = {}
    for package in packages:
        for trigger, noawait in interests:
            raw = trigger.encode("utf-8", "surrogateescape")
            if any(path == raw or path.startswith(raw + b"/") for path in package.paths):
                activated.setdefault(trigger, []).append("-" if noawait else package.record)
    if activated:
        lines = (f"{trigger} {' '.join(dict.fromkeys(by))}\n" for trigger, by in activated.items())
        root.write(f"{ADMIN}/triggers/Unincorp", "".join(lines).encode("utf-8", "surrogateescape"), append=True)


def _file_interests(root: Inside) -> list[tuple[str, bool]]:
    data = (root.read(f"{ADMIN}/triggers/File") or b"").decode("utf-8", "surrogateescape")
    pairs = (line.rsplit(" ", 1) for line in data.splitlines() if " " in line)
    return sorted({(path, owner.endswith("/noawait")) for path, owner in pairs})


def read_diversions(root: Inside) -> dict[bytes, tuple[str, bytes]]:
    """Return dpkg-divert's records: diverted path -> (package that diverts, where others' files go)."""
    lines = (root.read(f"{ADMIN}/diversions") or b"").split(b"\n")
    triples = zip(lines[0::3], lines[1::3], lines[2::3], strict=False)
    return {path: (owner.decode("utf-8", "replace"), target) for path, target, owner in triples if path}
