"""Scriptlets and triggers, run as rpm runs them (rpm's lib/rpmscript.c) in the sandbox.

Working directory is `/`; the environment is `script_environment` and nothing of the host's. The interpreter gets the
name of a file with the text, then the arguments; a scriptlet without a text is its program and that program's own
arguments. Standard input is empty, or has a file trigger's paths, one on each line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace

from rootfsbuild.errors import HostError, ScriptError
from rootfsbuild.events import Report, Warned
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.expand import expand_scriptlet
from rootfsbuild.formats.rpm.header import Header
from rootfsbuild.formats.rpm.interpret import SCRIPTLET, Job, encode, load_interpreter
from rootfsbuild.formats.rpm.scriptlets import LUA
from rootfsbuild.formats.rpm.transaction import Execute
from rootfsbuild.rootfs.runner import Ended, Run
from rootfsbuild.rootfs.supervisor import Builtin

BUILTINS: Mapping[str, Callable[[], Builtin]] = {SCRIPTLET: load_interpreter}
"""What the sandbox must have among its builtins."""

_TAIL_LINES = 20
_NOT_RUN = 127
_HINT = "run again with --keep to look at the half-made root, or with --debug-shell for a shell in it"


def script_environment(epoch: int) -> dict[str, str]:
    """Return the whole environment of scriptlets: rpm's own PATH, the build's time, nothing of the host."""
    return {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin:/usr/X11R6/bin",
        "HOME": "/root",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(epoch),
    }


def run_step(
    step: Execute, header: Header, architecture: str, run: Run, report: Report, *, strict: bool = False
) -> None:
    """Run one scriptlet or trigger, whose package's header is given, in a root of an architecture of rpm's.

    One that fails, runs out of time or leaves processes behind raises ScriptError if it is %pretrans, %pre or marked as
    critical, or all are `strict`; else it is a warning, as in rpm. Raises HostError if it is in Lua, and Lua is not
    installed, PackageError if its text cannot be made from the header.
    """
    try:
        _run(step, header, architecture, run)
    except ScriptError as error:
        if strict or step.scriptlet.critical:
            raise
        report(Warned(f"{error}\nrpm goes on after this, and so does the build; strict scripts would end it here"))


def _run(step: Execute, header: Header, architecture: str, run: Run) -> None:
    package, script = describe_package(header), f"%{step.scriptlet.kind}"
    if step.scriptlet.program[0] == LUA:
        _require_lua(package, script)
    job = Job(
        f"{script}({package})",
        step.scriptlet.program,
        expand_scriptlet(step.scriptlet, header, architecture),
        step.arguments,
        step.paths,
        architecture,
        step.scriptlet.prefixes,
    )
    try:
        done = run([SCRIPTLET, script, package], extra_env=_prefixes(step), stdin=encode(job))
    except ScriptError as error:
        raise replace(error, package=package, script=script) from error
    if done.status:
        raise _failure(package, script, step, done)


def _failure(package: str, script: str, step: Execute, done: Ended) -> ScriptError:
    program = step.scriptlet.program[0].decode("utf-8", "surrogateescape")
    absent = done.status == _NOT_RUN and any(line.startswith(f"cannot run {program}:") for line in done.lines)
    hint = (
        f"nothing in the root is {program} at this point: whatever has it must be installed before" if absent else _HINT
    )
    return ScriptError(package, script, done.status, done.lines[-_TAIL_LINES:], hint=hint)


def _prefixes(step: Execute) -> dict[str, str]:
    """Return what tells a relocatable package's scriptlets where it has been installed: where it was built for."""
    found = [prefix.decode("utf-8", "surrogateescape") for prefix in step.scriptlet.prefixes]
    named = {f"RPM_INSTALL_PREFIX{number}": prefix for number, prefix in enumerate(found)}
    return {**named, **({"RPM_INSTALL_PREFIX": found[0]} if found else {})}


def _require_lua(package: str, script: str) -> None:
    if importlib.util.find_spec("lupa") is None:
        raise HostError(
            "lupa",
            f"{script} of {package} is written in Lua, which this Python package runs",
            hint="pip install 'rootfsbuild[rpm]'",
        )


def describe_package(header: Header) -> str:
    """Return a package's name, version, release and architecture."""
    name, version, release, architecture = (
        header.text(tag) for tag in (tags.NAME, tags.VERSION, tags.RELEASE, tags.ARCH)
    )
    return f"{name}-{version}-{release}.{architecture}"
