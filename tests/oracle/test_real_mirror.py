"""What a real mirror of Debian serves, against the keys that this host holds for it."""

from __future__ import annotations

import os
import time

import pytest
from making.signed import Archive

from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.deb.trusted import fetch_release
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.mirrors import find_mirrors
from rootfsbuild.repository.network import NetworkFetch
from rootfsbuild.repository.store import Store
from rootfsbuild.repository.trust import load_keyring

pytestmark = pytest.mark.oracle
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    if not os.path.exists(KEYS):
        pytest.skip(f"{KEYS} is not here: install debian-archive-keyring")
    store = Store(str(tmp_path_factory.mktemp("cache")))
    fetch = NetworkFetch(store)
    heard = []

    def run(name, suite, relax=(), now=None):
        mirrors = find_mirrors(name, [], distro="debian", suites=[suite], overrides={}, environ=os.environ)
        if not mirrors:
            pytest.skip(f"neither this host nor the environment names a mirror of {name}")
        heard.clear()
        try:
            return fetch_release(
                Archive(name=name),
                suite,
                mirrors,
                fetch,
                store,
                load_keyring([("", KEYS)]),
                now or time.time(),
                heard.append,
                frozenset(relax),
            )
        except FetchError as error:
            if error.absent:
                raise
            pytest.skip(f"no network: {error}")

    run.fetch, run.heard = fetch, heard
    return run


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("debian", "bookworm"),
        ("debian", "bookworm-updates"),
        ("debian-security", "bookworm-security"),
        ("debian", "trixie"),
    ],
)
def test_release_verifies(build, name, suite):
    trusted = build(name, suite)
    assert trusted.release.codename == suite
    assert trusted.signers
    assert trusted.release.acquire_by_hash
    component = "updates/main" if name == "debian-security" else "main"
    assert component in trusted.release.components
    assert "main/binary-amd64/Packages.xz" in trusted.release.indexes
    assert not build.heard


def test_index_by_hash(build):
    trusted = build("debian-security", "bookworm-security")
    index = trusted.release.indexes["main/binary-amd64/Packages.xz"]
    folder = f"{trusted.base}/dists/bookworm-security/main/binary-amd64"
    wanted = Wanted((f"{folder}/by-hash/SHA256/{index.sha256}",), index.size, index.sha256, "Packages.xz")
    assert os.path.getsize(build.fetch.blob(wanted)) == index.size


def test_lapsed_sid_is_refused_with_the_date_and_taken_with_its_switch(build):
    end = build("debian", "sid", relax=["expired"]).release.valid_until
    late = max(time.time(), end + 1)
    with pytest.raises(UntrustedError) as caught:
        build("debian", "sid", now=late)
    assert caught.value.rule == "expired"
    assert time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(end)) in str(caught.value)
    assert "--allow=expired" in caught.value.hint
    assert build("debian", "sid", now=late, relax=["expired"]).release.suite == "unstable"
    assert [event.weakens for event in build.heard] == ["expired"]


def test_suite_by_another_name_is_taken_but_not_another_suite(build):
    assert build("debian", "stable").release.suite == "stable"
    with pytest.raises(FetchError):
        build("debian", "no-such-suite")
