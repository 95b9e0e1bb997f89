"""A build that is ended from outside, at any moment, leaves nothing behind that matters."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import pytest
from making.builds import need_root, rootfsbuild
from making.mirror import filling_mirror
from making.server import wait_until

from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.remove import remove_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
HARD, GENTLE = pytest.mark.xdist_group("kills-hard"), pytest.mark.xdist_group("kills-gentle")

# Every package that is marked essential, with all its scripts: the parts of a build, without the wait.
BASE = 'distro = "debian"\nrelease = "bookworm"\n[packages]\nvariant = "essential"\n'
# The hooks take long enough for the random moments to meet each.
RECIPE = f"""{BASE}
[files]
"/etc/copied" = {{ source = "recipe.toml" }}
[[hook]]
stage = "extracted"
run = 'sleep 0.2 & wait; echo 1 > "$ROOTFSBUILD_ROOT/etc/extracted"'
[[hook]]
stage = "configured"
run = "sleep 0.2 & wait; echo 2 > /etc/configured"
[[hook]]
stage = "finished"
run = 'sleep 0.2 & wait; echo 3 > "$ROOTFSBUILD_ROOT/etc/finished"'
"""
KILLS = 20
GENTLE_SECONDS = 5.0
SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Undisturbed:
    seconds: float
    tree: dict


@pytest.fixture(scope="module")
def ground():
    """A folder on the fastest file system there is."""
    need_root()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="rootfsbuild-kills-", dir=memory)
    path = pathlib.Path(folder)
    (path / "recipe.toml").write_text(RECIPE)
    yield path
    remove_tree(folder)


@pytest.fixture(scope="module")
def undisturbed(ground, store):
    """The tree that a build makes, and the seconds that it takes with a warm store."""
    for _ in range(2):
        shutil.rmtree(ground / "quiet", ignore_errors=True)
        start = time.monotonic()
        built = rootfsbuild(ground / "recipe.toml", "-o", ground / "quiet", "--cache-dir", store)
        assert built.status == 0, built.err
        seconds = time.monotonic() - start
    return Undisturbed(seconds, dump_tree(str(ground / "quiet"), times=True))


@pytest.fixture(autouse=True)
def _adopt_orphans():
    """Make whatever outlives a build a child of this process, which then cannot overlook it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(autouse=True)
def _signals_heard():
    """Have the signals do something in the builds: ignored ones, as in a shell's background, are inherited so."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass(frozen=True)
class Place:
    """One folder in which builds are killed, and what the machine was like before."""

    folder: pathlib.Path
    recipe: pathlib.Path
    store: pathlib.Path
    mounts: collections.Counter
    children: frozenset
    words: tuple = ()

    @property
    def target(self):
        return self.folder / "root"

    def build(self, *program):
        command = [sys.executable, *(program or ("-m", "rootfsbuild")), "-q", self.recipe, "-o", self.target]
        return subprocess.Popen(
            [*map(str, command), "--cache-dir", str(self.store), *self.words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def staging(self):
        return [name for name in os.listdir(self.folder) if name.startswith(".")]

    def check_nothing_left(self):
        assert not os.path.lexists(self.target)
        self.check_nothing_runs()

    def check_nothing_runs(self):
        # What the kernel does after a SIGKILL of the builder, it does in its own time.
        wait_until(lambda: not self.processes(), 5)
        wait_until(lambda: not self.added_mounts(), 5)

    def added_mounts(self):
        added = mounts() - self.mounts
        return [point for _, point in added if point.startswith(f"{self.folder}/") or not is_elsewhere(point)]

    def processes(self):
        """Return what is left of a build: the orphans that came to us, and whatever is at work on its folder."""
        orphans = children() - self.children
        for orphan in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)
        return sorted((children() - self.children) | at_work_on(str(self.folder)))

    def finish(self, undisturbed):
        """Build to the end, in the same place, and compare."""
        words = [self.recipe, "-o", self.target, "--cache-dir", self.store, *self.words]
        built = rootfsbuild(*words)
        assert built.status == 0, built.err
        assert dump_tree(str(self.target), times=True) == undisturbed.tree
        assert sorted(os.listdir(self.folder)) == ["root", "root.lock", "root.log", "root.manifest.json"]
        assert not self.processes()


@pytest.fixture
def place(ground, store, request):
    folder = ground / request.node.name
    folder.mkdir()
    yield Place(folder, ground / "recipe.toml", store, mounts(), frozenset(children()))
    remove_tree(str(folder))


def mounts():
    """Return what is mounted where and how often, without the numbers, which the kernel gives anew each time."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return collections.Counter(tuple(line.split()[3:5]) for line in file)


