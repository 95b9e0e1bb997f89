"""A mirror on loopback that has what the host's mirror has, and counts what it is asked for."""

from __future__ import annotations

import collections
import contextlib
import threading
import urllib.error
import urllib.parse
import urllib.request

from making.builds import mirror_at_hand
from making.server import serve


class Passing:
    """Path to bytes, taken from another mirror when first asked for."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.found = {}
        self.locks = collections.defaultdict(threading.Lock)

    def __contains__(self, path):
        return self._get(path) is not None

    def __getitem__(self, path):
        return self._get(path)

    def _get(self, path):
        with self.locks[path]:
            if path not in self.found:
                self.found[path] = self._fetch(path)
        return self.found[path]

    def _fetch(self, path):
        try:
            with urllib.request.urlopen(self.upstream + path, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            return None


class Mirror:
    def __init__(self, server):
        self.url = server.url
        self.server = server

    def requests(self, prefix=""):
        """Return how often each path was asked for."""
        with self.server.lock:
            return collections.Counter(one.path for one in self.server.asked if one.path.startswith(prefix))


@contextlib.contextmanager
def filling_mirror(archive="debian", release="bookworm"):
    """Serve an archive from loopback."""
    with serve(Passing(mirror_at_hand(archive, release))) as server:
        yield Mirror(server)
