"""Reading from mirrors: in turn, again where it may help, in parallel, and never more than was promised."""

from __future__ import annotations

import contextlib
import functools
import queue
import random
import threading
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from rootfsbuild import events
from rootfsbuild.errors import FetchError, IntegrityError, UntrustedError
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.mirrors import without_password
from rootfsbuild.repository.transfer import Limits, TransferError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rootfsbuild.repository.store import Claim, Store

T = TypeVar("T")


_News = tuple[Wanted, int | str | BaseException]
"""What a thread tells of one blob: bytes that moved, its path at the end, or why it failed."""


class NetworkFetch:
    """Documents and blobs from mirrors; blobs end up in the store.

    `pause` waits for so many seconds and `chance` gives a number from 0 to 1: tests pass their own.
    """

    def __init__(
        self,
        store: Store,
        report: events.Report = events.ignore,
        limits: Limits | None = None,
        *,
        pause: Callable[[float], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store = store
        self.limits = limits or Limits()
        self._report = report
        self._wire = Wire(self.limits, self._check)
        self._here = threading.local()
        self._pause = pause or self._wait
        self._chance = chance
        self._unreachable: set[str] = set()
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the connections that were kept alive."""
        self._wire.close()

    def document(self, urls: Sequence[str], *, limit: int, label: str, accept: Callable[[bytes], T]) -> tuple[T, str]:
        """Return what `accept` made of the first document that it accepted, and that document's URL.

        `limit` is the most bytes it may have. An UntrustedError from `accept` leads to the next URL. When
        none is left: the first UntrustedError, else FetchError with every URL tried and why it failed.
        """
        untrusted: list[UntrustedError] = []

        def attempt(url: str) -> T:
            data = self._read(url, limit)
            try:
                return accept(data)
            except UntrustedError as error:
                untrusted.append(error)
                raise TransferError(error.describe()) from error

        try:
            return self._in_turn(urls, label, attempt)
        except FetchError:
            if untrusted:
                raise untrusted[0] from None
            raise

    def require(self, wanted: Iterable[Wanted]) -> None:
        """Do nothing: what a mirror has is known only by asking for it."""

    def blob(self, wanted: Wanted) -> str:
        """Return the path of verified bytes, from the store or from a mirror.

        Raises IntegrityError if a mirror gave complete bytes and they were wrong, else FetchError;
        StorageError if the store cannot take them.
        """
        return self._blob(wanted, lambda amount: self._report(events.Progress("fetch", amount, wanted.label)))

    def blobs(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Yield each blob with its path as soon as it is there, the largest asked for first.

        Reports bytes as Progress of stage `fetch`, from the caller's thread; the amounts of one blob sum to
        its size, so that one is negative where bytes have to be fetched again. At the first error, or when
        the caller stops taking, all transfers are cut and their threads ended.
        """
        jobs: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
        news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        ordered = sorted(wanted, key=lambda one: -one.size)
        for one in ordered:
            jobs.put(one)
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(jobs, news, stop), name=f"fetch {number}", daemon=True)
            for number in range(min(self.limits.connections, len(ordered)))
        ]
        try:
            for thread in threads:
                thread.start()
            yield from self._arrivals(news, len(ordered))
        finally:
            stop.set()
            self._wire.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(2)  # one that still waits for a connection ends by its time-out, unheard

    def _arrivals(self, news: queue.SimpleQueue[_News], count: int) -> Iterator[tuple[Wanted, str]]:
        while count:
            one, what = news.get()
            if isinstance(what, BaseException):
                raise what
            if isinstance(what, int):
                self._report(events.Progress("fetch", what, one.label))
            else:
                count -= 1
                yield one, what

    def _work(
        self,
        jobs: queue.SimpleQueue[Wanted],
        news: queue.SimpleQueue[_News],
        stop: threading.Event,
    ) -> None:
        self._here.stop = stop
        while not stop.is_set():
            try:
                one = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                news.put((one, self._blob(one, functools.partial(_tell, news, one))))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                news.put((one, error))
                return

    def _blob(self, wanted: Wanted, moved: Callable[[int], None]) -> str:
        found = self.store.find(wanted.sha256, wanted.size)
        if found is None:
            with self.store.claim(wanted.sha256, self._pause) as claim:
                found = self.store.find(wanted.sha256, wanted.size)  # another build may have been faster
                if found is None:
                    return self._fill(claim, wanted, moved)
        moved(wanted.size)
        return found

    def _fill(self, claim: Claim, wanted: Wanted, moved: Callable[[int], None]) -> str:
        moved(claim.have)
        validators: dict[str, str] = {}
        wrong: list[tuple[str, str]] = []

        def attempt(url: str) -> None:
            try:
                _pull(self._wire, claim, url, wanted, validators=validators, moved=moved)
            except TransferError as error:
                if error.actual:
                    wrong.append((url, error.actual))
                raise

        try:
            self._first_then_late(wanted, attempt)
        except FetchError as error:
            if not wrong:
                raise
            url, actual = wrong[0]
            tried = "; ".join(f"{place}: {reason}" for place, reason in error.attempts)
            expected = f"{wanted.size} bytes with SHA-256 {wanted.sha256}"
            subject = f"{wanted.label} from {without_password(url)}"
            raise IntegrityError(subject, expected, actual, hint=f"tried {tried}") from None
        return claim.publish()

    def _first_then_late(self, wanted: Wanted, attempt: Callable[[str], None]) -> None:
        try:
            self._in_turn(wanted.urls, wanted.label, attempt)
        except FetchError as missed:
            if not wanted.late:
                raise
            try:
                with self._one_at_a_time:
                    self._in_turn(wanted.late, wanted.label, attempt)
            except FetchError as error:
                attempts, absent = (*missed.attempts, *error.attempts), (*missed.absent, *error.absent)
                raise FetchError(wanted.label, attempts, absent, hint=error.hint) from None

    def _read(self, url: str, limit: int) -> bytes:
        data = bytearray()
        with self._wire.open(url, seconds=self.limits.document) as answer:
            if answer.length is not None and answer.length > limit:
                raise TransferError(f"has {answer.length} bytes, more than {limit}")
            for chunk in answer.chunks:
                data += chunk
                if len(data) > limit:
                    raise TransferError(f"has more than {limit} bytes")
            if answer.length is not None and len(data) != answer.length:
                raise TransferError(f"ended after {len(data)} of {answer.length} bytes", passing=True)
        return bytes(data)

    def _in_turn(self, urls: Sequence[str], label: str, attempt: Callable[[str], T]) -> tuple[T, str]:
        """Try every URL, then, after a pause, those again whose failure may pass; raise FetchError."""
        attempts: list[tuple[str, str]] = []
        absent: list[str] = []
        remaining = list(dict.fromkeys(urls))
        for round_ in range(self.limits.tries):
            passing, after = [], 0.0
            for url in sorted(remaining, key=lambda url: urlsplit(url).netloc in self._unreachable):
                try:
                    return attempt(url), url
                except TransferError as error:
                    attempts.append((url, error.reason))
                    absent += [url] if error.absent else []
                    self._note(url, error)
                    if error.passing:
                        passing.append(url)
                        after = max(after, error.after)
                self._check()
            if not passing or round_ + 1 == self.limits.tries:
                break
            remaining = passing
            self._pause(self._back_off(round_, after))
            self._check()
        told = {without_password(url): reason for url, reason in attempts}
        raise FetchError(label, tuple(told.items()), absent, hint=_hint(attempts, absent))

    def _back_off(self, round_: int, after: float) -> float:
        """Return seconds: doubling, jittered by half, at least what Retry-After asks, within bounds."""
        pause = self.limits.pause * (1 << round_) * (0.5 + self._chance())
        return min(max(pause, after), self.limits.longest_pause)

    def _note(self, url: str, error: TransferError) -> None:
        """Remember servers that cannot be reached, so that they are asked last from now on."""
        place = urlsplit(url).netloc
        if error.unreachable:
            self._unreachable.add(place)
        else:
            self._unreachable.discard(place)

    def _wait(self, seconds: float) -> None:
        stop: threading.Event = getattr(self._here, "stop", None) or threading.Event()
        stop.wait(seconds)
        self._check()

    def _check(self) -> None:
        stop: threading.Event | None = getattr(self._here, "stop", None)
        if stop is not None and stop.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """The build no longer wants what this thread fetches."""


