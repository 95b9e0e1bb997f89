"""A bundle carries a build over an air gap: the same bytes without a network, and nothing that was tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from making.builds import need_root, rootfsbuild, sha256
from making.bundles import Torn

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("air-gap")]

RECIPE = 'distro = "debian"\nrelease = "bookworm"\narch = "amd64"\n[packages]\nvariant = "essential"\n'


@pytest.fixture(scope="module")
def carried(tmp_path_factory, store):
    """A folder with a recipe, its lock, a tar built from it where the network is, and a bundle."""
    need_root()
    folder = tmp_path_factory.mktemp("carried")
    (folder / "box.toml").write_text(RECIPE)
    for words in (
        ["lock", folder / "box.toml"],
        ["--locked", folder / "box.toml", "-o", folder / "here.tar"],
        ["bundle", folder / "box.toml", "-o", folder / "carry.tar"],
    ):
        done = rootfsbuild(*words, "--cache-dir", store)
        assert done.status == 0, done.err
    return folder


def build(folder, bundle, target, *words, recipe="box.toml", **variables):
    command = ["--bundle", bundle, folder / recipe, "-o", target, "--cache-dir", target.parent / "store", *words]
    return rootfsbuild(*command, **variables)


def refused(folder, bundle, tmp_path, *words, recipe="box.toml"):
    """Build from a bundle that must be refused; return status and message, having seen that nothing was left."""
    done = build(folder, bundle, tmp_path / "out" / "root", *words, recipe=recipe)
    left = set(os.listdir(tmp_path / "out")) - {"store", "root.log"} if (tmp_path / "out").exists() else set()
    assert left == set()
    assert "Traceback" not in done.err
    return done.status, done.err


def test_the_same_bytes_without_a_network(carried, tmp_path):
    words = [sys.executable, "-m", "rootfsbuild", "--bundle", carried / "carry.tar", carried / "box.toml"]
    command = ["unshare", "--net", *map(str, words), "-o", tmp_path / "there.tar"]
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / "there.tar") == sha256(carried / "here.tar")
    # Its lock is the one that was carried.
    assert (tmp_path / "there.tar.lock").read_text() == (carried / "box.amd64.lock").read_text()


def test_no_socket_to_anywhere_is_made(carried, tmp_path):
    # The sandbox and the workers are spoken to over pairs of sockets (-1: one that is there already); no other may be.
    watch = (
        "import socket, sys\n"
        "def heard(event, words):\n"
        "    if event == 'socket.__new__' and words[1] not in (socket.AF_UNIX, -1) or event in ('socket.connect', "
        "'socket.getaddrinfo'):\n"
        "        print('NETWORK', event, words, file=sys.stderr)\n"
        "sys.addaudithook(heard)\n"
        "from rootfsbuild.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "bad = {'requests', 'urllib3', 'http.client', 'rootfsbuild.repository.network'} & sys.modules.keys()\n"
        "print('LOADED', bad, file=sys.stderr) if bad else None\n"
        "sys.exit(status)\n"
    )
    words = ["--bundle", carried / "carry.tar", carried / "box.toml", "-o", tmp_path / "root"]
    done = subprocess.run(
        [sys.executable, "-c", watch, *map(str, words), "--cache-dir", tmp_path / "store"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    assert "LOADED" not in done.stderr


def test_a_package_altered(carried, tmp_path):
    altered = Torn(carried / "carry.tar")
    path = altered.blob("bash")
    altered.members[path] = altered.members[path][:-1] + bytes([altered.members[path][-1] ^ 1])
    # Under its own list, and under one made to fit: the lock still says what it has to be.
    status, message = refused(carried, altered.write(tmp_path / "a.tar"), tmp_path)
    assert status == 6
    assert "bash 5" in message
    status, message = refused(carried, altered.fit().write(tmp_path / "b.tar"), tmp_path)
    assert status == 6


def test_a_package_missing(carried, tmp_path):
    altered = Torn(carried / "carry.tar")
    path = altered.blob("bash")
    del altered.members[path]
    status, message = refused(carried, altered.write(tmp_path / "a.tar"), tmp_path)
    assert (status, f"{path}: is missing" in message) == (6, True)
    status, message = refused(carried, altered.fit().write(tmp_path / "b.tar"), tmp_path)
    assert status == 6
    assert "is missing: bash 5" in message


def test_something_extra(carried, tmp_path):
    altered = Torn(carried / "carry.tar")
    digest = hashlib.sha256(b"extra").hexdigest()
    altered.members[f"blobs/sha256/{digest}"] = b"extra"
    status, message = refused(carried, altered.write(tmp_path / "a.tar"), tmp_path)
    assert status == 6
    assert "is not listed" in message
    altered.members = dict(sorted(altered.members.items()))
    status, message = refused(carried, altered.fit().write(tmp_path / "b.tar"), tmp_path)
    assert status == 6
    assert "no lock asks for it" in message


def test_a_signed_document_altered(carried, tmp_path):
    altered = Torn(carried / "carry.tar")
    path = altered.find("signed/")
    text = altered.members[path]
    assert b"\nSuite: " in text
    altered.members[path] = text.replace(b"\nSuite: ", b"\nSuite:  ", 1)
    status, message = refused(carried, altered.fit().write(tmp_path / "a.tar"), tmp_path)
    assert status == 6
    assert "InRelease" in message


def test_a_lock_edited_by_hand(carried, tmp_path):
    altered = Torn(carried / "carry.tar")
    path = altered.find("locks/")
    altered.members[path] = altered.members[path].replace(b'why = "essential"', b'why = "requested"', 1)
    status, message = refused(carried, altered.fit().write(tmp_path / "a.tar"), tmp_path)
    assert status == 6
    assert "its own digest" in message


def test_a_lock_that_names_what_nobody_signed(carried, tmp_path):
    """Whoever can write a lock can give it a digest that fits; the signatures he cannot write."""
    altered = Torn(carried / "carry.tar")
    path, old = altered.find("locks/"), altered.blob("bash")
    new = altered.members.pop(old) + b"more"
    digest = hashlib.sha256(new).hexdigest()
    altered.members[f"blobs/sha256/{digest}"] = new
    text = altered.members[path].decode()
    text = text.replace(old.rpartition("/")[2], digest).replace(f"size = {len(new) - 4}\n", f"size = {len(new)}\n")
    head, _, rest = text.partition('digest = "')
    rest = rest.partition("\n")[2]
    own = hashlib.sha256((head + rest).encode()).hexdigest()
    altered.members[path] = f'{head}digest = "sha256:{own}"\n{rest}'.encode()
    altered.members = dict(sorted(altered.members.items()))
    status, message = refused(carried, altered.fit().write(tmp_path / "a.tar"), tmp_path)
    assert status == 6
    assert "bash: 5" in message
    assert "in none of the signed indexes" in message


def test_an_older_bundle_after_a_newer_one(carried, tmp_path):
    # What a newer one leaves behind: the dates of its documents, in the memory against rollback.
    first = build(carried, carried / "carry.tar", tmp_path / "out" / "first")
    assert first.status == 0, first.err
    memory = tmp_path / "out" / "store" / "trust"
    for name in os.listdir(memory):
        if name.endswith(".json"):
            dates = json.loads((memory / name).read_text())
            (memory / name).write_text(json.dumps({key: date + 86400 for key, date in dates.items()}))
    done = build(carried, carried / "carry.tar", tmp_path / "out" / "second")
    assert done.status == 6
    assert "a rollback" in done.err
    assert not (tmp_path / "out" / "second").exists()
    allowed = build(carried, carried / "carry.tar", tmp_path / "out" / "third", "--allow", "rollback")
    assert allowed.status == 0, allowed.err


def test_another_architecture_and_a_recipe_changed_since(carried, tmp_path):
    status, message = refused(carried, carried / "carry.tar", tmp_path, "--arch", "arm64")
    assert status == 6
    assert "no lock of box for arm64" in message
    (tmp_path / "box.toml").write_text(RECIPE + 'include = ["hello"]\n')
    status, message = refused(tmp_path, carried / "carry.tar", tmp_path)
    assert status == 4
    assert 'packages.include: ["hello"] in the recipe, nothing in the lock' in message


def test_a_truncated_bundle_and_a_file_that_is_none(carried, tmp_path):
    shutil.copy(carried / "carry.tar", tmp_path / "short.tar")
    os.truncate(tmp_path / "short.tar", 2_000_000)
    status, message = refused(carried, tmp_path / "short.tar", tmp_path)
    assert (status, "truncated" in message) == (6, True)
    status, message = refused(carried, carried / "here.tar", tmp_path)
    assert (status, "a bundle holds nothing but plain files" in message) == (6, True)


def test_two_recipes_share_a_bundle_and_an_update_fetches_what_is_missing(carried, store, tmp_path):
    (tmp_path / "more.toml").write_text(RECIPE + 'include = ["hello"]\n')
    words = [carried / "box.toml", tmp_path / "more.toml", "-o", tmp_path / "both.tar"]
    done = rootfsbuild("bundle", *words, "--update", carried / "carry.tar", "--cache-dir", store)
    assert done.status == 0, done.err
    listed = rootfsbuild("bundle", tmp_path / "both.tar", "--list", "--json")
    found = json.loads(listed.out)
    assert [lock["file"] for lock in found["locks"]] == ["box.amd64.lock", "more.amd64.lock"]
    assert found["packages"] < sum(lock["packages"] for lock in found["locks"])
    checked = rootfsbuild("bundle", tmp_path / "both.tar", "--verify")
    assert checked.status == 0, checked.err
    built = build(tmp_path, tmp_path / "both.tar", tmp_path / "out" / "more", recipe="more.toml")
    assert built.status == 0, built.err
    assert (tmp_path / "out" / "more" / "usr/bin/hello").exists()


def test_the_same_bundle_again(carried, store, tmp_path):
    again = rootfsbuild("bundle", carried / "box.amd64.lock", "-o", tmp_path / "again.tar", "--cache-dir", store)
    assert again.status == 0, again.err
    assert sha256(tmp_path / "again.tar") == sha256(carried / "carry.tar")


def test_offline_from_the_store_and_a_whole_list_of_what_is_missing(carried, store, tmp_path):
    words = ["--offline", carried / "box.toml", "-o", tmp_path / "there.tar"]
    done = rootfsbuild(*words, "--cache-dir", store)
    assert done.status == 0, done.err
    assert sha256(tmp_path / "there.tar") == sha256(carried / "here.tar")
    done = rootfsbuild(*words[:-1], tmp_path / "other.tar", "--cache-dir", tmp_path / "empty")
    assert done.status == 5
    assert "bash 5" in done.err
    assert "libc6 2" in done.err
    assert not (tmp_path / "other.tar").exists()
