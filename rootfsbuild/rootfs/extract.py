"""Unpack packages into a root: several confined processes at once, one result whatever their timing."""

from __future__ import annotations

import hashlib
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from rootfsbuild.errors import PackageError, TargetError
from rootfsbuild.events import Progress, Report, ignore
from rootfsbuild.rootfs.answers import decode_laid, decode_settlement, encode_laid, encode_settlement
from rootfsbuild.rootfs.decompress import load_decoders
from rootfsbuild.rootfs.lay import ClashError, Ground, Rules, Traces, lay_package
from rootfsbuild.rootfs.package import ControlArchive, Opened
from rootfsbuild.rootfs.remove import mounts_below
from rootfsbuild.rootfs.settle import MayReplace, Settlement, at_rest, carry_out, clash, settle, without
from rootfsbuild.rootfs.worker import Fields, Task, Worker, start_worker

Open = Callable[[int, str], Opened]
"""Opens the package in a file; the text names it in errors."""


@dataclass(frozen=True)
class Job:
    """One package to unpack."""

    path: str
    """Its file on this machine."""
    package: str
    """Its name, unlike that of every other job."""
    limit: int
    """Most bytes that its payload may expand to."""


@dataclass(frozen=True)
class Laid:
    """What one package left in the root."""

    control: ControlArchive
    paths: tuple[bytes, ...]
    """In archive order, as dpkg's `.list` has them (`/.`, `/usr`, …), excluded and diverted ones as the
    package names them, without those that a later package took over."""
    digests: Mapping[bytes, str]
    """MD5 in hexadecimal of each conffile that was laid, by its path with a leading `/`."""
    traces: Traces = field(repr=False, compare=False)
    """For later calls with the same root."""


def _never(*, loser: str, winner: str) -> bool:
    del loser, winner
    return False


def extract_packages(
    root: str,
    jobs: Iterable[Job],
    open_package: Open,
    *,
    workers: int = 2,
    order: Sequence[str] = (),
    rules: Rules | None = None,
    may_replace: MayReplace = _never,
    earlier: Mapping[str, Laid] | None = None,
    touched: int | None = None,
    report: Report = ignore,
) -> dict[str, Laid]:
    """Lay the files of all jobs down in `root` and return what each package left, in plan order.

    `jobs` may block while downloads arrive; they are handed out as they come. `order` names the packages in
    plan order, which alone decides conflicts and the metadata of shared directories; without it the order of
    `jobs` does. `earlier` is what previous calls with this root returned: those packages take part in
    conflicts, and where one loses a path it is among the results again, without it. A path that exists and is
    nobody's is replaced, as dpkg does. `touched` is explained in `settle`. One Progress of stage `extract` is
    reported per package. The symlinks of a merged /usr must be there before.

    Raises PackageError (malformed or hostile; the package and the path are named), FileConflictError,
    StorageError (disk full, read-only), HostError (chroot is not permitted) and TargetError (something is mounted
    inside). Nothing outside of `root` is
    touched in any case; what was laid inside stays.
    """
    rules = rules or Rules()
    _refuse_mounts(root)
    with ExitStack() as stack:
        pool = _start_pool(stack, root, open_package, rules, workers)
        before = [(name, at_rest(name, found.traces, rules.diverted)) for name, found in (earlier or {}).items()]
        answers = _distribute(pool, jobs, order, before, report)
        laid = [(name, traces) for name, (_, traces) in answers.items()]
        settlement = settle(before, laid, may_replace, touched)
        _carry_out(pool[0], settlement)
    for name in settlement.taken.keys() & (earlier or {}).keys():
        answers[name] = ((earlier or {})[name].control, (earlier or {})[name].traces)
    return {name: _result(*answer, settlement.taken.get(name, frozenset())) for name, answer in answers.items()}


def _refuse_mounts(root: str) -> None:
    # What is mounted there is not ours: a package's file would land in it.
    top = os.path.realpath(root)
    for point in mounts_below(top):
        if point != top:
            raise TargetError(root, f"{point} in it is a mount", hint=f"unmount it: umount {point}")