def is_elsewhere(point):
    """Tell whether a mount lies in a temporary folder: debootstrap and others mount there, at the same time."""
    return point.startswith(("/dev/shm/", f"{os.path.realpath(tempfile.gettempdir())}/"))


def children():
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found |= set(map(int, file.read().split()))
    return found


def at_work_on(folder):
    """Return the processes that have a folder for a root, a working directory, a mount or an argument."""
    name = os.path.basename(folder)
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        seen = []
        with contextlib.suppress(OSError):
            seen.append(os.readlink(f"/proc/{pid}/root"))
            seen.append(os.readlink(f"/proc/{pid}/cwd"))
        for part in ("cmdline", "mountinfo"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{part}", encoding="utf-8", errors="replace") as file:
                seen.append(file.read())
        # Another worker's test may have an argument that is longer than ours, but not ours.
        if int(pid) != os.getpid() and any(f"/{name}/" in text for text in seen):
            found.add(int(pid))
    return found


def moments(seconds, seed, count=KILLS):
    """Return random moments, one in each of as many equal parts of a build, so that no stage is spared."""
    dice = random.Random(seed)
    return [(number + dice.random()) * seconds / count for number in range(count)]


@GENTLE
def test_a_running_build_is_seen(place):
    builder = place.build()
    try:
        # The builder, its workers or the sandbox: if the search saw none, it could not tell that none is left.
        wait_until(lambda: len(place.processes()) > 1, 20)
        wait_until(place.staging, 5)
    finally:
        builder.send_signal(signal.SIGTERM)
        builder.communicate()
    place.check_nothing_left()


@GENTLE
def test_a_mount_is_seen(place):
    # The search would be worth nothing if it could not find one.
    here = place.folder / "here"
    here.mkdir()
    subprocess.run(["mount", "--bind", here, here], check=True)
    try:
        assert place.added_mounts() == [str(here)]
    finally:
        subprocess.run(["umount", here], check=True)
    assert place.added_mounts() == []


@GENTLE
def test_scripts_in_the_sandbox_are_seen(place):
    builder = place.build()
    try:
        wait_until(lambda: any(is_in_sandbox(pid) for pid in at_work_on(str(place.folder))), 20)
    finally:
        builder.kill()
        builder.communicate()
    place.check_nothing_left()


def is_in_sandbox(pid):
    try:
        own, theirs = os.readlink("/proc/self/ns/pid"), os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return False
    return own != theirs


@HARD
def test_sigkill_at_any_moment(place, undisturbed):
    for moment in moments(undisturbed.seconds, 7):
        builder = place.build()
        with contextlib.suppress(subprocess.TimeoutExpired):
            builder.wait(moment)
        builder.kill()
        builder.communicate()
        start_over(place, undisturbed)
        place.check_nothing_left()
        assert len(place.staging()) <= 1
    place.finish(undisturbed)


@GENTLE
@pytest.mark.parametrize("as_from_a_terminal", [True, False], ids=["group", "process"])
def test_sigint_at_any_moment(place, undisturbed, as_from_a_terminal):
    # A key at a terminal reaches every process of the group, `kill` only one: half of the moments each.
    for moment in moments(undisturbed.seconds, 11)[as_from_a_terminal::2]:
        interrupt(place, undisturbed, moment, [signal.SIGINT], group=as_from_a_terminal)
    place.finish(undisturbed)


@GENTLE
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGINT]],
    ids=["term", "hup", "int-int", "term-int"],
)
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_gentle_signals(place, undisturbed, signals, part):
    interrupt(place, undisturbed, part * undisturbed.seconds, signals, group=False)


HOOKS = {
    "outside": ("extracted", "sleep 999 & touch started; wait", "started"),
    "inside": ("configured", "sleep 999 & touch /started; wait", ".root.rootfsbuild-*/root/started"),
}


