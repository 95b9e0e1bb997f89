"""From a recipe to its plan: read from a lock that fits, or resolved from what the archives say now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rootfsbuild.distro import Archive
from rootfsbuild.errors import BundleError, RecipeError, StaleLockError
from rootfsbuild.events import Event, Notice, Report, StageEnded, StageStarted, Warned
from rootfsbuild.formats import FORMATS
from rootfsbuild.formats.format import Blob, Format
from rootfsbuild.lock import Lock, check_fits, load_lock, lock_path
from rootfsbuild.plan import Package, Plan, Request
from rootfsbuild.recipe import Recipe
from rootfsbuild.recipe_identity import identify
from rootfsbuild.repository.fetch import Fetch, Wanted
from rootfsbuild.repository.kept import KeptFirst
from rootfsbuild.repository.mirrors import Mirror, find_mirrors, past_url
from rootfsbuild.repository.offline import StoreFetch
from rootfsbuild.repository.sources import ANY_MOMENT, CARRIED, Sources
from rootfsbuild.repository.store import Store, default_cache_dir
from rootfsbuild.settings import Settings

if TYPE_CHECKING:
    from rootfsbuild.repository.bundle import Bundle


@dataclass(frozen=True)
class Planned:
    """A plan and where it came from."""

    plan: Plan
    lock: str = ""
    """The lock that it was read from; empty if it was resolved."""
    keep: Callable[[], None] = lambda: None
    """Writes down what was read of the indexes, for the next call; some work, that can be done at any time."""


def format_of(recipe: Recipe) -> Format[Any]:
    """Return the functions of a recipe's package format."""
    return FORMATS[recipe.format]


def find_plan(recipe: Recipe, sources: Sources, settings: Settings, report: Report) -> Planned:
    """Return the plan of the recipe's lock if there is one that fits, else what the archives come to now.

    Raises RecipeError, IntegrityError or StaleLockError for a lock that was asked for and cannot be used, and what
    `resolve` raises.
    """
    lock = _find_lock(recipe, sources.bundle, settings, report)
    if lock is None:
        return resolve(recipe, sources, settings, report)
    file, found = lock
    if sources.bundle is not None:
        # Whoever carried it could have changed it: here the signatures are all there is to believe.
        report(StageStarted("metadata"))
        format_of(recipe).prove(found.plan, sources, report)
        report(StageEnded("metadata"))
    said = settings.environ.get("SOURCE_DATE_EPOCH", "")
    if said and said != str(found.plan.epoch):
        report(Warned(f"SOURCE_DATE_EPOCH is not used: {file} says {found.plan.epoch}"))
    report(Notice(f"{file}: {len(found.plan.packages)} packages"))
    return Planned(found.plan, file)


def resolve(recipe: Recipe, sources: Sources, settings: Settings, report: Report) -> Planned:
    """Read and verify the archives' metadata and choose from it.

    Raises FetchError, UntrustedError, IntegrityError, UnsatisfiableError or RecipeError.
    """
    format_ = format_of(recipe)
    weakened: set[str] = set()

    def record(event: Event) -> None:
        if isinstance(event, Warned) and event.weakens:
            weakened.add(event.weakens)
        report(event)

    report(StageStarted("metadata"))
    metadata = format_.refresh(sources, record)
    report(StageEnded("metadata"))
    report(StageStarted("resolve"))
    packages = format_.resolve(request_of(recipe), metadata)
    report(StageEnded("resolve"))
    plan = Plan(
        format=format_.name,
        distro=recipe.distro,
        release=recipe.release,
        architecture=recipe.arch,
        packages=packages,
        snapshots=metadata.snapshots,
        epoch=find_epoch(settings, [snapshot.date for snapshot in metadata.snapshots]),
        weakened=tuple(sorted(weakened)),
    )
    return Planned(plan, keep=metadata.keep)


def request_of(recipe: Recipe) -> Request:
    """Return what a recipe asks of a resolver."""
    return Request(recipe.arch, recipe.variant, recipe.include, recipe.exclude, recipe.recommends, recipe.preselect)


def lock_of(recipe: Recipe, plan: Plan) -> Lock:
    """Return the lock of what a recipe came to."""
    return Lock(recipe.name, identify(recipe), plan)


def standing_lock(recipe: Recipe) -> str:
    """Return where the lock of a recipe stands, or would stand."""
    return lock_path(recipe.path, recipe.name, recipe.arch)


def _find_lock(recipe: Recipe, bundle: Bundle | None, settings: Settings, report: Report) -> tuple[str, Lock] | None:
    if bundle is not None and not settings.locked and not settings.lock_file:
        return _find_carried(recipe, bundle)
    file = settings.lock_file or standing_lock(recipe)
    wanted = bool(settings.lock_file) or settings.locked
    if not os.path.lexists(file):
        if not wanted:
            return None
        raise StaleLockError(file, ("there is no such file",), hint=f"rootfsbuild lock {recipe.path}")
    lock = load_lock(file)
    try:
        check_fits(lock, file, recipe.name, recipe.arch, identify(recipe))
    except StaleLockError as error:
        if wanted:
            raise
        report(Warned(f"{error}\nresolving anew; {error.hint}"))
        return None
    return file, lock


def _find_carried(recipe: Recipe, bundle: Bundle) -> tuple[str, Lock]:
    lock = bundle.find_lock(recipe.name, recipe.arch)
    if lock is None:
        problem = f"it holds no lock of {recipe.name} for {recipe.arch}"
        raise BundleError(bundle.file, problem, hint=f"rootfsbuild bundle {bundle.file} --list shows what it holds")
    check_fits(lock, f"of {recipe.name} in {bundle.file}", recipe.name, recipe.arch, identify(recipe))
    return bundle.file, lock


