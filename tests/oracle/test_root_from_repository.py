"""A finished root installs from repositories laid out of what it was built from, with no network at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from making.builds import need_root, rootfsbuild
from making.carried import Cart

from rootfsbuild.distro import find_release, load_distro
from rootfsbuild.events import ignore
from rootfsbuild.formats.deb.repository import lay_repository
from rootfsbuild.formats.format import Contents, Proof
from rootfsbuild.lock import load_lock
from rootfsbuild.repository.sign import load_signer
from rootfsbuild.repository.signed import document_sets
from rootfsbuild.repository.store import Store

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("root-from-repository")]

RECIPE = 'distro = "debian"\nrelease = "bookworm"\n[packages]\ninclude = ["hello"]\n'
USE = """
set -e
mv /etc/apt/sources.list /etc/apt/sources.list.online
rm -f /etc/apt/sources.list.d/*
cp /srv/packages/*.sources /etc/apt/sources.list.d/
dpkg --purge hello
test ! -e /usr/bin/hello
apt-get -q update
apt-get -q install --yes hello
hello
mv /etc/apt/sources.list.online /etc/apt/sources.list
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory, store):
    need_root()
    folder = tmp_path_factory.mktemp("behind")
    (folder / "recipe.toml").write_text(RECIPE)
    done = rootfsbuild(folder / "recipe.toml", "-o", folder / "root", "--cache-dir", store)
    assert done.status == 0, done.err
    return folder


@pytest.fixture(scope="module")
def contents(built, store):
    plan, kept = load_lock(str(built / "root.lock")).plan, Store(str(store))
    proofs = []
    for snapshot in plan.snapshots:
        found = [{path: kept.signed(snapshot.sha256, path) for path in paths} for paths in document_sets(snapshot)]
        documents = next(one for one in found if None not in one.values())
        proofs.append(Proof(snapshot, documents, {one.path: kept.path(one.sha256) for one in snapshot.indexes}))
    return Contents(proofs, [(package, kept.path(package.sha256)) for package in plan.packages])


@pytest.mark.parametrize("signed", [False, True])
def test_apt_in_the_root_needs_nothing_else(built, contents, signed, tmp_path):
    archives = find_release(load_distro("debian"), "bookworm").archives
    keys = {one.name: b"".join(Path(key.path).read_bytes() for key in one.keys) for one in archives}
    signer = load_signer(Cart(tmp_path / "cart").signer()) if signed else None
    repository = tmp_path / "repository"
    lay_repository(str(repository), contents, keys, signer, ignore)
    ran = rootfsbuild("run", built / "root", "--bind", f"{repository}:/srv/packages", "--", "sh", "-c", USE)
    assert ran.status == 0, ran.out + ran.err
    assert ran.out.endswith("Hello, world!\n")
    said = [line for line in (ran.out + ran.err).splitlines() if line.startswith(("W:", "E:", "Err:", "N:"))]
    assert said == []
