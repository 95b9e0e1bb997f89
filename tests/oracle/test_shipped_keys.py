"""The keys that distribution files name, against what real mirrors serve: what they sign, and where they are from."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from rootfsbuild.distro import distro_names, load_distro
from rootfsbuild.errors import FetchError, UntrustedError
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.planning import fetching, open_sources, resolve
from rootfsbuild.recipe import load_recipe
from rootfsbuild.repository.mirrors import find_mirrors
from rootfsbuild.repository.trust import load_keyring, verify_inline
from rootfsbuild.settings import Settings

DEBIAN = load_distro("debian")
SUITES = [
    pytest.param(release, archive, suite, id=f"{archive.name}-{suite}")
    for release in DEBIAN.releases
    for archive in release.archives
    for suite in archive.suites
]
COLLECTION = "distribution-gpg-keys"
KEYS = {key.path: key for name in distro_names() for key in load_distro(name).keys.values()}
COLLECTED = [key for _, key in sorted(KEYS.items()) if key.origin.startswith(COLLECTION)]
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


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Return version, contents and fingerprints of Debian's collection of keys, as our own code fetches it."""
    folder = tmp_path_factory.mktemp("collection")
    file = folder / "keys.toml"
    text = "distro = 'debian'\nrelease = 'sid'\narch = 'amd64'\n"
    text += f"[packages]\nvariant = 'custom'\ninclude = ['{COLLECTION}']\n"
    file.write_text(text, encoding="utf-8")
    recipe = load_recipe(str(file))
    # How old the mirror is does not matter: signatures say where the package is from.
    relax = frozenset({"expired", "old"})
    settings = Settings({}, os.environ, time.time, str(folder / "cache"), relax)
    with open_sources(recipe, settings, print) as sources:
        try:
            planned = resolve(recipe, sources, settings, print)
            package = next(package for package in planned.plan.packages if package.name == COLLECTION)
            ((_, path),) = fetching(planned, sources)([package])
        except FetchError as error:
            pytest.skip(f"no mirror of Debian can be reached: {error}")
        entries = open_deb(path, COLLECTION).entries(64 << 20)
        files = {b"".join(content) for _, content in entries}
    held = set()
    for content in files:
        if b"BEGIN PGP PUBLIC KEY BLOCK" in content:
            (folder / "key").write_bytes(content)
            with contextlib.suppress(UntrustedError):
                held |= {found.fingerprint for found in load_keyring([("", str(folder / "key"))]).certificates}
    return package.version, files, held


@pytest.mark.parametrize("key", COLLECTED, ids=lambda key: os.path.basename(key.path))
def test_keys_of_rpm_distributions_are_those_of_debians_collection(key, collection):
    version, files, held = collection
    assert key.fingerprint in held
    # Another edition of the file may hold other signatures on the key.
    if key.origin == f"{COLLECTION} {version.partition('+')[0]}":
        with open(key.path, "rb") as stream:
            assert stream.read() in files
