"""Decide, once every package has been laid, what the plan's order would have left where several met.

Which process came first is chance; the plan's order is not. dpkg, unpacking one package after the other,
lets a later package take over a path from one that it Replaces, keeps the earlier package's if that one
Replaces the later, and refuses otherwise (Debian Policy 7.6); the loser's list no longer names the path.
A directory that several packages ship has the mode, owner and time that the first of them gives it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from rootfsbuild.errors import FileConflictError, PackageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from rootfsbuild.rootfs.lay import Traces


class MayReplace(Protocol):
    """Whether one of two packages may have a file of both (deb: by Replaces, Debian Policy 7.6.1)."""

    def __call__(self, *, loser: str, winner: str, path: bytes) -> bool:
        """Answer for two packages by their names, and the file's path as in Entry."""
        ...


_HINT = "report it to the distribution, or exclude one of the two packages"


@dataclass
class Settlement:
    """What is left to do inside the root, and what it means for the packages."""

    unlink: list[bytes] = field(default_factory=list)
    rmdir: list[bytes] = field(default_factory=list)
    rename: list[tuple[bytes, bytes]] = field(default_factory=list)
    directories: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(canonical path, `mode:uid:gid:mtime`)."""
    taken: dict[str, set[bytes]] = field(default_factory=dict)
    """Package → its paths that belong to another one now."""


def settle(
    earlier: Sequence[tuple[str, Traces]],
    laid: Sequence[tuple[str, Traces]],
    may_replace: MayReplace,
    touched: int | None,
) -> Settlement:
    """Return what turns the tree as laid into the tree as planned; both sequences are in plan order.

    `earlier` are packages that lay in the root before, and settled: they only take part in conflicts.
    `touched` is the time, in ns, for directories into which anything but a directory was laid (dpkg leaves
    the moment of unpacking there); with None they too have the time that their first package gives them.
    Raises FileConflictError, the same whichever package came first.
    """
    result = Settlement()
    everyone = (*earlier, *laid)
    collided = {where for _, traces in laid for _, where, _ in traces.collisions}
    if collided:
        _judge(everyone, collided, may_replace, result)
    result.directories = _dated(earlier, laid, touched)
    return result


def at_rest(package: str, traces: Traces, diverted: Mapping[bytes, tuple[str, bytes]]) -> Traces:
    """Return the traces of a settled package, its files where diversions made since have moved them."""
    moved = dict(traces.moved)
    for path in traces.paths if diverted else ():
        if not path.endswith(b"/"):
            diverter, target = diverted.get(canonical(traces, path), (package, b""))
            if diverter != package:
                moved[path] = target
    return replace(traces, moved=moved, collisions=[])


def without(traces: Traces, paths: AbstractSet[bytes]) -> Traces:
    """Return the traces of a package that lost `paths`, none of them a directory, to others."""
    digests = {path: digest for path, digest in traces.digests.items() if path not in paths}
    return replace(traces, paths=[path for path in traces.paths if path not in paths], digests=digests)


def canonical(traces: Traces, path: bytes) -> bytes:
    """Return where a package's path, not a directory, was wanted."""
    if path in traces.moved:
        return traces.moved[path]
    head, slash, name = path.rpartition(b"/")
    return traces.aliases.get(head, head) + slash + name if slash else path


def is_in_plan_order(laid: Sequence[tuple[str, Traces]]) -> bool:
    """Tell whether directories and what stood in their way met as they would have in plan order.

    A path may be a symlink in one package and a directory in another. Then the first of the two decides (Debian
    Policy 6.6), and where chance decided otherwise, nothing that was laid below that path is where it belongs.
    """
    linked = {where: rank for rank, (_, traces) in enumerate(laid) for where in traces.links}
    for rank, (_, traces) in enumerate(laid):
        if traces.clash or any(linked.get(where, -1) > rank for where in traces.followed):
            return False
        if any(_first_with_directory(laid, where) > rank for where in traces.yielded):
            return False
    return True


def undo(laid: Sequence[tuple[str, Traces]]) -> Settlement:
    """Return what takes packages back that were laid and not settled."""
    result = Settlement()
    for _, traces in laid:
        aside = {path: temp for path, _, temp in traces.collisions}
        absent = set(traces.absent)
        files = (path for path in traces.paths if not path.endswith(b"/") and path not in absent)
        result.unlink += [aside.get(path) or canonical(traces, path) for path in files]
    result.rmdir = sorted((where for _, traces in laid for where in traces.made), reverse=True)
    return result


def refuse_clashes(laid: Sequence[tuple[str, Traces]]) -> None:
    """Raise FileConflictError for a directory where an earlier package has something else, PackageError for others."""
    for rank, (package, traces) in enumerate(laid):
        if not traces.clash:
            continue
        for other, other_traces in laid[:rank]:
            files = (path for path in other_traces.paths if not path.endswith(b"/"))
            if any(canonical(other_traces, path) == traces.clash for path in files):
                raise _conflict(traces.clash, other, package)
        raise PackageError(package, "a directory where the root has something else", os.fsdecode(traces.clash))