def _tell(news: queue.SimpleQueue[_News], one: Wanted, amount: int) -> None:
    news.put((one, amount))


def open_network(
    store: Store, report: events.Report = events.ignore, limits: Limits | None = None
) -> contextlib.closing[NetworkFetch]:
    """Return a NetworkFetch as a context that closes its connections."""
    return contextlib.closing(NetworkFetch(store, report, limits))


def _pull(
    wire: Wire,
    claim: Claim,
    url: str,
    wanted: Wanted,
    *,
    validators: dict[str, str],
    moved: Callable[[int], None],
) -> None:
    """Bring the partial file to its full and right content from one URL, or raise TransferError.

    What is there already may be anything: bytes of another mirror, of an earlier build, of an attacker. Only
    the hash of the whole decides; where it is wrong after a resumption, the same URL is asked once from zero.
    """
    resumed = claim.have > 0
    try:
        _append(wire, claim, url, wanted, validators=validators, moved=moved)
    except TransferError as error:
        if not resumed or not (error.actual or error.status == 416):
            raise
        _drop(claim, moved)
        _append(wire, claim, url, wanted, validators=validators, moved=moved)


def _append(
    wire: Wire,
    claim: Claim,
    url: str,
    wanted: Wanted,
    *,
    validators: dict[str, str],
    moved: Callable[[int], None],
) -> None:
    if claim.have > wanted.size:
        _drop(claim, moved)
    digest = claim.prefix()
    if claim.have < wanted.size or not wanted.size:
        with wire.open(url, offset=claim.have, validator=validators.get(url, "")) as answer:
            validators[url] = answer.validator
            if answer.start == 0 and claim.have:
                _drop(claim, moved)
                digest = claim.prefix()
            if answer.length is not None and answer.start + answer.length != wanted.size:
                total = answer.start + answer.length
                raise TransferError(f"has {total} bytes, not {wanted.size}", actual=f"{total} bytes")
            for chunk in answer.chunks:
                if claim.have + len(chunk) > wanted.size:
                    _drop(claim, moved)
                    raise TransferError(f"has more than {wanted.size} bytes", actual="more bytes")
                digest.update(chunk)
                claim.write(chunk)
                moved(len(chunk))
    if claim.have < wanted.size:
        raise TransferError(f"ended after {claim.have} of {wanted.size} bytes", passing=True)
    if digest.hexdigest() != wanted.sha256:
        _drop(claim, moved)
        raise TransferError(f"has the SHA-256 {digest.hexdigest()}", actual=f"SHA-256 {digest.hexdigest()}")


def _drop(claim: Claim, moved: Callable[[int], None]) -> None:
    moved(-claim.have)
    claim.restart()


def _hint(attempts: Sequence[tuple[str, str]], absent: Sequence[str]) -> str:
    if not attempts:
        return "name a mirror with --mirror NAME=URL"
    if {url for url, _ in attempts} <= set(absent):
        return "the servers answer, but have no such file: check the suite's name and the mirror's address"
    return "check the network and the proxy variables, or name another mirror with --mirror NAME=URL"
