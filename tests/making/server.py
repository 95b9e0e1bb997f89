"""A loopback HTTP server that misbehaves on request."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock


@dataclass
class Asked:
    path: str
    headers: dict
    connection: int


@dataclass
class Server:
    url: str
    files: dict
    folder: Path | None = None
    faults: dict = field(default_factory=dict)
    """Path to an iterable of faults, one for each request; afterwards the path is served properly."""
    asked: list = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    delay: float = 0.0
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path):
        return sum(one.path == path for one in self.asked)

    def body(self, path):
        if path in self.files:
            return self.files[path]
        file = self.folder / path.lstrip("/") if self.folder else None
        return file.read_bytes() if file and file.is_file() else None


@contextlib.contextmanager
def serve(files=None, *, folder=None, faults=None, delay=0.0):
    """Serve files (path to bytes) and a folder; `faults`: by path, for its requests in turn."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, self.client_address[1])
            with server.lock:
                server.asked.append(asked)
                server.busy += 1
                server.busiest = max(server.busiest, server.busy)
                fault = next(server.faults.get(self.path, iter(())), None)
            try:
                server.ended.wait(server.delay)
                body = server.body(self.path)
                with contextlib.suppress(ConnectionError):
                    if fault is not None:
                        fault(self, body or b"")
                    elif body is None:
                        reply(self, 404, b"<html>not here</html>")
                    else:
                        reply_properly(self, body)
            finally:
                with server.lock:
                    server.busy -= 1

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_):
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    turns = {path: iter(turn) for path, turn in (faults or {}).items()}
    server = Server(
        f"http://127.0.0.1:{http.server_port}",
        files or {},
        Path(folder) if folder else None,
        turns,
        delay=delay,
    )
    http.owner = server
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    with mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1"}):
        try:
            yield server
        finally:
            server.ended.set()
            http.shutdown()
            http.server_close()
            thread.join()


def reply(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    if "Content_Length" not in headers:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def etag(body):
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def reply_properly(handler, body, tag=None):
    """Answer as a good server does, Range and If-Range included."""
    tag = tag or etag(body)
    wanted = handler.headers.get("Range", "")
    same = handler.headers.get("If-Range", tag) == tag
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and same else 0
    if wanted and same and start >= len(body):
        reply(handler, 416, b"", Content_Range=f"bytes */{len(body)}")
    elif start:
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        reply(handler, 206, body[start:], Content_Range=span, ETag=tag)
    else:
        reply(handler, 200, body, ETag=tag)


def status(code, **headers):
    return lambda handler, _: reply(handler, code, b"<html>trouble</html>", **headers)


def instead(other, **headers):
    """Serve other bytes with status 200."""
    return lambda handler, _: reply(handler, 200, other, **headers)


def redirect(target, code=302):
    return lambda handler, _: reply(handler, code, b"", Location=target)


def cut_off(after, tag=None):
    """Promise the whole body and end the connection after some bytes of what was asked for."""

    def fault(handler, body):
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        handler.send_header("ETag", tag or etag(body))
        handler.end_headers()
        handler.wfile.write(body[start : start + after])
        hang_up(handler)

    return fault


def ignore_range(handler, body):
    """Send everything, whatever was asked for."""
    reply(handler, 200, body, ETag=etag(body))


def endless(handler, body):
    """Send bytes for ever, without saying how many."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while not handler.server.owner.ended.is_set():
        handler.wfile.write(b"x" * 65536)


def trickle(handler, body):
    """Send one byte every now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    drip(handler, body)


def trickle_headers(handler, body):
    """Send headers for ever, a byte at a time."""
    drip(handler, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10000)


def drip(handler, data):
    for number in range(len(data)):
        if handler.server.owner.ended.wait(0.05):
            return
        handler.wfile.write(data[number : number + 1])
        handler.wfile.flush()


def silent(handler, body):
    """Take the request and say nothing."""
    handler.server.owner.ended.wait(60)


def hang_up(handler, body=b""):
    handler.wfile.flush()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def closed_port():
    """Return the URL of a port on which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
