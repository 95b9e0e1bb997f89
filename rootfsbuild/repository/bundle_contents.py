"""What a bundle has to hold for its locks, no less and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootfsbuild.errors import BundleError
from rootfsbuild.repository.bundle_file import blob_path, signed_path
from rootfsbuild.repository.signed import document_sets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rootfsbuild.lock import Lock
    from rootfsbuild.plan import Snapshot
    from rootfsbuild.repository.bundle_file import Member

_NEW = "make the bundle again with rootfsbuild bundle"


def check_complete(file: str, locks: Mapping[str, Lock], members: Mapping[str, Member]) -> None:
    """Raise BundleError unless members (by name, all of those beside bundle.json) are what the locks ask for."""
    if not locks:
        raise BundleError(file, "holds no lock", hint=_NEW)
    _check_unlike(file, locks)
    asked = {f"locks/{name}" for name in locks}
    for name, lock in locks.items():
        for path, size, label in _blobs(lock):
            member = members.get(path)
            if member is None:
                raise BundleError(file, f"is missing: {label} of {name}", path, hint=_NEW)
            if member.size != size:
                problem = f"has {member.size} bytes, but {label} of {name} has {size}"
                raise BundleError(file, problem, path, hint=_NEW)
            asked.add(path)
        for snapshot in lock.plan.snapshots:
            asked.update(_documents(file, name, snapshot, members))
            asked.update(_keys(file, name, snapshot, members))
    for path in sorted(members.keys() - asked):
        raise BundleError(file, "is extra: no lock asks for it", path, hint=_NEW)


def labels(locks: Mapping[str, Lock]) -> dict[str, str]:
    """Return what people call each package and index: name in the bundle -> `libc6 2.36-9+deb12u4 (amd64)`."""
    return {path: label for lock in locks.values() for path, _, label in _blobs(lock)}


def _blobs(lock: Lock) -> Iterator[tuple[str, int, str]]:
    """Yield (name in the bundle, bytes, what it is) of all that one lock asks for by digest."""
    for package in lock.plan.packages:
        yield (
            blob_path(package.sha256),
            package.size,
            f"{package.name} {package.version} ({package.architecture})",
        )
    for snapshot in lock.plan.snapshots:
        for index in snapshot.indexes:
            yield blob_path(index.sha256), index.size, f"{index.path} of {snapshot.archive} {snapshot.suite}"


def _check_unlike(file: str, locks: Mapping[str, Lock]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for name, lock in sorted(locks.items()):
        what = lock.name, lock.plan.architecture
        if what in seen:
            problem = f"is of {lock.name} on {lock.plan.architecture}, as locks/{seen[what]} is"
            raise BundleError(file, problem, f"locks/{name}", hint="put one of them into another bundle")
        seen[what] = name


def _documents(file: str, name: str, snapshot: Snapshot, members: Mapping[str, Member]) -> list[str]:
    """Return the names of the documents that stand for a snapshot."""
    try:
        sets = [[signed_path(snapshot.sha256, path) for path in paths] for paths in document_sets(snapshot)]
    except ValueError as error:
        raise BundleError(file, f"names a suite that has no place: {error}", f"locks/{name}") from None
    for paths in sets:
        if all(path in members for path in paths):
            if members[paths[0]].sha256 != snapshot.sha256:
                problem = f"has the SHA-256 {members[paths[0]].sha256}: it is not the document that {name} names"
                raise BundleError(file, problem, paths[0], hint=_NEW)
            return paths
    begun = next((paths for paths in sets if paths[0] in members), sets[0])
    absent = next(path for path in begun if path not in members)
    problem = f"is missing: the signed document of {snapshot.archive} {snapshot.suite}, of {name}"
    raise BundleError(file, problem, absent, hint=_NEW)


def _keys(file: str, name: str, snapshot: Snapshot, members: Mapping[str, Member]) -> list[str]:
    """Return the names of the keys that a snapshot is verified with, as far as they are there."""
    keyring = f"keys/{snapshot.keyring}.pgp"
    signers = [f"keys/{signer}.pgp" for signer in snapshot.signers]
    if snapshot.signers and keyring not in members:
        absent = [path for path in signers if path not in members]
        if absent:
            problem = f"is missing: a key of {snapshot.archive} {snapshot.suite}, of {name}"
            raise BundleError(file, problem, keyring if len(absent) == len(signers) else absent[0], hint=_NEW)
    return [keyring, *signers]
