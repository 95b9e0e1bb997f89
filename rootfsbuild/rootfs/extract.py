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
from rootfsbuild.rootfs.lay import Ground, Rules, Traces, lay_package
from rootfsbuild.rootfs.package import ControlArchive, Opened
from rootfsbuild.rootfs.remove import mounts_below
from rootfsbuild.rootfs.settle import (
    MayReplace,
    Settlement,
    at_rest,
    carry_out,
    is_in_plan_order,
    refuse_clashes,
    settle,
    undo,
    without,
)
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
    package names them, symlinks last, without those that belong to another package by Replaces."""
    digests: Mapping[bytes, str]
    """MD5 in hexadecimal of each conffile that was laid, by its path with a leading `/`."""
    traces: Traces = field(repr=False, compare=False)
    """For later calls with the same root."""


def _never(*, loser: str, winner: str, path: bytes) -> bool:
    del loser, winner, path
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
    StorageError (disk full, read-only), HostError (chroot is not permitted) and TargetError (something is
    mounted inside). Nothing outside of `root` is touched in any case; what was laid inside stays.
    """
    rules = rules or Rules()
    _refuse_mounts(root)
    before = [(name, at_rest(name, found.traces, rules.diverted)) for name, found in (earlier or {}).items()]
    seen: dict[str, Job] = {}
    with _open_pool(root, open_package, rules, workers) as pool:
        answers = _distribute(pool, _noted(jobs, seen), order, report)
        settled = is_in_plan_order([*before, *_laid(answers)])
        if settled:
            settlement = settle(before, _laid(answers), may_replace, touched)
            _carry_out(pool[0], settlement)
        else:
            _carry_out(pool[0], undo(_laid(answers)))
    if not settled:
        # Seldom enough: a path that is a directory here and a symlink there. One after the other, then.
        with _open_pool(root, open_package, rules, 1) as pool:
            answers = _distribute(pool, [seen[name] for name in answers], order, ignore)
            refuse_clashes([*before, *_laid(answers)])
            settlement = settle(before, _laid(answers), may_replace, touched)
            _carry_out(pool[0], settlement)
    for name, found in (earlier or {}).items():
        if name in settlement.taken:
            answers[name] = (found.control, found.traces)
    return {name: _result(*answer, settlement.taken.get(name, frozenset())) for name, answer in answers.items()}


def _refuse_mounts(root: str) -> None:
    # What is mounted there is not ours: a package's file would land in it.
    top = os.path.realpath(root)
    for point in mounts_below(top):
        if point != top:
            raise TargetError(root, f"{point} in it is a mount", hint=f"unmount it: umount {point}")


def _noted(jobs: Iterable[Job], seen: dict[str, Job]) -> Iterator[Job]:
    for job in jobs:
        if job.package in seen:
            raise PackageError(job.package, "given twice")
        seen[job.package] = job
        yield job


@contextmanager
def _open_pool(root: str, open_package: Open, rules: Rules, workers: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        pool = []
        for _ in range(max(1, workers)):
            worker = start_worker(root, lambda: _prepare(open_package, rules))
            stack.callback(worker.end)
            pool.append(worker)
        yield pool


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
            traces = lay_package(package, int(fields[1]), opened, int(fields[2]), ground=ground, rules=rules)
            return encode_laid(opened.control, traces)

    return task


_Answers = dict[str, tuple[ControlArchive, Traces]]


def _laid(answers: _Answers) -> list[tuple[str, Traces]]:
    return [(name, traces) for name, (_, traces) in answers.items()]


def _distribute(pool: Sequence[Worker], jobs: Iterable[Job], order: Sequence[str], report: Report) -> _Answers:
    """Hand every job to the next idle worker; return each package's answer in plan order."""
    ranks = {name: rank for rank, name in enumerate(order)}
    idle = list(pool)
    busy: dict[int, tuple[Worker, Job]] = {}
    answers: _Answers = {}

    def collect() -> None:
        for fd in select.select(list(busy), [], [])[0]:
            worker, job = busy.pop(fd)
            answers[job.package] = decode_laid(worker.receive(job.package))
            idle.append(worker)
            report(Progress("extract", 1, job.package))

    for job in jobs:
        rank = ranks.setdefault(job.package, len(ranks))
        while not idle:
            collect()
        worker = idle.pop()
        with _blob(job) as fd:
            worker.send((os.fsencode(job.package), b"%d" % rank, b"%d" % job.limit), fd)
        busy[worker.answers] = (worker, job)
    while busy:
        collect()
    return {name: answers[name] for name in sorted(answers, key=ranks.__getitem__)}


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
