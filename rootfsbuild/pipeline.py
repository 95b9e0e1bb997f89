"""The story: a recipe becomes a plan, a plan becomes a root, a root becomes an output."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any
from urllib.parse import quote

from rootfsbuild.distro import Archive
from rootfsbuild.errors import RecipeError, ScriptError, StorageError
from rootfsbuild.events import Event, Notice, Output, Report, StageEnded, StageStarted, Warned
from rootfsbuild.formats import FORMATS
from rootfsbuild.formats.format import Blob, Format, Ground, Image
from rootfsbuild.manifest import describe_result
from rootfsbuild.outputs.output import choose_output
from rootfsbuild.plan import Package, Plan, Request
from rootfsbuild.recipe import Recipe
from rootfsbuild.repository.fetch import Wanted, open_fetch
from rootfsbuild.repository.mirrors import Mirror, find_mirrors
from rootfsbuild.repository.sources import ANY_MOMENT, Sources
from rootfsbuild.repository.store import Store, default_cache_dir
from rootfsbuild.rootfs.hooks import copy_files, run_hooks
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.publish import Staging, open_staging
from rootfsbuild.rootfs.runner import Run, open_runner
from rootfsbuild.rootfs.sandbox import Sandbox, check_host
from rootfsbuild.rootfs.times import clamp_times


@dataclass(frozen=True)
class Settings:
    """What a call decides, as opposed to the recipe: nothing here changes the bytes of the result."""

    overrides: Mapping[str, str]
    """Archive name -> URL, from the command line."""
    environ: Mapping[str, str]
    now: Callable[[], float]
    cache_dir: str = ""
    """Empty: the store's usual place."""
    relax: frozenset[str] = frozenset()
    force: bool = False
    keep: bool = False
    debug_shell: bool = False
    script_network: bool = False
    script_timeout: float | None = None
    """Seconds, None for no limit."""


@dataclass(frozen=True)
class Result:
    """What a build made."""

    target: str
    manifest: str
    plan: Plan


def make_plan(recipe: Recipe, settings: Settings, report: Report) -> Plan:
    """Read the archives and resolve, without any privilege.

    Raises FetchError, UntrustedError, IntegrityError, UnsatisfiableError or RecipeError.
    """
    with _open_sources(recipe, settings, report) as sources:
        plan, keep = _resolve(recipe, sources, settings, report)
        keep()
    return plan


def explain(recipe: Recipe, package: str, settings: Settings, report: Report) -> Sequence[str]:
    """Return the chain that brings a package into the recipe's plan, a line each."""
    return _format(recipe).why(make_plan(recipe, settings, report).packages, package)


def build(recipe: Recipe, target: str, settings: Settings, report: Report) -> Result:
    """Build a recipe into `target`, which appears complete or not at all.

    Raises any error of the family; whatever was made until then is taken down again. A signal's exception that
    is raised after `Published` was reported leaves the result where it is.
    """
    output = choose_output(target)
    check_host()
    with open_staging(
        target, force=settings.force, keep=settings.keep, warn=lambda text: report(Warned(text))
    ) as staging:
        with _open_sources(recipe, settings, report) as sources:
            plan, keep = _resolve(recipe, sources, settings, report)
            with _beside(keep) as idle:
                _make_root(recipe, plan, sources, staging, settings, idle, report)
        report(StageStarted("publish"))
        output.write(staging.root, staging.result, plan.epoch)
        manifest = staging.publish(describe_result(recipe.name, plan), report)
        report(StageEnded("publish"))
    report(Notice(f"{target}: {len(plan.packages)} packages, {recipe.distro} {recipe.release} {recipe.arch}"))
    return Result(staging.target, manifest, plan)


def _format(recipe: Recipe) -> Format[Any]:
    return FORMATS[recipe.format]


@contextlib.contextmanager
def _open_sources(recipe: Recipe, settings: Settings, report: Report) -> Iterator[Sources]:
    store = Store(settings.cache_dir or default_cache_dir(settings.environ))
    mirrors = {archive.name: _mirrors(archive, recipe, settings) for archive in recipe.archives}
    unknown = sorted(settings.overrides.keys() - mirrors.keys())
    if unknown:
        report(Warned(f"--mirror {unknown[0]}: the recipe has no such archive ({', '.join(mirrors)})"))
    with store.in_use(), open_fetch(store, report) as fetch:
        yield Sources(
            recipe.archives,
            recipe.arch,
            mirrors,
            store,
            fetch,
            settings.now,
            settings.relax,
            past=ANY_MOMENT if recipe.snapshot is not None else frozenset(),
        )


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


