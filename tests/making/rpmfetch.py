"""One build's side of rpm-md repositories: a store, a network, keys, and a clock."""

from __future__ import annotations

import os
import time

import pytest

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.trusted import fetch_repomd
from rootfsbuild.repository.mirrors import Mirror, address
from rootfsbuild.repository.network import NetworkFetch
from rootfsbuild.repository.store import Store
from rootfsbuild.repository.transfer import Limits
from rootfsbuild.repository.trust import load_keyring

EVERY = frozenset({"expired", "rollback", "unsigned", "old"})


class Archive:
    """What rootfsbuild.distro.Archive is to the code under test."""

    def __init__(self, name="baseos", threshold=1, max_age_days=None):
        self.name, self.threshold, self.max_age_days = name, threshold, max_age_days


class Https:
    """A Fetch for which some https addresses, or what begins with them, lie elsewhere."""

    def __init__(self, fetch, places):
        self._fetch, self.places, self.asked = fetch, places, []

    def document(self, urls, **named):
        there = {self._place(url): url for url in urls}
        self.asked += urls
        found, url = self._fetch.document([*there], **named)
        return found, there[url]

    def _place(self, url):
        begin = next((begin for begin in self.places if url.startswith(begin)), None)
        return url if begin is None else self.places[begin] + url.removeprefix(begin)

    def __getattr__(self, name):
        return getattr(self._fetch, name)


class Build:
    """`build(mirror, …)` fetches and judges a repomd.xml."""

    def __init__(self, folder, key):
        self.folder, self.key = folder, key
        self.store = Store(str(folder / "cache"))
        self.heard = []
        self.network = NetworkFetch(self.store, self.heard.append, Limits(tries=2), pause=lambda _: None)
        self.https = {}
        self.fetch = Https(self.network, self.https)

    def keyring(self, keys):
        return load_keyring([("", one.write(self.folder / f"{one.fingerprint}.pgp")) for one in keys])

    def __call__(self, *mirrors, suite="9", relax=(), now=None, keys=None, fetch=None, archive=None, **named):
        return fetch_repomd(
            archive or Archive(),
            suite,
            [mirror if isinstance(mirror, Mirror) else Mirror(address(str(mirror)), "--mirror") for mirror in mirrors],
            fetch or self.fetch,
            self.store,
            self.keyring([self.key] if keys is None else keys),
            time.time() if now is None else now,
            self.heard.append,
            frozenset(relax),
            **named,
        )

    def publish(self, url, data):
        """Serve bytes at an https address."""
        path = self.folder / f"https-{len(self.https)}"
        path.write_bytes(data)
        self.https[url] = f"file://{path}"
        return url

    def weakened(self):
        return [event.weakens for event in self.heard if getattr(event, "weakens", "")]

    def texts(self):
        return " ".join(getattr(event, "text", "") for event in self.heard)

    def remembers(self):
        return os.path.exists(self.store.trust)


def refused(call, *arguments, rule, **named):
    with pytest.raises(UntrustedError) as caught:
        call(*arguments, **named)
    assert caught.value.rule == rule, caught.value
    return caught.value