def find_epoch(settings: Settings, dates: Sequence[int]) -> int:
    """Return the build's time in seconds: SOURCE_DATE_EPOCH, else the newest Release's Date."""
    text = settings.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return max(dates)
    if not text.isascii() or not text.isdigit():
        raise RecipeError("SOURCE_DATE_EPOCH", f"{text!r} is no time", expected="whole seconds since 1970")
    return int(text)


@contextlib.contextmanager
def open_sources(recipe: Recipe, settings: Settings, report: Report) -> Iterator[Sources]:
    """Yield where a recipe's archives are read from."""
    store = Store(settings.cache_dir or default_cache_dir(settings.environ), report)
    with store.in_use(), _open_fetch(store, settings, report) as (fetch, bundle):
        yield Sources(
            recipe.archives,
            recipe.arch,
            _find_mirrors(recipe, settings, report),
            store,
            fetch,
            settings.now,
            settings.relax,
            bundle,
            past=_past(recipe, settings),
            modules=recipe.modules,
            module_platform=recipe.module_platform,
        )


@contextlib.contextmanager
def _open_fetch(store: Store, settings: Settings, report: Report) -> Iterator[tuple[Fetch, Bundle | None]]:
    """Yield what reads, and the bundle if it is one: for that and offline something that knows no network."""
    if settings.bundle:
        from rootfsbuild.repository.bundle import open_bundle  # noqa: PLC0415 - only where it is wanted
        from rootfsbuild.repository.bundle_fetch import BundleFetch  # noqa: PLC0415 - the same

        with open_bundle(settings.bundle) as bundle:
            yield BundleFetch(bundle, store, report), bundle
    elif settings.offline:
        yield StoreFetch(store, report), None
    else:
        # What builds without a network does not even load what could reach one.
        from rootfsbuild.repository.network import open_network  # noqa: PLC0415 - the same

        with open_network(store, report) as network:
            yield KeptFirst(StoreFetch(store, report), network), None


def _past(recipe: Recipe, settings: Settings) -> frozenset[str]:
    if recipe.snapshot is not None:
        return ANY_MOMENT
    return CARRIED if settings.offline or settings.bundle else frozenset()


def _find_mirrors(recipe: Recipe, settings: Settings, report: Report) -> dict[str, tuple[Mirror, ...]]:
    if settings.offline or settings.bundle:
        return {archive.name: (Mirror(f"latest:{archive.name}", "the store"),) for archive in recipe.archives}
    mirrors = {archive.name: _mirrors(archive, recipe, settings) for archive in recipe.archives}
    unknown = sorted(settings.overrides.keys() - mirrors.keys())
    if unknown:
        report(Warned(f"--mirror {unknown[0]}: the recipe has no such archive ({', '.join(mirrors)})"))
    return mirrors


FetchPackages = Callable[[Sequence[Package]], Iterator[Blob]]


def fetching(planned: Planned, sources: Sources) -> FetchPackages:
    """Return what yields packages of a plan with their verified files, as they arrive.

    Raises FetchError at once, for all of them, where it is known already that some cannot be had.
    """

    def fetch(packages: Sequence[Package]) -> Iterator[Blob]:
        wanted = {wanted_package(package, sources, planned): package for package in packages}
        for one, path in sources.fetch.blobs(wanted):
            yield wanted[one], path

    sources.fetch.require(wanted_package(package, sources, planned) for package in planned.plan.packages)
    return fetch


def wanted_package(package: Package, sources: Sources, planned: Planned) -> Wanted:
    """Return a package's file as it is to be fetched: what is locked also from where the archive's past is kept."""
    path = quote(package.filename)
    bases = [mirror.url for mirror in sources.mirrors[package.archive]]
    archive = next(archive for archive in sources.archives if archive.name == package.archive)
    if archive.mirrorlist or archive.metalink:
        # What served the metadata may be known from such a list alone.
        bases += [one.mirror for one in planned.plan.snapshots if one.archive == archive.name and one.mirror]
    urls = tuple(f"{base}/{path}" for base in dict.fromkeys(bases))
    late = _past_urls(archive, package, path, planned.plan) if planned.lock else ()
    return Wanted(urls, package.size, package.sha256, f"{package.name} {package.version}", late)


def _past_urls(archive: Archive, package: Package, path: str, plan: Plan) -> tuple[str, ...]:
    by_hash = [archive.snapshot_file.format(sha256=package.sha256)] if archive.snapshot_file else []
    dates = {snapshot.date for snapshot in plan.snapshots if snapshot.archive == archive.name}
    dated = [f"{past_url(archive, date)}/{path}" for date in sorted(dates)] if archive.snapshot else []
    return (*by_hash, *dated)


def _mirrors(archive: Archive, recipe: Recipe, settings: Settings) -> tuple[Mirror, ...]:
    if recipe.snapshot is not None:
        if not archive.snapshot:
            raise RecipeError(recipe.path, f"archive {archive.name} has no snapshot service", "snapshot")
        url = archive.snapshot.format(archive=archive.name, timestamp=recipe.snapshot).rstrip("/")
        return find_mirrors(
            archive.name,
            [url],
            distro="",
            suites=(),
            overrides=settings.overrides,
            environ={},
            host_root="/nonexistent",
        )
    # The distribution's keys have fingerprints; an archive under a key file is somebody else's, and a suite that is
    # named like the distribution's does not make the host's mirrors serve it.
    foreign = not all(key.fingerprint for key in archive.keys)
    return find_mirrors(
        archive.name,
        archive.mirrors,
        distro="" if foreign else recipe.distro,
        suites=() if foreign else archive.suites,
        overrides=settings.overrides,
        environ=settings.environ,
    )
