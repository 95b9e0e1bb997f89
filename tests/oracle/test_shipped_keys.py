"""The keys that the distribution file names, against what the mirrors of the real archive serve."""

from __future__ import annotations

import os
import time

import pytest

from rootfsbuild.distro import load_distro
from rootfsbuild.errors import UntrustedError
from rootfsbuild.repository.mirrors import find_mirrors
from rootfsbuild.repository.trust import load_keyring, verify_inline

DEBIAN = load_distro("debian")
SUITES = [
    pytest.param(release, archive, suite, id=f"{archive.name}-{suite}")
    for release in DEBIAN.releases
    for archive in release.archives
    for suite in archive.suites
]
pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def fetch():
    import requests

    session = requests.Session()
    documents = {}

    def fetch_document(archive, suite):
        if (archive.name, suite) not in documents:
            documents[archive.name, suite] = _first_answer(session, archive, suite)
        return documents[archive.name, suite]

    yield fetch_document
    session.close()


def _first_answer(session, archive, suite):
    import requests

    mirrors = find_mirrors(
        archive.name,
        archive.mirrors,
        distro="debian",
        suites=archive.suites,
        overrides={},
        environ=os.environ,
    )
    for mirror in mirrors:
        try:
            answer = session.get(f"{mirror.url}/dists/{suite}/InRelease", timeout=(5, 30))
        except requests.RequestException:
            continue
        assert answer.status_code == 200, f"{mirror.url} has no {suite}"
        return answer.content
    pytest.skip(f"no mirror of {archive.name} can be reached")


def _fields(body):
    lines = body.decode("utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))


@pytest.mark.parametrize(("release", "archive", "suite"), SUITES)
def test_the_named_keys_and_only_those_sign_the_suite(release, archive, suite, fetch):
    document = fetch(archive, suite)
    keyring = load_keyring([(key.fingerprint, key.path) for key in archive.keys])
    verified = verify_inline(document, keyring, time.time(), threshold=archive.threshold)
    others = [key for key in DEBIAN.keys.values() if key not in archive.keys]
    with pytest.raises(UntrustedError) as caught:
        verify_inline(document, load_keyring([(key.fingerprint, key.path) for key in others]), time.time())
    assert caught.value.rule in {"key", "signature"}
    # A release's own "stable" key signs its first suite only, by hand at each point release.
    automatic = {key.fingerprint for key in archive.keys if "stable" not in key.path}
    assert automatic <= set(verified.signers)
    fields = _fields(verified.body)
    assert fields["Codename"] == suite
    served = set(archive.architectures or release.architectures)
    assert served <= set(fields["Architectures"].split())
    known = {component.removeprefix("updates/") for component in fields["Components"].split()}
    assert known == set(release.components)


def test_each_stable_key_signs_its_release(fetch):
    for release in DEBIAN.releases:
        archive = release.archives[0]
        stable = [key for key in archive.keys if "stable" in key.path]
        if stable:
            keyring = load_keyring([(key.fingerprint, key.path) for key in stable])
            verified = verify_inline(fetch(archive, release.codename), keyring, time.time())
            assert verified.signers == (stable[0].fingerprint,)
