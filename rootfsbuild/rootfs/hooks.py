"""What a recipe adds to a root by hand: files copied in, commands run at named stages."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from rootfsbuild.errors import RecipeError, ScriptError
from rootfsbuild.events import Notice, Report
from rootfsbuild.recipe import FileToCopy, Hook
from rootfsbuild.rootfs import namespaces
from rootfsbuild.rootfs.inside import Inside, edit_root
from rootfsbuild.rootfs.runner import Run
from rootfsbuild.rootfs.signals import postponed

_TAIL_LINES = 20


def copy_files(root: str, files: Sequence[FileToCopy]) -> None:
    """Copy files and directory trees from the host into the root; links in the root never lead out of it.

    Raises RecipeError for a source that does not exist, and for a target that is a link, a directory where a file is
    to be, or below something that is no directory.
    """
    with edit_root(root) as inside:
        for item in files:
            if not os.path.exists(item.source):
                raise RecipeError(item.source, "no such file", f"files.{item.target!r}", expected="a file to copy in")
            _copy(inside, item, item.source, item.target)


def _copy(inside: Inside, item: FileToCopy, source: str, target: str) -> None:
    if os.path.isdir(source):
        with _obstacles_named(inside, item, target):
            # Not the host's mode: that is the affair of whoever's umask the checkout was made under.
            inside.make_directory(target)
        for name in sorted(os.listdir(source)):
            _copy(inside, item, os.path.join(source, name), f"{target.rstrip('/')}/{name}")
        return
    with open(source, "rb") as file:
        data = file.read()
    # Of the host's mode only "may be executed" is meant; who may read it is not the checkout's umask's affair.
    usual = 0o755 if os.stat(source).st_mode & 0o100 else 0o644
    mode = usual if item.mode is None else item.mode
    with _obstacles_named(inside, item, target):
        inside.write(target, data, mode)
        with inside.parent(target) as (directory, name):
            os.chown(name, *item.owner, dir_fd=directory, follow_symlinks=False)
            # chown(2) takes the set-user-ID bit away.
            os.chmod(name, mode, dir_fd=directory)


@contextlib.contextmanager
def _obstacles_named(inside: Inside, item: FileToCopy, target: str) -> Iterator[None]:
    """Say what in the root is in a copy's way, where the kernel only says that something is."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
            raise
        obstacle, hint = _find_obstacle(inside, target)
        if not obstacle:
            raise
        problem = f"cannot be copied to {target}: in the root, {obstacle}"
        raise RecipeError(item.source, problem, f"files.{item.target!r}", hint=hint) from error


def _find_obstacle(inside: Inside, target: str) -> tuple[str, str]:
    """Return the first part of a path at which a file cannot be written, and what to do; empty if there is none."""
    parts = [part for part in target.split("/") if part]
    for depth in range(1, len(parts) + 1):
        path, rest = "/" + "/".join(parts[:depth]), parts[depth:]
        status = inside.status(path)
        if status is None:
            break
        if stat.S_ISLNK(status.st_mode) and not (rest and _leads_to_directory(inside, path)):
            text, real = _read_link(inside, path)
            hint = "" if real == path else f"name the real path, {'/'.join([real.rstrip('/'), *rest])}"
            return f"{path} is a symbolic link to {text}", hint
        if rest and not stat.S_ISLNK(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return f"{path} is no directory", ""
        if not rest and stat.S_ISDIR(status.st_mode):
            return f"{path} is a directory", f"name a file in it, {path}/NAME"
    return "", ""


def _leads_to_directory(inside: Inside, path: str) -> bool:
    try:
        with inside.parent(f"{path}/name"):
            return True
    except OSError:
        return False


def _read_link(inside: Inside, path: str) -> tuple[str, str]:
    """Return a link's text, and the path in the root that it means: its own folder may be behind another link."""
    with inside.parent(path) as (directory, name):
        text = os.readlink(name, dir_fd=directory)
        try:
            root, folder = (os.readlink(f"/proc/self/fd/{fd}") for fd in (inside.descriptor, directory))
            folder = os.path.relpath(folder, root)
        except OSError:
            folder = os.path.dirname(path)
    return text, os.path.normpath(os.path.join("/", folder, text))


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
    """Run a hook as a process group that ends with a build that fails, is stopped or is killed.

    What leaves the group (setsid, a daemon) and what a finished hook leaves behind lives on.
    """
    process: subprocess.Popen[bytes] | None = None
    with _lifeline() as line:
        try:
            # What was started must be known to what ends it before a signal can raise here.
            with postponed():
                process = _start(hook, line, {**environment, "ROOTFSBUILD_ROOT": root})
            output, _ = process.communicate()
        except BaseException:
            if process is not None:
                with process, contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    log(output)
    return process.returncode, tuple(output.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])


def _start(hook: Hook, line: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    builder = os.getpid()
    return subprocess.Popen(  # noqa: S603 - running the user's own command is what an outside hook is
        [shutil.which("sh") or "/bin/sh", "-e", "-c", hook.run],
        cwd=hook.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(line,),
        preexec_fn=lambda: _end_with(builder, line),  # noqa: PLW1509 - three system calls, no locks, no imports
    )


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the end of a pipe that tells whoever holds it that this process is gone: then nobody has the other."""
    ours, other = os.pipe()
    try:
        yield ours
        # All holders share these flags: what a hook that ended well has left behind is not for us to end.
        fcntl.fcntl(ours, fcntl.F_SETFL, 0)
    finally:
        os.close(other)
        os.close(ours)


def _end_with(builder: int, line: int) -> None:
    """Have the kernel end this process and its group when the builder is gone, SIGKILL included.

    The group gets the signal that fcntl(2) lets a pipe send at its end, for as long as one in it holds the pipe:
    the shell does. This process gets its own (prctl(2)), where a kernel is not Linux enough for the former.
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(line, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(line, fcntl.F_SETFL, os.O_ASYNC)
    namespaces.die_with_parent(signal.SIGKILL)
    if os.getppid() != builder:
        os._exit(1)
