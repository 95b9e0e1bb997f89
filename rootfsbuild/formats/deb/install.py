"""Packages into a root: files laid down, database written, maintainer scripts run, a wave at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rootfsbuild.errors import PackageError, UnsatisfiableError
from rootfsbuild.events import StageEnded, StageStarted
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.formats.deb.database import Unpacked, read_diversions, record_unpacked, write_list
from rootfsbuild.formats.deb.relations import parse_relations
from rootfsbuild.formats.deb.scripts import configure, run_preinsts
from rootfsbuild.formats.deb.version import satisfies
from rootfsbuild.formats.format import Blob, Ground
from rootfsbuild.plan import Package, Plan
from rootfsbuild.rootfs.excluded import make_excluder
from rootfsbuild.rootfs.extract import Job, Laid, extract_packages
from rootfsbuild.rootfs.inside import Inside, edit_root
from rootfsbuild.rootfs.lay import Rules

Diversions = Mapping[bytes, tuple[str, bytes]]

# A package's files may exceed its Installed-Size, which counts in KiB and rounds per file, but not by much.
_SLACK = 64 << 20
_FACTOR = 4


def split_waves(plan: Plan, blobs: Mapping[str, str]) -> tuple[tuple[Package, ...], ...]:
    """Split what comes after the base into as few groups as Pre-Depends allows.

    A package whose preinst runs before its files are laid down needs its Pre-Depends configured by then
    (Debian Policy 7.2); without a preinst nothing of it runs that early. A group is configured before the next is
    unpacked, so that none may depend on a later one.
    """
    later = [package for package in plan.packages if package.wave > 0]
    early = {package.name for package in later if package.pre_depends and _has_preinst(package, blobs[package.name])}
    levels = {package.name: min(package.wave, 1) for package in plan.packages}
    for _ in later:  # more rounds than packages would need a cycle that no order meets
        before = dict(levels)
        for package in later:
            behind = package.pre_depends if package.name in early else ()
            levels[package.name] = max(
                [
                    levels[package.name],
                    *(levels.get(name, 0) for name in package.depends),
                    *(1 + levels.get(name, 0) for name in behind),
                ]
            )
        if levels == before:
            break
    groups = [
        tuple(package for package in plan.packages if levels[package.name] == level)
        for level in range(1, max(levels.values(), default=0) + 1)
    ]
    return tuple(group for group in groups if group)


def install_base(ground: Ground, blobs: Iterable[Blob]) -> Mapping[str, Laid]:
    """Install into an empty root, where no script can run before the files of all are there.

    Returns what each package left. Raises PackageError, FileConflictError, ScriptError or StorageError.
    """
    laid = _unpack(ground, blobs, {}, {})
    unpacked = _as_unpacked(ground.plan, laid)
    with edit_root(ground.root) as inside:
        _require_dpkg(inside)
        record_unpacked(inside, unpacked)
        ground.extracted()
        run_preinsts(inside, _base_first(unpacked), ground.run, _dpkg_version(ground.plan))
    _configure(ground, len(unpacked))
    return laid


def _require_dpkg(inside: Inside) -> None:
    if not any(inside.exists(f"{folder}/dpkg") for folder in ("/usr/bin", "/usr/sbin", "/bin", "/sbin")):
        raise UnsatisfiableError(
            "a root without dpkg",
            ("nothing in it could configure its packages",),
            hint='variant = "essential", or include dpkg and what its scripts need; --dry-run shows the plan as it is',
        )


def install_more(ground: Ground, blobs: Iterable[Blob], earlier: Mapping[str, Laid]) -> Mapping[str, Laid]:
    """Add packages to a root that works: preinsts, files, postinsts, as dpkg does it.

    `earlier` is what all packages so far left; returned is that with the new ones. Raises as `install_base`.
    """
    blobs = list(blobs)
    controls = [_read_control(package, path) for package, path in blobs]
    with edit_root(ground.root) as inside:
        run_preinsts(inside, controls, ground.run, _dpkg_version(ground.plan))
        diversions = read_diversions(inside)
    laid = _unpack(ground, blobs, diversions, earlier)
    unpacked = _as_unpacked(ground.plan, {name: laid[name] for name in laid if name not in earlier})
    losers = _as_unpacked(ground.plan, {name: laid[name] for name in laid if name in earlier})
    with edit_root(ground.root) as inside:
        record_unpacked(inside, unpacked)
        for loser in losers:
            write_list(inside, loser)
    _configure(ground, len(unpacked))
    return {**earlier, **laid}


def _configure(ground: Ground, count: int) -> None:
    ground.report(StageStarted("configure", count, "packages"))
    ground.idle()
    configure(ground.run)
    ground.report(StageEnded("configure"))


def _has_preinst(package: Package, path: str) -> bool:
    return "preinst" in _read_control(package, path).members


def _base_first(unpacked: Sequence[Unpacked]) -> list[Unpacked]:
    # base-passwd's preinst writes the passwd and group files that other scripts look users up in.
    return sorted(unpacked, key=lambda package: package.name != "base-passwd")


def _dpkg_version(plan: Plan) -> str:
    return next((package.version for package in plan.packages if package.name == "dpkg"), "1.21.0")


def _read_control(package: Package, path: str) -> Unpacked:
    control = open_deb(path, package.name).control
    _check_identity(package, control.fields)
    return Unpacked(package.name, package.architecture, control.fields, control.files, (), {})


def _unpack(
    ground: Ground, blobs: Iterable[Blob], diversions: Diversions, earlier: Mapping[str, Laid]
) -> dict[str, Laid]:
    packages = {package.name: package for package in ground.plan.packages}

    def may_replace(*, loser: str, winner: str, path: bytes) -> bool:
        del path  # Replaces is about packages as a whole
        return _may_replace(packages[winner], packages[loser])

    return extract_packages(
        ground.root,
        (Job(path, package.name, _limit(package)) for package, path in blobs),
        open_deb,
        order=tuple(packages),
        rules=Rules(
            _follow_links(diversions, ground.image.usr_links),
            make_excluder(ground.image.path_exclude, ground.image.path_keep),
        ),
        may_replace=may_replace,
        earlier=earlier,
        report=ground.report,
    )


def _as_unpacked(plan: Plan, laid: Mapping[str, Laid]) -> list[Unpacked]:
    packages = {package.name: package for package in plan.packages}
    for name, found in laid.items():
        _check_identity(packages[name], found.control.fields)
    return [
        Unpacked(
            name, packages[name].architecture, found.control.fields, found.control.files, found.paths, found.digests
        )
        for name, found in laid.items()
    ]


def _follow_links(diversions: Diversions, usr_links: Sequence[str]) -> Diversions:
    """Rewrite dpkg-divert's paths, which it keeps as written, to where the files really lie."""
    links = {name.encode() for name in usr_links}

    def real(path: bytes) -> bytes:
        first, _, rest = path.lstrip(b"/").partition(b"/")
        return b"usr/%s/%s" % (first, rest) if first in links and rest else path.lstrip(b"/")

    return {real(path): (owner, real(target)) for path, (owner, target) in diversions.items()}


def _limit(package: Package) -> int:
    return package.installed_size * _FACTOR + _SLACK


def _check_identity(package: Package, fields: bytes) -> None:
    """Refuse a package that is not the one its index promised, however well its hash fits."""
    for name, promised in (
        ("Package", package.name),
        ("Version", package.version),
        ("Architecture", package.architecture),
    ):
        found = re.search(rf"^{name}:[ \t]*(\S+)".encode(), fields, re.MULTILINE | re.IGNORECASE)
        said = found[1].decode("utf-8", "replace") if found else ""
        if said != promised:
            raise PackageError(
                package.name, f"its control file says {name} {said!r}, the index {promised!r}", "control"
            )


def _may_replace(winner: Package, loser: Package) -> bool:
    """Say whether `winner` declares Replaces on `loser` at its version (Debian Policy 7.6.1)."""
    return any(
        option.name == loser.name and (not option.operator or satisfies(loser.version, option.operator, option.version))
        for relation in parse_relations("Replaces", winner.field("Replaces"))
        for option in relation.alternatives
    )