def _resolve(recipe: Recipe, sources: Sources, settings: Settings, report: Report) -> tuple[Plan, Callable[[], None]]:
    """Return the plan, and what writes down the metadata that it was made from."""
    format_ = _format(recipe)
    weakened: set[str] = set()

    def record(event: Event) -> None:
        if isinstance(event, Warned) and event.weakens:
            weakened.add(event.weakens)
        report(event)

    report(StageStarted("metadata"))
    metadata = format_.refresh(sources, record)
    report(StageEnded("metadata"))
    request = Request(recipe.arch, recipe.variant, recipe.include, recipe.exclude, recipe.recommends, recipe.preselect)
    report(StageStarted("resolve"))
    packages = format_.resolve(request, metadata)
    report(StageEnded("resolve"))
    plan = Plan(
        format=format_.name,
        distro=recipe.distro,
        release=recipe.release,
        architecture=recipe.arch,
        packages=packages,
        snapshots=metadata.snapshots,
        epoch=_epoch(settings, [snapshot.date for snapshot in metadata.snapshots]),
        weakened=tuple(sorted(weakened)),
    )
    return plan, metadata.keep


@contextlib.contextmanager
def _beside(work: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Yield what starts `work` in a thread, once; it has ended when the block ends."""
    thread = threading.Thread(target=work, daemon=True)

    def start() -> None:
        if thread.ident is None:
            thread.start()

    try:
        yield start
    finally:
        if thread.ident is not None:
            thread.join()


def _epoch(settings: Settings, dates: Sequence[int]) -> int:
    """Return the build's time in seconds: SOURCE_DATE_EPOCH, else the newest Release's Date."""
    text = settings.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return max(dates)
    if not text.isascii() or not text.isdigit():
        raise RecipeError("SOURCE_DATE_EPOCH", f"{text!r} is no time", expected="whole seconds since 1970")
    return int(text)


def _make_root(
    recipe: Recipe,
    plan: Plan,
    sources: Sources,
    staging: Staging,
    settings: Settings,
    idle: Callable[[], None],
    report: Report,
) -> None:
    format_ = _format(recipe)
    image = Image(
        architecture=recipe.arch,
        usr_links=recipe.usr_links if recipe.merged_usr else (),
        sources=format_.source_list(recipe.archives, recipe.apt_sources),
        hostname=recipe.hostname or "",
        path_exclude=recipe.path_exclude,
        path_keep=recipe.path_keep,
    )
    sandbox = Sandbox(
        root=staging.root,
        environment=format_.environment(plan.epoch),
        network=settings.script_network,
        timeout=settings.script_timeout,
        overlays=format_.stand_ins,
        report=report,
    )
    with _open_log(staging.log) as file:

        def log(output: bytes) -> None:
            file.write(output)
            report(Output(output))

        def hooks(stage: str, run: Run) -> None:
            run_hooks(recipe.hooks, stage, staging.root, run, log, settings.environ, report)

        format_.prepare(staging.root, image)
        with _shell_on_failure(sandbox, settings, report), open_runner(sandbox, log) as run:
            ground = Ground(staging.root, plan, image, run, report, lambda: hooks("extracted", run), idle)
            _install(format_, ground, sources, report)
        copy_files(staging.root, recipe.files)
        plain = replace(sandbox, overlays=format_.policy)
        with _shell_on_failure(plain, settings, report), open_runner(plain, log) as run:
            hooks("configured", run)
        report(StageStarted("finish"))
        with edit_root(staging.root) as inside:
            format_.clean(inside, plan)
        with open_runner(plain, log) as run:
            hooks("finished", run)
        clamp_times(staging.root, plan.epoch)
        report(StageEnded("finish"))


def _open_log(path: str) -> IO[bytes]:
    """Open the build's log anew; a link in its place is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0)
    except OSError as error:
        raise StorageError(path, error.strerror or str(error)) from error


def _install(format_: Format[Any], ground: Ground, sources: Sources, report: Report) -> None:
    """Install the base while its packages arrive, then what comes on top of it."""
    base = [package for package in ground.plan.packages if package.wave == 0]
    more = [package for package in ground.plan.packages if package.wave > 0]
    report(StageStarted("fetch", sum(package.size for package in ground.plan.packages), "B"))
    laid = format_.install_base(ground, _fetch(base, sources))
    blobs = {package.name: path for package, path in _fetch(more, sources)}
    for group in format_.split_waves(ground.plan, blobs):
        laid = format_.install_more(ground, [(package, blobs[package.name]) for package in group], laid)


def _fetch(packages: Sequence[Package], sources: Sources) -> Iterator[Blob]:
    """Yield each package with its verified file, as they arrive."""
    wanted = {_wanted(package, sources.mirrors[package.archive]): package for package in packages}
    for one, path in sources.fetch.blobs(wanted):
        yield wanted[one], path


def _wanted(package: Package, mirrors: Sequence[Mirror]) -> Wanted:
    urls = tuple(f"{mirror.url}/{quote(package.filename)}" for mirror in mirrors)
    return Wanted(urls, package.size, package.sha256, f"{package.name} {package.version}")


@contextlib.contextmanager
def _shell_on_failure(sandbox: Sandbox, settings: Settings, report: Report) -> Iterator[None]:
    """Open a shell in the half-made root when a script fails and the call asks for one."""
    try:
        yield
    except ScriptError as error:
        if settings.debug_shell:
            report(Warned(f"{error}\nthis shell is in the half-made root; leave it to end the build"))
            sandbox.interactive(["/bin/bash"], or_else=[["/bin/sh"]])
        raise