def _start_pool(stack: ExitStack, root: str, open_package: Open, rules: Rules, workers: int) -> list[Worker]:
    pool = []
    for _ in range(max(1, workers)):
        worker = start_worker(root, lambda: _prepare(open_package, rules))
        stack.callback(worker.end)
        pool.append(worker)
    return pool


def _prepare(open_package: Open, rules: Rules) -> Task:
    """Return what a worker does; runs in it, before it is confined."""
    load_decoders()
    hashlib.md5(usedforsecurity=False)
    ground = Ground()

    def task(fields: Fields, fd: int) -> Fields:
        with closing(os.fdopen(fd, "rb", buffering=0)) as file:
            if fields[0] == b"":
                carry_out(decode_settlement(file.readall() or b""))
                return ()
            package = os.fsdecode(fields[0])
            opened = open_package(file.fileno(), package)
            try:
                traces = lay_package(package, int(fields[1]), opened, int(fields[2]), ground=ground, rules=rules)
            except ClashError as error:
                return (b"clash", error.args[0])
            return (b"laid", *encode_laid(opened.control, traces))

    return task


_Answers = dict[str, tuple[ControlArchive, Traces]]


def _distribute(
    pool: Sequence[Worker],
    jobs: Iterable[Job],
    order: Sequence[str],
    before: Sequence[tuple[str, Traces]],
    report: Report,
) -> _Answers:
    """Hand every job to the next idle worker; return each package's answer in plan order."""
    ranks = {name: rank for rank, name in enumerate(order)}
    idle = list(pool)
    busy: dict[int, tuple[Worker, Job]] = {}
    answers: _Answers = {}
    clashes: list[tuple[str, bytes]] = []

    def collect() -> None:
        for fd in select.select(list(busy), [], [])[0]:
            worker, job = busy.pop(fd)
            fields = worker.receive(job.package)
            idle.append(worker)
            if fields[0] == b"clash":
                clashes.append((job.package, fields[1]))
            else:
                answers[job.package] = decode_laid(fields[1:])
                report(Progress("extract", 1, job.package))

    for job in jobs:
        if job.package in answers or any(job.package == other.package for _, other in busy.values()):
            raise PackageError(job.package, "given twice")
        rank = ranks.setdefault(job.package, len(ranks))
        while not idle:
            collect()
        if clashes:
            break
        worker = idle.pop()
        with _blob(job) as fd:
            worker.send((os.fsencode(job.package), b"%d" % rank, b"%d" % job.limit), fd)
        busy[worker.answers] = (worker, job)
    while busy:
        collect()
    in_order = {name: answers[name] for name in sorted(answers, key=ranks.__getitem__)}
    if clashes:
        raise _clash_error(clashes[0], before, in_order, ranks)
    return in_order


@contextmanager
def _blob(job: Job) -> Iterator[int]:
    try:
        fd = os.open(job.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise PackageError(job.package, f"cannot be read: {error.strerror}", job.path) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _clash_error(
    found: tuple[str, bytes],
    before: Sequence[tuple[str, Traces]],
    answers: _Answers,
    ranks: Mapping[str, int],
) -> Exception:
    package, where = found
    laid = [*before, *((name, traces) for name, (_, traces) in answers.items())]
    place = len(before) + sum(ranks[name] < ranks[package] for name in answers)
    conflict = clash(laid, package, place, where)
    problem = "a directory where the root has something else"
    return conflict or PackageError(package, problem, os.fsdecode(where))


def _result(control: ControlArchive, traces: Traces, taken: AbstractSet[bytes]) -> Laid:
    traces = without(traces, taken) if taken else traces
    digests = {b"/" + path: digest for path, digest in traces.digests.items()}
    return Laid(control, tuple(_listed(path) for path in traces.paths), digests, traces)


def _listed(path: bytes) -> bytes:
    return b"/" + path.rstrip(b"/") if path != b"/" else b"/."


def _carry_out(worker: Worker, settlement: Settlement) -> None:
    fd = os.memfd_create("settlement")
    try:
        _write_all(fd, encode_settlement(settlement))
        os.lseek(fd, 0, os.SEEK_SET)
        worker.send((b"", b"", b""), fd)
    finally:
        os.close(fd)
    worker.receive("the root")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
