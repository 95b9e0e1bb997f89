"""Reading from the store alone: what an earlier build left there, and a whole list of what it did not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from rootfsbuild import events
from rootfsbuild.errors import FetchError, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rootfsbuild.repository.fetch import Wanted
    from rootfsbuild.repository.store import Store

T = TypeVar("T")

_THREADS = 4
_HINT = "build once with the network, or use a bundle (--bundle FILE)"


class StoreFetch:
    """A Fetch that knows only the store; documents are addressed by `signed:<sha256>` and `latest:<archive>`."""

    def __init__(self, store: Store, report: events.Report = events.ignore) -> None:
        self._store = store
        self._report = report

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what `accept` made of the first document here that it accepted; raises as Fetch does."""
        return first_accepted(urls, self._look, limit=limit, label=label, accept=accept, hint=_HINT)

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes; raise FetchError if they are not in the store."""
        path = self._store.find(wanted.sha256, wanted.size)
        if path is None:
            raise missing([wanted], "the store", _HINT)
        self._report(events.Progress("fetch", wanted.size, wanted.label))
        return path

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path; before the first, raise FetchError that lists all that are not here."""
        ordered = list(wanted)
        self.require(ordered)
        yield from arrivals(lambda one, _: self._find(one), ordered, self._report)

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Raise FetchError that lists everything of `wanted` that is not in the store intact."""
        ordered = list(wanted)
        found = {one for one, path in arrivals(lambda one, _: self._search(one), ordered, events.ignore) if path}
        absent = [one for one in ordered if one not in found]
        if absent:
            raise missing(absent, "the store", _HINT)

    def _search(self, wanted: Wanted) -> str:
        return self._store.find(wanted.sha256, wanted.size) or ""

    def _find(self, wanted: Wanted) -> str:
        path = self._search(wanted)
        if not path:
            raise missing([wanted], "the store", _HINT)
        return path

    def _look(self, url: str) -> bytes | str:
        scheme, name, path = split_address(url)
        if scheme == "signed":
            return self._store.signed(name, path) or "not in the store"
        if scheme == "latest":
            return self._store.latest(name, path) or "not in the store"
        return "offline"


def split_address(url: str) -> tuple[str, str, str]:
    """Return scheme, name and path of a kept document's address: `signed:<sha256>/dists/bookworm/InRelease`."""
    scheme, _, rest = url.partition(":")
    name, _, path = rest.partition("/")
    return scheme, name, path


def first_accepted(
    urls: Iterable[str],
    look: Callable[[str], bytes | str],
    *,
    limit: int,
    label: str,
    accept: Callable[[bytes], T],
    hint: str,
) -> tuple[T, str]:
    """Return what `accept` made of the first document that it accepted, and its URL.

    `look` gives a document's bytes, or why there are none. Raises the first UntrustedError, else FetchError.
    """
    untrusted: list[UntrustedError] = []
    attempts: list[tuple[str, str]] = []
    absent: list[str] = []
    for url in dict.fromkeys(urls):
        found = look(url)
        if isinstance(found, str):
            attempts.append((url, found))
            absent.append(url)
        elif len(found) > limit:
            attempts.append((url, f"has {len(found)} bytes, more than {limit}"))
        else:
            try:
                return accept(found), url
            except UntrustedError as error:
                untrusted.append(error)
    if untrusted:
        raise untrusted[0]
    raise FetchError(label, tuple(attempts), tuple(absent), hint=hint)


def missing(absent: Sequence[Wanted], where: str, hint: str) -> FetchError:
    """Return the error that lists what is not in `where`, whole."""
    size = sum(one.size for one in absent)
    count = f"{len(absent)} files" if len(absent) > 1 else "1 file"
    verb = "are" if len(absent) > 1 else "is"
    subject = f"{count} ({size / 1e6:.1f} MB) that {verb} not in {where}"
    return FetchError(subject, tuple((one.label, f"not in {where}") for one in absent), hint=hint)


def arrivals(
    get: Callable[[Wanted, Callable[[float], None]], str], wanted: Iterable[Wanted], report: events.Report
) -> Iterator[tuple[Wanted, str]]:
    """Yield each blob with what `get` returned for it, the largest first; some are got beside the caller's work.

    `get` takes the blob and a function that waits for so many seconds, unless the caller has stopped taking.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - costs 10 ms at start-up

    ordered = sorted(wanted, key=lambda one: -one.size)
    stop = threading.Event()

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise _StoppedError

    pool = ThreadPoolExecutor(_THREADS, "fetch")
    try:
        for one, path in zip(ordered, pool.map(lambda one: get(one, pause), ordered), strict=True):
            report(events.Progress("fetch", one.size, one.label))
            yield one, path
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """The build no longer wants what this thread gets."""