def carry_out(settlement: Settlement) -> None:
    """Do what was decided, below the current directory: for the confined process only."""
    for path in settlement.unlink:
        os.unlink(path)
    for path in settlement.rmdir:
        os.rmdir(path)
    for source, target in settlement.rename:
        os.rename(source, target)
    for path, wanted in settlement.directories:
        _set_directory(path or b".", wanted)


def _set_directory(path: bytes, wanted: bytes) -> None:
    octal, uid, gid, mtime = wanted.split(b":")
    mode, owner, time = int(octal, 8), (int(uid), int(gid)), int(mtime)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return  # excluded, and nothing below it was wanted
    if not stat.S_ISDIR(found.st_mode):
        return
    if (found.st_uid, found.st_gid) != owner:
        os.chown(path, *owner, follow_symlinks=False)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)
    os.utime(path, ns=(time, time), follow_symlinks=False)


def _judge(
    laid: Sequence[tuple[str, Traces]], collided: set[bytes], may_replace: MayReplace, result: Settlement
) -> None:
    aside = {(rank, path): temp for rank, (_, traces) in enumerate(laid) for path, _, temp in traces.collisions}
    for where, claims in sorted(_claims(laid, collided).items()):
        owner = claims[0]
        for claim in claims[1:]:
            loser, winner = _duel(where, laid, owner, claim, may_replace)
            owner = winner
            result.taken.setdefault(laid[loser[0]][0], set()).add(loser[1])
        temps = [(claim, aside[claim]) for claim in claims if claim in aside]
        result.unlink += [temp for claim, temp in temps if claim != owner]
        result.rename += [(temp, where) for claim, temp in temps if claim == owner]


def _claims(laid: Sequence[tuple[str, Traces]], collided: set[bytes]) -> dict[bytes, list[tuple[int, bytes]]]:
    """Return, for each contested path, (rank, path as written) of all who want it, in plan order."""
    claims: dict[bytes, list[tuple[int, bytes]]] = {where: [] for where in collided}
    for rank, (package, traces) in enumerate(laid):
        absent = set(traces.absent)
        for path in traces.paths:
            if path.endswith(b"/"):
                written = path[:-1]
                where = traces.aliases.get(written, written)
                if where in collided:
                    raise _directory_conflict(laid, rank, where)
            elif path not in absent and (where := canonical(traces, path)) in collided:
                if any(other == rank for other, _ in claims[where]):
                    raise PackageError(package, "the same file under two names", os.fsdecode(path))
                claims[where].append((rank, path))
    return claims


def _duel(
    where: bytes,
    laid: Sequence[tuple[str, Traces]],
    earlier: tuple[int, bytes],
    later: tuple[int, bytes],
    may_replace: MayReplace,
) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    first, second = laid[earlier[0]][0], laid[later[0]][0]
    if may_replace(loser=first, winner=second, path=where):
        return earlier, later
    if may_replace(loser=second, winner=first, path=where):
        return later, earlier
    raise _conflict(where, first, second)


def _first_with_directory(laid: Sequence[tuple[str, Traces]], where: bytes) -> int:
    for rank, (_, traces) in enumerate(laid):
        if where in traces.made or any(where == found for found, _ in _directories(traces)):
            return rank
    return -1


def _directories(traces: Traces) -> list[tuple[bytes, bytes]]:
    """Return (canonical path, metadata) of each directory entry."""
    written = [path[:-1] for path in traces.paths if path.endswith(b"/")]
    return [
        (traces.aliases.get(path, path), metadata) for path, metadata in zip(written, traces.directories, strict=True)
    ]


def _directory_conflict(laid: Sequence[tuple[str, Traces]], rank: int, where: bytes) -> FileConflictError:
    for other, (_, traces) in enumerate(laid):
        if any(where == taken for _, taken, _ in traces.collisions):
            first, second = sorted((rank, other))
            return _conflict(where, laid[first][0], laid[second][0])
    return _conflict(where, laid[rank][0], laid[rank][0])


def _conflict(where: bytes, first: str, second: str) -> FileConflictError:
    return FileConflictError("/" + os.fsdecode(where), first, second, hint=_HINT)


def _dated(
    earlier: Sequence[tuple[str, Traces]], laid: Sequence[tuple[str, Traces]], touched: int | None
) -> list[tuple[bytes, bytes]]:
    wanted: dict[bytes, bytes] = {}
    filled: set[bytes] = set()
    for _, traces in laid:
        for where, metadata in _directories(traces):
            wanted.setdefault(where, metadata)
        if touched is not None:
            files = (path for path in traces.paths if not path.endswith(b"/"))
            filled.update(canonical(traces, path).rpartition(b"/")[0] for path in files)
    # What an earlier package made is as its scripts left it.
    for _, traces in earlier:
        for where, _metadata in _directories(traces):
            wanted.pop(where, None)
    return [(where, _touch(metadata, touched) if where in filled else metadata) for where, metadata in wanted.items()]


def _touch(metadata: bytes, time: int | None) -> bytes:
    return metadata.rpartition(b":")[0] + b":%d" % (time or 0)
