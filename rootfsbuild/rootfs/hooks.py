"""What a recipe adds to a root by hand: files copied in, commands run at named stages."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from rootfsbuild.errors import RecipeError, ScriptError
from rootfsbuild.events import Notice, Report
from rootfsbuild.recipe import FileToCopy, Hook
from rootfsbuild.rootfs.inside import Inside, edit_root
from rootfsbuild.rootfs.runner import Run

_TAIL_LINES = 20


def copy_files(root: str, files: Sequence[FileToCopy]) -> None:
    """Copy files and directory trees from the host into the root; links in the root never lead out of it.

    Raises RecipeError for a source that does not exist.
    """
    with edit_root(root) as inside:
        for item in files:
            if not os.path.exists(item.source):
                raise RecipeError(item.source, "no such file", f"files.{item.target!r}", expected="a file to copy in")
            _copy(inside, item, item.source, item.target)


def _copy(inside: Inside, item: FileToCopy, source: str, target: str) -> None:
    if os.path.isdir(source):
        inside.make_directory(target, os.stat(source).st_mode & 0o755)
        for name in sorted(os.listdir(source)):
            _copy(inside, item, os.path.join(source, name), f"{target.rstrip('/')}/{name}")
        return
    with open(source, "rb") as file:
        data = file.read()
    # Of the host's mode only "may be executed" is meant; who may read it is not the checkout's umask's affair.
    usual = 0o755 if os.stat(source).st_mode & 0o100 else 0o644
    mode = usual if item.mode is None else item.mode
    inside.write(target, data, mode)
    with inside.parent(target) as (directory, name):
        os.chown(name, *item.owner, dir_fd=directory, follow_symlinks=False)
        # chown(2) takes the set-user-ID bit away.
        os.chmod(name, mode, dir_fd=directory)


def run_hooks(
    hooks: Sequence[Hook],
    stage: str,
    root: str,
    run: Run,
    log: Callable[[bytes], object],
    environment: Mapping[str, str],
    report: Report,
) -> None:
    """Run the hooks of one stage in order, in the sandbox or on the host with ROOTFSBUILD_ROOT set.

    Raises ScriptError for the first that fails.
    """
    for number, hook in enumerate(hooks, start=1):
        if hook.stage != stage:
            continue
        report(Notice(f"Hook {number} ({stage}, {'inside' if hook.inside else 'outside'})"))
        if hook.inside:
            done = run(["/bin/sh", "-e", "-c", hook.run], extra_env={})
            status, tail = done.status, done.lines[-_TAIL_LINES:]
        else:
            status, tail = _run_outside(hook, root, log, environment)
        if status:
            raise ScriptError("", f"hook {number} ({stage})", status, tail)


def _run_outside(
    hook: Hook, root: str, log: Callable[[bytes], object], environment: Mapping[str, str]
) -> tuple[int, tuple[str, ...]]:
    shell = shutil.which("sh") or "/bin/sh"
    with subprocess.Popen(  # noqa: S603 - running the user's own command is what an outside hook is
        [shell, "-e", "-c", hook.run],
        cwd=hook.folder,
        env={**environment, "ROOTFSBUILD_ROOT": root},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            # With what it started: a build that is stopped leaves nothing running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    log(output)
    return process.returncode, tuple(output.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])
