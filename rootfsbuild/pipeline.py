"""The story: a recipe becomes a plan, a plan becomes a root, a root becomes an output."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from rootfsbuild.errors import ScriptError, StorageError
from rootfsbuild.events import Notice, Output, Report, StageEnded, StageStarted, Warned
from rootfsbuild.formats.format import Format, Ground, Image
from rootfsbuild.lock import write_lock
from rootfsbuild.manifest import describe_result
from rootfsbuild.outputs.output import choose_output
from rootfsbuild.plan import Plan
from rootfsbuild.planning import FetchPackages, fetching, find_plan, format_of, lock_of, open_sources
from rootfsbuild.recipe import Recipe
from rootfsbuild.rootfs.hooks import copy_files, run_hooks
from rootfsbuild.rootfs.inside import edit_root
from rootfsbuild.rootfs.publish import Staging, open_staging
from rootfsbuild.rootfs.runner import Run, open_runner
from rootfsbuild.rootfs.sandbox import Sandbox, check_host
from rootfsbuild.rootfs.times import clamp_times
from rootfsbuild.settings import Settings


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
    with open_sources(recipe, settings, report) as sources:
        planned = find_plan(recipe, sources, settings, report)
        planned.keep()
    return planned.plan


def explain(recipe: Recipe, package: str, settings: Settings, report: Report) -> Sequence[str]:
    """Return the chain that brings a package into the recipe's plan, a line each."""
    return format_of(recipe).why(make_plan(recipe, settings, report).packages, package)


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
        with open_sources(recipe, settings, report) as sources:
            planned = find_plan(recipe, sources, settings, report)
            plan = planned.plan
            fetch = fetching(planned, sources)
            with _beside(planned.keep) as idle:
                _make_root(recipe, plan, fetch, staging, settings, idle, report)
        report(StageStarted("publish"))
        output.write(staging.root, staging.result, plan.epoch)
        manifest = staging.publish(describe_result(recipe.name, plan), report, lock=write_lock(lock_of(recipe, plan)))
        report(StageEnded("publish"))
    report(Notice(f"{target}: {len(plan.packages)} packages, {recipe.distro} {recipe.release} {recipe.arch}"))
    return Result(staging.target, manifest, plan)


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


def _make_root(
    recipe: Recipe,
    plan: Plan,
    fetch: FetchPackages,
    staging: Staging,
    settings: Settings,
    idle: Callable[[], None],
    report: Report,
) -> None:
    format_ = format_of(recipe)
    image = Image(
        architecture=recipe.arch,
        usr_links=recipe.usr_links if recipe.merged_usr else (),
        sources=format_.source_list(recipe.archives, recipe.apt_sources),
        hostname=recipe.hostname or "",
        path_exclude=recipe.path_exclude,
        path_keep=recipe.path_keep,
        database=recipe.database,
        docs=recipe.docs,
        languages=recipe.languages,
    )
    sandbox = Sandbox(
        root=staging.root,
        environment=format_.environment(plan.epoch),
        network=settings.script_network,
        timeout=settings.script_timeout,
        overlays=format_.stand_ins,
        builtins=format_.builtins,
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
            ground = Ground(
                root=staging.root,
                plan=plan,
                image=image,
                run=run,
                report=report,
                extracted=lambda: hooks("extracted", run),
                archives=recipe.archives,
                relax=settings.relax,
                now=settings.now,
                strict=recipe.strict,
                idle=idle,
            )
            _install(format_, ground, fetch, report)
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


def _install(format_: Format[Any], ground: Ground, fetch: FetchPackages, report: Report) -> None:
    """Install the base while its packages arrive, then what comes on top of it."""
    base = [package for package in ground.plan.packages if package.wave == 0]
    more = [package for package in ground.plan.packages if package.wave > 0]
    report(StageStarted("fetch", sum(package.size for package in ground.plan.packages), "B"))
    laid = format_.install_base(ground, fetch(base))
    blobs = {package.name: path for package, path in fetch(more)}
    for group in format_.split_waves(ground.plan, blobs):
        laid = format_.install_more(ground, [(package, blobs[package.name]) for package in group], laid)


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