@GENTLE
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("where", HOOKS)
def test_a_hook_ends_with_all_it_started(place, where, number):
    stage, script, started = HOOKS[where]
    text = f'{BASE}[[hook]]\nstage = "{stage}"\nwhere = "{where}"\nrun = "{script}"\n'
    (place.folder / "recipe.toml").write_text(text)
    hooked = dataclasses.replace(place, recipe=place.folder / "recipe.toml")
    builder = hooked.build()
    wait_until(lambda: any(place.folder.glob(started)), 60)
    builder.send_signal(number)
    _, errors = builder.communicate(timeout=60)
    assert builder.returncode == (-number if number == signal.SIGKILL else 128 + number), errors.decode()
    hooked.check_nothing_left()


PUBLISHING = """
import os, sys
from rootfsbuild import cli
from rootfsbuild.rootfs import publish
number, name, before = {moment!r}
real = getattr(publish, name)
def signalled(*words, **named):
    if before:
        os.kill(os.getpid(), number)
    real(*words, **named)
    if not before:
        os.kill(os.getpid(), number)
setattr(publish, name, signalled)
sys.exit(cli.main())
"""


@GENTLE
@pytest.mark.parametrize(
    ("moment", "status", "published"),
    [
        ((signal.SIGTERM, "_sync", False), 143, False),
        ((signal.SIGKILL, "_put", True), -9, False),
        ((signal.SIGKILL, "_put", False), -9, True),
        ((signal.SIGINT, "_put", True), 0, True),
        ((signal.SIGINT, "remove_tree", False), 0, True),
    ],
    ids=["term-before", "kill-before", "kill-after", "int-within", "int-at-the-end"],
)
def test_a_signal_while_a_result_is_published(place, undisturbed, moment, status, published):
    builder = place.build("-c", PUBLISHING.format(moment=(int(moment[0]), *moment[1:])))
    _, errors = builder.communicate(timeout=60)
    assert builder.returncode == status, errors.decode()
    assert os.path.lexists(place.target) == published
    start_over(place, undisturbed)  # whole, then, and with a record by which the next build knows it
    place.check_nothing_runs()
    if status < 0:
        place.finish(undisturbed)
    else:
        assert os.listdir(place.folder) == ["root.log"]


def interrupt(place, undisturbed, moment, signals, *, group):
    builder = place.build()
    with contextlib.suppress(subprocess.TimeoutExpired):
        builder.wait(moment)
    start = time.monotonic()
    for number in signals:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(builder.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            builder.wait(0.02)
    _, errors = builder.communicate(timeout=60)
    if builder.returncode == 0:
        assert errors == b""
        start_over(place, undisturbed)
    elif builder.returncode == 128 + signals[0]:
        assert errors == b"error: stopped by signal %d\n" % signals[0]
    else:
        # Before Python has come as far as the program, a signal does what it does to any program.
        assert builder.returncode in {-signals[0], 1}, errors.decode()
        assert b"rootfsbuild" not in errors, errors.decode()
        assert b"error: " not in errors, errors.decode()
    assert time.monotonic() - start < GENTLE_SECONDS
    place.check_nothing_left()
    assert place.staging() == []


def start_over(place, undisturbed):
    """Take away what a build made that was faster this time, or killed when it had published."""
    if os.path.lexists(place.target):
        assert dump_tree(str(place.target), times=True) == undisturbed.tree
        remove_tree(str(place.target))
        for suffix in ("lock", "manifest.json"):
            os.unlink(f"{place.target}.{suffix}")


@HARD
def test_sigkill_while_packages_arrive(place, undisturbed, tmp_path):
    with filling_mirror("debian") as debian, filling_mirror("debian-security") as security:
        words = ("--mirror", f"debian={debian.url}", "--mirror", f"debian-security={security.url}")
        cold = Place(place.folder, place.recipe, tmp_path / "store", mounts(), frozenset(children()), words)
        for moment in moments(undisturbed.seconds, 13, 6):
            builder = cold.build()
            with contextlib.suppress(subprocess.TimeoutExpired):
                builder.wait(moment)
            builder.kill()
            builder.communicate()
            start_over(cold, undisturbed)
            cold.check_nothing_left()
        cold.finish(undisturbed)
        asked = debian.requests("/pool/")
        assert asked
        # What had arrived when a build was killed, the next one does not ask for again.
        assert sum(asked.values()) < 2 * len(asked)
