"""One attempt to read one URL (http, https or file), within bounds that no server can stretch."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from rootfsbuild import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

CHUNK = 65536
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
ABSENT = {401, 403, 404, 410, 451}


@dataclass(frozen=True)
class Limits:
    """How long and how often to try; the defaults suit a slow line and a far mirror."""

    connections: int = 8
    connect: float = 15
    """Seconds until a server must have taken the connection."""
    read: float = 30
    """Seconds that may pass without a single byte."""
    window: float = 30
    """Seconds over which the rate is measured."""
    rate: float = 1500
    """Bytes a second that a server must keep up."""
    document: float = 120
    """Seconds for a whole document whose size is not known beforehand."""
    tries: int = 3
    """Rounds over all mirrors, for failures that may pass."""
    pause: float = 0.5
    """Seconds before the second round; doubled for each further one."""
    longest_pause: float = 30
    """Seconds at most, also where Retry-After asks for more."""
    redirects: int = 5


@dataclass
class TransferError(Exception):
    """Why one attempt failed."""

    reason: str
    passing: bool = False
    """Whether the same request may succeed later."""
    after: float = 0.0
    """Seconds that the server asks to wait (Retry-After, RFC 9110, 10.2.3)."""
    absent: bool = False
    """Whether the server says that there is no such document."""
    unreachable: bool = False
    """Whether no server answered at all."""
    status: int = 0
    """The HTTP status, 0 where there was none."""
    actual: str = ""
    """For complete bytes that are the wrong ones: their digest or length."""

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Answer:
    """Bytes on their way."""

    start: int
    """Offset of the first byte: 0 where a request for the rest was ignored."""
    length: int | None
    """Bytes that follow, if the server says so."""
    validator: str
    """A strong ETag or a Last-Modified that If-Range can use (RFC 9110, 13.1.5), else empty."""
    chunks: Iterator[bytes]


@dataclass(eq=False)
class _Watched:
    """A transfer under way, as the watchdog sees it."""

    deadline: float
    measured: float
    received: int = 0
    counted: int = 0
    socket: socket.socket | None = None
    verdict: str = ""


class Wire:
    """Connections kept alive between requests, and the watchdog that cuts those that stall.

    A timeout on a socket starts anew with every byte, so that a server can trickle for ever, in its headers
    as in its body. The watchdog measures the rate instead; it also ends every transfer when a build stops.
    `check` raises in a thread whose transfers are no longer wanted.
    """

    def __init__(self, limits: Limits, check: Callable[[], None] = lambda: None) -> None:
        self.limits = limits
        self._check = check
        self._idle: deque[requests.Session] = deque()
        self._here = threading.local()
        self._lock = threading.Lock()
        self._active: set[_Watched] = set()
        self._watching = False

    @contextlib.contextmanager
    def open(self, url: str, *, offset: int = 0, validator: str = "", seconds: float | None = None) -> Iterator[Answer]:
        """Ask for a URL from `offset` on, at most `seconds` long; raise TransferError."""
        if urlsplit(url).scheme == "file":
            with _open_file(url, offset) as answer:
                yield answer
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": f"rootfsbuild/{__version__}"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator:
                headers["If-Range"] = validator
        with self._watched(seconds) as watched, self._session() as session, _translated(watched):
            response = self._follow(session, url, headers)
            try:
                yield _answer(response, offset, watched)
            finally:
                response.close()

    def stop(self) -> None:
        """End every transfer that is under way; safe from any thread."""
        with self._lock:
            for watched in self._active:
                _cut(watched, "stopped")

    def close(self) -> None:
        """Close the connections that were kept."""
        while self._idle:
            self._idle.popleft().close()

    def _follow(self, session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.Response:
        there = url
        timeout = (self.limits.connect, self.limits.read)
        for _ in range(self.limits.redirects + 1):
            response = session.get(there, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
            if not response.is_redirect:
                return response
            target = urljoin(there, response.headers["location"])
            _drain(response)
            response.close()
            before, after = urlsplit(there).scheme, urlsplit(target).scheme
            if after not in {"http", "https"} or (before == "https" and after != "https"):
                raise TransferError(f"is redirected from {before} to {target}")
            there = target
        raise TransferError(f"is redirected more than {self.limits.redirects} times")

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        try:
            session = self._idle.pop()
        except IndexError:
            session = _new_session(self._here)
        try:
            yield session
        finally:
            self._idle.append(session)

    @contextlib.contextmanager
    def _watched(self, seconds: float | None) -> Iterator[_Watched]:
        now = time.monotonic()
        watched = _Watched(now + (seconds or float("inf")), now)
        self._here.watched = watched
        with self._lock:
            self._active.add(watched)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="fetch watchdog", daemon=True).start()
        try:
            self._check()  # after it can be cut: whoever stops first tells the threads, then cuts
            yield watched
        finally:
            self._here.watched = None
            with self._lock:
                self._active.discard(watched)

    def _watch(self) -> None:
        """Cut slow transfers until none has been active for a moment."""
        idle = 0
        while True:
            time.sleep(min(0.2, self.limits.window / 4))
            with self._lock:
                idle = 0 if self._active else idle + 1
                if idle > 5:
                    self._watching = False
                    return
                for watched in self._active:
                    self._judge(watched, time.monotonic())

    def _judge(self, watched: _Watched, now: float) -> None:
        if now > watched.deadline:
            _cut(watched, "took too long")
        elapsed = now - watched.measured
        if elapsed >= self.limits.window:
            rate = (watched.received - watched.counted) / elapsed
            if rate < self.limits.rate:
                _cut(watched, f"came at {rate:.0f} bytes a second, less than {self.limits.rate:.0f}")
            watched.measured, watched.counted = now, watched.received


def _cut(watched: _Watched, verdict: str) -> None:
    watched.verdict = watched.verdict or verdict
    if watched.socket is not None:
        with contextlib.suppress(OSError):  # the reader sees the end of the stream and looks at the verdict
            socket.socket.shutdown(watched.socket, socket.SHUT_RDWR)


def _new_session(here: threading.local) -> requests.Session:
    """Return a session whose connections show their sockets to the watchdog."""
    import requests.adapters  # noqa: PLC0415 - costs 180 ms at start-up
    import urllib3.connection  # noqa: PLC0415 - the same
    import urllib3.connectionpool  # noqa: PLC0415 - the same

    def shown(base: type[Any]) -> type[Any]:
        def getresponse(self: Any) -> Any:
            watched = getattr(here, "watched", None)
            if watched is not None:
                watched.socket = self.sock
                if watched.verdict:
                    raise ConnectionAbortedError(watched.verdict)
            return base.getresponse(self)

        return type(base.__name__, (base,), {"getresponse": getresponse})

    schemes = {
        "http": (urllib3.connectionpool.HTTPConnectionPool, urllib3.connection.HTTPConnection),
        "https": (urllib3.connectionpool.HTTPSConnectionPool, urllib3.connection.HTTPSConnection),
    }
    pools = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": shown(connection)})
        for scheme, (pool, connection) in schemes.items()
    }

    class Adapter(requests.adapters.HTTPAdapter):
        """The adapter of requests, with pools that make such connections."""

        def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
            super().init_poolmanager(*arguments, **named)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: Any, **named: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **named)
            manager.pool_classes_by_scheme = pools
            return manager

    session = requests.Session()
    for scheme in pools:
        session.mount(f"{scheme}://", Adapter(pool_connections=4, pool_maxsize=1))
    return session


@contextlib.contextmanager
def _translated(watched: _Watched) -> Iterator[None]:
    """Turn what requests, urllib3 and http.client raise into a TransferError."""
    import http.client  # noqa: PLC0415 - costs 18 ms at start-up

    import requests  # noqa: PLC0415 - costs 180 ms at start-up
    import urllib3.exceptions  # noqa: PLC0415 - the same

    lasting = (requests.exceptions.SSLError, ValueError)
    try:
        yield
    except TransferError:
        raise
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    ) as error:
        reason = watched.verdict or _reason(error)
        nobody = isinstance(error, requests.ConnectionError) and watched.socket is None
        passing = not isinstance(error, lasting)
        raise TransferError(reason, passing=passing, unreachable=nobody) from error


def _reason(error: BaseException) -> str:
    """Return the innermost cause, which is the one that says something."""
    import requests  # noqa: PLC0415 - costs 180 ms at start-up

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: BaseException | None = error
    text = ""
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            text = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return text or str(error).partition("\n")[0] or type(error).__name__


def _answer(response: requests.Response, offset: int, watched: _Watched) -> Answer:
    status = response.status_code
    if status not in {200, 206}:
        asked = _retry_after(response.headers.get("retry-after", ""))
        reason = f"HTTP {status} {response.reason or ''}".rstrip()
        _drain(response)
        raise TransferError(reason, passing=status in TRANSIENT, after=asked, absent=status in ABSENT, status=status)
    start = 0
    if status == 206:
        told = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        if told is None or int(told[1]) != offset:
            raise TransferError("sent another part than the one asked for")
        start = offset
    length = response.headers.get("content-length", "")
    etag = response.headers.get("etag", "")
    validator = etag if etag.startswith('"') else response.headers.get("last-modified", "")
    number = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    return Answer(start, number, validator, _chunks(response, watched))


def _chunks(response: requests.Response, watched: _Watched) -> Iterator[bytes]:
    # read1 gives what has come, so that the rate of a slow server is seen; urllib3 before 2.1 lacks it.
    read = getattr(response.raw, "read1", response.raw.read)
    while chunk := read(CHUNK, decode_content=False):
        watched.received += len(chunk)
        yield chunk
    if watched.verdict:
        raise TransferError(watched.verdict, passing=True)


def _drain(response: requests.Response) -> None:
    """Read the short body of an error, so that the connection can be used again."""
    if response.headers.get("content-length", "").isdecimal():
        response.raw.read(CHUNK, decode_content=False)


def _retry_after(value: str) -> float:
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    if not value:
        return 0.0
    import email.utils  # noqa: PLC0415 - seldom needed

    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


@contextlib.contextmanager
def _open_file(url: str, offset: int) -> Iterator[Answer]:
    try:
        path = unquote(urlsplit(url).path)
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TransferError("is not a regular file")
            start = min(offset, status.st_size)
            file.seek(start)
            yield Answer(start, status.st_size - start, "", iter(lambda: file.read(CHUNK), b""))
    except OSError as error:
        raise TransferError(error.strerror or str(error), absent=True) from error
