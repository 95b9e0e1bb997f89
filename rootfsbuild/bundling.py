"""Bundles: what several recipes came to, with all that proves it, carried to where there is no network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rootfsbuild.errors import UsageError
from rootfsbuild.events import Report, StageEnded, StageStarted
from rootfsbuild.formats import FORMATS
from rootfsbuild.formats.format import Contents, Proof
from rootfsbuild.lock import Lock, without_mirrors, write_lock
from rootfsbuild.plan import Package
from rootfsbuild.planning import find_plan, format_of, lock_of, open_sources, wanted_package
from rootfsbuild.recipe import Recipe
from rootfsbuild.repository.bundle import Bundle, find_documents, keyring_entry, open_bundle
from rootfsbuild.repository.bundle_fetch import BundleFetch, OldFirst
from rootfsbuild.repository.bundle_writing import BundleSummary, write_bundle
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.sign import Signer
from rootfsbuild.repository.sources import Sources
from rootfsbuild.repository.store import Store, default_cache_dir
from rootfsbuild.repository.trust import load_keyring
from rootfsbuild.settings import Settings


@dataclass(frozen=True)
class _Load:
    """What one recipe adds to a bundle."""

    lock: Lock
    documents: Mapping[tuple[str, str], bytes]
    keys: Mapping[str, bytes]
    blobs: tuple[tuple[str, int, str], ...]
    """(SHA-256, bytes, file)."""


def make_bundle(
    recipes: Sequence[tuple[Recipe, Settings]], file: str, report: Report, *, update: str = ""
) -> BundleSummary:
    """Write one bundle of several recipes, each as its lock says or as it comes to now.

    Every lock is proven by its signed documents first. Packages that the bundle `update` has are not fetched again.
    Raises what building from the recipes would raise, and BundleError or StorageError.
    """
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(open_bundle(update)) if update else None
        loads = [stack.enter_context(_open_load(recipe, settings, old, report)) for recipe, settings in recipes]
        names = [f"{load.lock.name}.{load.lock.plan.architecture}.lock" for load in loads]
        for name in names:
            if names.count(name) > 1:
                hint = 'give one of the recipes another name = "…"'
                raise UsageError(f"two recipes have the name and architecture of {name}", hint=hint)
        return write_bundle(
            file,
            {name: write_lock(load.lock) for name, load in zip(names, loads, strict=True)},
            {key: data for load in loads for key, data in load.documents.items()},
            {name: data for load in loads for name, data in load.keys.items()},
            [blob for load in loads for blob in load.blobs],
            report,
        )


@contextlib.contextmanager
def _open_load(recipe: Recipe, settings: Settings, old: Bundle | None, report: Report) -> Iterator[_Load]:
    """Gather what a recipe needs in the store, which is not pruned as long as the context is open."""
    with open_sources(recipe, settings, report) as opened:
        earlier = BundleFetch(old, opened.store, report) if old is not None else None
        sources = replace(opened, fetch=OldFirst(earlier, opened.fetch)) if earlier is not None else opened
        planned = find_plan(recipe, sources, settings, report)
        planned.keep()
        plan = without_mirrors(planned.plan)
        format_of(recipe).prove(plan, sources, report)
        wanted = [wanted_package(package, sources, replace(planned, lock="x")) for package in plan.packages]
        sources.fetch.require(wanted)
        report(StageStarted("fetch", sum(package.size for package in plan.packages), "B"))
        blobs = [(one.sha256, one.size, path) for one, path in sources.fetch.blobs(wanted)]
        report(StageEnded("fetch"))
        listed = dict.fromkeys(index for snapshot in plan.snapshots for index in snapshot.indexes)
        indexes = [Wanted((), index.size, index.sha256, index.path) for index in listed]
        blobs += [(one.sha256, one.size, path) for one, path in sources.fetch.blobs(indexes)]
        yield _Load(
            lock_of(recipe, plan), find_documents(plan, sources.store.signed), dict(_keys(sources)), tuple(blobs)
        )


def _keys(sources: Sources) -> Iterator[tuple[str, bytes]]:
    for archive in sources.archives:
        yield keyring_entry(load_keyring([(key.fingerprint, key.path) for key in archive.keys]))


def lay_repository(file: str, directory: str, settings: Settings, signer: Signer | None, report: Report) -> None:
    """Lay a bundle out as repositories that the images' own package managers can use.

    Raises BundleError, IntegrityError, TargetError, UsageError or UntrustedError.
    """
    store = Store(settings.cache_dir or default_cache_dir(settings.environ), report)
    with open_bundle(file) as bundle, store.in_use():
        fetch = BundleFetch(bundle, store, report)
        locks = list(bundle.locks.values())
        formats = sorted({lock.plan.format for lock in locks})
        if len(formats) != 1:
            problem = f"{file} holds packages of {' and '.join(formats)}" if formats else f"{file} holds no lock"
            raise UsageError(problem, hint="lay out a bundle of one package format")
        contents = Contents(tuple(_proofs(bundle, locks, fetch)), tuple(_packages(locks, fetch)))
        FORMATS[formats[0]].lay_repository(directory, contents, _archive_keys(bundle, locks), signer, report)


def _archive_keys(bundle: Bundle, locks: Iterable[Lock]) -> dict[str, bytes]:
    """Return the certificates of each archive; two releases may have one under different keys."""
    pairs = dict.fromkeys((item.archive, item.keyring) for lock in locks for item in lock.plan.snapshots)
    keys: dict[str, bytes] = {}
    for archive, keyring in pairs:
        keys[archive] = keys.get(archive, b"") + (bundle.key(keyring) or b"")
    return keys


def _proofs(bundle: Bundle, locks: Iterable[Lock], fetch: BundleFetch) -> Iterator[Proof]:
    for lock in locks:
        documents = find_documents(lock.plan, bundle.signed)
        for snapshot in lock.plan.snapshots:
            wanted = {Wanted((), index.size, index.sha256, index.path): index for index in snapshot.indexes}
            yield Proof(
                snapshot,
                {path: data for (sha256, path), data in documents.items() if sha256 == snapshot.sha256},
                {wanted[one].path: path for one, path in fetch.blobs(wanted)},
            )


def _packages(locks: Iterable[Lock], fetch: BundleFetch) -> Iterator[tuple[Package, str]]:
    for lock in locks:
        wanted = {
            Wanted((), package.size, package.sha256, f"{package.name} {package.version}"): package
            for package in lock.plan.packages
        }
        for one, path in fetch.blobs(wanted):
            yield wanted[one], path


def is_lock(word: str) -> bool:
    """Tell whether a word of the command line means a lock and not a recipe."""
    return word.endswith(".lock")


def recipe_beside(lock_file: str, lock: Lock) -> str:
    """Return the recipe that stands beside a lock; raises UsageError."""
    recipe = os.path.join(os.path.dirname(lock_file), f"{lock.name}.toml")
    if not os.path.isfile(recipe):
        hint = f"put the recipe beside the lock, or name both: RECIPE --lock {lock_file}"
        raise UsageError(f"{lock_file}: there is no recipe {recipe}", hint=hint)
    return recipe
