"""What a test of fetching starts from: a store, a NetworkFetch that writes down its pauses, and blobs to want."""

from __future__ import annotations

import hashlib
import threading

import pytest

from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.network import NetworkFetch
from rootfsbuild.repository.store import Store


def make_fixtures(**settings):
    """Return a module's fixtures `store`, `pauses` (seconds, none of them waited) and `fetch`.

    `settings` are those of the NetworkFetch; chance is always in the middle.
    """

    @pytest.fixture
    def store(tmp_path):
        return Store(str(tmp_path / "cache"))

    @pytest.fixture
    def pauses():
        return []

    @pytest.fixture
    def fetch(store, pauses):
        made = NetworkFetch(store, pause=pauses.append, chance=lambda: 0.5, **settings)
        yield made
        made.close()

    return store, pauses, fetch


def want(data, *urls, label="thing"):
    return Wanted(urls, len(data), hashlib.sha256(data).hexdigest(), label)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def fetch_threads():
    """Return the threads that transfer; the watchdog ends by itself a little later."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch ") and "dog" not in thread.name]
