"""Unpack packages into a root: several confined processes at once, one result whatever their timing."""

from __future__ import annotations

import hashlib
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from rootfsbuild.errors import PackageError
from rootfsbuild.events import Progress, Report, ignore
from rootfsbuild.rootfs.decompress import load_decoders
from rootfsbuild.rootfs.lay import ClashError, Ground, Rules, Traces, lay_package
from rootfsbuild.rootfs.package import ControlArchive, Opened
from rootfsbuild.rootfs.settle import MayReplace, Settlement, carry_out, clash, settle
from rootfsbuild.rootfs.worker import Fields, Task, Worker, pack, start_worker, unpack

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
    """In archive order, as dpkg's `.list` has them (`/.`, `/usr`, …), excluded and diverted ones as the package
    names them, without those that a later package took over."""
    digests: Mapping[bytes, str] = field(default_factory=dict)
    """MD5 in hexadecimal of each conffile that was laid, by its path with a leading `/`."""


def extract_packages(
    root: str,
    jobs: Iterable[Job],
    open_package: Open,
    *,
    workers: int = 2,
    order: Sequence[str] = (),
    rules: Rules | None = None,
    may_replace: MayReplace = lambda _loser, _winner: False,
    touched: int | None = None,
    report: Report = ignore,
) -> dict[str, Laid]:
    """Lay the files of all jobs down in `root` and return what each package left, in plan order.

    `jobs` may block while downloads arrive; they are handed out as they come. `order` names the packages in plan
    order, which alone decides conflicts and the metadata of shared directories; without it the order of `jobs`
    does. `touched` is explained in `settle`. One Progress of stage `extract` is reported per package. The symlinks
    of a merged /usr must be there before.

    Raises PackageError (malformed or hostile; the package and the path are named), FileConflictError,
    StorageError (disk full, read-only) and HostError (chroot is not permitted). Nothing outside of `root` is
    touched in any case; what was laid inside stays.
    """
    rules = rules or Rules()
    with ExitStack() as stack:
        pool = _start_pool(stack, root, open_package, rules, workers)
        answers, ranks = _distribute(pool, jobs, order, report)
        by_rank = sorted(answers, key=ranks.__getitem__)
        laid = [(name, answers[name][1]) for name in by_rank]
        settlement = settle(laid, may_replace, touched)
        _carry_out(pool[0], settlement)
    return {name: _result(*answers[name], settlement.taken.get(name, set())) for name in by_rank}


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
                carry_out(_decoded_settlement(file.readall() or b""))
                return ()
            package = os.fsdecode(fields[0])
            opened = open_package(file.fileno(), package)
            try:
                traces = lay_package(package, int(fields[1]), opened, int(fields[2]), ground, rules)
            except ClashError as error:
                return (b"clash", error.args[0])
            return (b"laid", *_encoded(opened.control, traces))

    return task


_Answers = dict[str, tuple[ControlArchive, Traces]]


def _distribute(
    pool: Sequence[Worker], jobs: Iterable[Job], order: Sequence[str], report: Report
) -> tuple[_Answers, dict[str, int]]:
    """Hand every job to the next idle worker; return each package's answer and its place in the plan."""
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
                answers[job.package] = _decoded(fields[1:])
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
    if clashes:
        raise _clash_error(clashes[0], answers, ranks)
    return answers, ranks


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


def _clash_error(found: tuple[str, bytes], answers: _Answers, ranks: Mapping[str, int]) -> Exception:
    package, where = found
    laid = [(name, answers[name][1]) for name in sorted(answers, key=ranks.__getitem__)]
    earlier = sum(ranks[name] < ranks[package] for name, _ in laid)
    conflict = clash(laid, package, earlier, where)
    problem = "a directory where the root has something else"
    return conflict or PackageError(package, problem, os.fsdecode(where))


def _result(control: ControlArchive, traces: Traces, taken: set[bytes]) -> Laid:
    paths = tuple(_listed(path) for path in traces.paths if path not in taken)
    return Laid(control, paths, {b"/" + path: digest for path, digest in traces.digests.items()})


def _listed(path: bytes) -> bytes:
    return b"/" + path.rstrip(b"/") if path != b"/" else b"/."


def _carry_out(worker: Worker, settlement: Settlement) -> None:
    fd = os.memfd_create("settlement")
    try:
        _write_all(fd, _encoded_settlement(settlement))
        os.lseek(fd, 0, os.SEEK_SET)
        worker.send((b"", b"", b""), fd)
    finally:
        os.close(fd)
    worker.receive("the root")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _flat(rows: Iterable[Sequence[bytes]]) -> bytes:
    return pack([field for row in rows for field in row])


def _rows(data: bytes, width: int) -> list[tuple[bytes, ...]]:
    fields = unpack(data)
    return [tuple(fields[at : at + width]) for at in range(0, len(fields), width)]


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(row[0], row[1]) for row in _rows(data, 2)]


def _encoded_settlement(settlement: Settlement) -> bytes:
    lists = (pack(settlement.unlink), _flat(settlement.rename), _flat(settlement.directories))
    return pack(lists)


def _decoded_settlement(data: bytes) -> Settlement:
    unlink, rename, directories = unpack(data)
    return Settlement(unpack(unlink), _pairs(rename), _pairs(directories))


def _encoded(control: ControlArchive, traces: Traces) -> Fields:
    files = [(os.fsencode(name), b"%o" % mode, data) for name, (data, mode) in control.files.items()]
    return (
        control.fields,
        _flat(files),
        b"\0".join(traces.paths),
        b"\0".join(traces.directories),
        _flat(traces.aliases.items()),
        _flat(traces.moved.items()),
        pack(traces.absent),
        pack(traces.links),
        pack(traces.followed),
        pack(traces.yielded),
        _flat(traces.collisions),
        _flat((path, digest.encode()) for path, digest in traces.digests.items()),
    )


def _decoded(fields: Fields) -> tuple[ControlArchive, Traces]:
    files = {os.fsdecode(name): (data, int(mode, 8)) for name, mode, data in _rows(fields[1], 3)}
    traces = Traces(
        paths=fields[2].split(b"\0") if fields[2] else [],
        directories=fields[3].split(b"\0") if fields[3] else [],
        aliases=dict(_pairs(fields[4])),
        moved=dict(_pairs(fields[5])),
        absent=unpack(fields[6]),
        links=unpack(fields[7]),
        followed=unpack(fields[8]),
        yielded=unpack(fields[9]),
        collisions=[(row[0], row[1], row[2]) for row in _rows(fields[10], 3)],
        digests={path: digest.decode() for path, digest in _pairs(fields[11])},
    )
    return ControlArchive(fields[0], files), traces
