"""Bundles as somebody on the way could have changed them: each is refused by its own words, and nothing is left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making.bundles import Torn, digest, join, make_parts, patched, raw
from making.fetching import want

from rootfsbuild.cli.exits import exit_status
from rootfsbuild.errors import BundleError, IntegrityError, RootfsbuildError
from rootfsbuild.lock import Lock, read_lock, write_lock
from rootfsbuild.repository.bundle import check_bundle, open_bundle
from rootfsbuild.repository.bundle_fetch import BundleFetch
from rootfsbuild.repository.bundle_file import INDEX, MAX_INDEX, tell_end, tell_header
from rootfsbuild.repository.store import Store


@pytest.fixture
def parts():
    return make_parts()


@pytest.fixture
def torn(parts, tmp_path):
    parts.write(tmp_path / "good.tar")
    return Torn(tmp_path / "good.tar")


def refusal(path, *, kind=BundleError):
    """Return the error with which a bundle is refused at its opening, whatever its packages are."""
    with pytest.raises(kind) as caught, open_bundle(str(path)):
        pass
    assert exit_status(caught.value) == 6
    assert str(path) in str(caught.value)
    return caught.value


def blob(torn, label):
    return next(path for path, data in torn.members.items() if path.startswith("blobs/") and label in data)


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


# Contents that are not what they were


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_package_altered(torn, tmp_path, name):
    path = blob(torn, name.encode())
    torn.members[path] = flipped(torn.members[path])
    file = torn.write(tmp_path / "x")
    sha256 = path.rpartition("/")[2]
    label = f"{name} 1.0-1 (all)"
    store = Store(str(tmp_path / "cache"))
    with open_bundle(file) as bundle:
        with pytest.raises(BundleError) as caught:
            check_bundle(bundle)
        assert caught.value.member == path
        assert label in caught.value.problem
        assert exit_status(caught.value) == 6
        wanted = want(torn.listed[path], label=label)
        good = [want(data, label="other") for other, data in torn.listed.items() if other.startswith("blobs/")]
        for get in (BundleFetch(bundle, store).blob, lambda one: list(BundleFetch(bundle, store).blobs([*good, one]))):
            with pytest.raises(IntegrityError) as caught:
                get(wanted)
            assert file in caught.value.subject
            assert sha256 in caught.value.expected
            assert store.find(sha256, wanted.size) is None
    assert os.listdir(os.path.join(store.root, "partial")) == []
    # A list that is made to fit does not: a package's name is its hash.
    error = refusal(torn.fit().write(tmp_path / "y"))
    assert (error.member, f"gives {path} the SHA-256" in error.problem) == (INDEX, True)


@pytest.mark.parametrize("start", ["signed/", "keys/", "locks/"])
def test_what_is_read_at_once_altered(torn, tmp_path, start):
    path = torn.find(start)
    torn.members[path] = flipped(torn.members[path])
    error = refusal(torn.write(tmp_path / "x"))
    assert error.member == path
    assert "was altered" in error.problem


def test_a_signed_document_altered_under_a_list_that_fits(torn, tmp_path):
    path = torn.find("signed/")
    torn.members[path] = flipped(torn.members[path])
    error = refusal(torn.fit().write(tmp_path / "x"))
    assert error.member == path
    assert "is not the document that box.amd64.lock names" in error.problem


def test_a_lock_altered_under_a_list_that_fits(torn, tmp_path):
    path = torn.find("locks/")
    torn.members[path] = torn.members[path].replace(b"requested", b"essential", 1)
    error = refusal(torn.fit().write(tmp_path / "x"), kind=IntegrityError)
    assert "its own digest" in str(error)
    assert path in str(error)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no lock"),
        (b"\xff\n", "can't decode"),
        (b"schema = 1\n[[[", "line 2"),
        (b"schema = 99\n", "by a later rootfsbuild"),
        (b"x = " + b"[" * 100_000, "is no lock"),
        (b"\0", "is no lock"),
    ],
)
def test_a_lock_that_is_none(torn, tmp_path, data, said):
    path = torn.find("locks/")
    torn.members[path] = data
    error = refusal(torn.fit().write(tmp_path / "x"))
    assert error.member == path
    assert said in error.problem


def test_a_lock_whose_suite_leads_elsewhere(tmp_path):
    parts = make_parts()
    ((file, text),) = parts.locks.items()
    lock = read_lock(text, file)
    from dataclasses import replace

    snapshot = replace(lock.plan.snapshots[0], suite="../../x")
    torn_lock = write_lock(Lock(lock.name, lock.recipe, replace(lock.plan, snapshots=(snapshot,))))
    parts.write(tmp_path / "good.tar")
    torn = Torn(tmp_path / "good.tar")
    torn.members[f"locks/{file}"] = torn_lock.encode()
    error = refusal(torn.fit().write(tmp_path / "x"))
    assert "names a suite that has no place" in error.problem


# Members that are too few or too many


@pytest.mark.parametrize(
    ("start", "what"),
    [
        ("blobs/", " of box.amd64.lock"),
        ("signed/", "the signed document of debian bookworm"),
        ("keys/", "a key of debian bookworm"),
    ],
)
def test_a_member_missing(torn, tmp_path, start, what):
    path = torn.find(start)
    del torn.members[path]
    error = refusal(torn.write(tmp_path / "x"))
    assert (error.member, error.problem) == (path, "is missing")
    error = refusal(torn.fit().write(tmp_path / "y"))
    assert error.member == path
    assert error.problem.startswith("is missing: ")
    assert what in error.problem


def test_a_package_missing_is_named(torn, tmp_path):
    del torn.members[blob(torn, b"alpha")]
    assert "alpha 1.0-1 (all)" in refusal(torn.fit().write(tmp_path / "x")).problem


def test_the_signature_of_a_pair_missing(tmp_path):
    make_parts(pair=True).write(tmp_path / "good.tar")
    torn = Torn(tmp_path / "good.tar")
    path = next(path for path in torn.members if path.endswith(".gpg"))
    del torn.members[path]
    assert refusal(torn.fit().write(tmp_path / "x")).member == path


def test_several_missing_are_counted(torn, tmp_path):
    torn.members.clear()
    assert "is missing (and 5 more)" in refusal(torn.write(tmp_path / "x")).problem


@pytest.mark.parametrize(
    "path",
    [
        f"blobs/sha256/{digest(b'extra')}",
        f"keys/{'B' * 40}.pgp",
        f"signed/{'1' * 64}/dists/bookworm/InRelease",
        "signed/{document}/dists/bookworm/Release",
        "signed/{document}/dists/sid/InRelease",
    ],
)
def test_a_member_extra(torn, tmp_path, path):
    document = torn.find("signed/").split("/")[1]
    path = path.format(document=document)
    torn.members[path] = b"extra"
    error = refusal(torn.write(tmp_path / "x"))
    assert (error.member, error.problem) == (path, "is not listed in bundle.json")
    error = refusal(torn.fit().write(tmp_path / "y"))
    assert (error.member, error.problem) == (path, "is extra: no lock asks for it")


def test_no_lock_at_all_and_one_too_many(torn, tmp_path):
    path = torn.find("locks/")
    lock = torn.members[path]
    torn.members["locks/other.lock"] = lock
    error = refusal(torn.fit().write(tmp_path / "x"))
    assert "is of box on amd64, as locks/box.amd64.lock is" in error.problem
    torn.members = {}
    assert "holds no lock" in refusal(torn.fit().write(tmp_path / "y")).problem


def test_a_member_twice(torn, tmp_path):
    for path in (torn.find("blobs/"), torn.find("locks/"), INDEX):
        data = torn.members.get(path, b"{}")
        error = refusal(torn.write(tmp_path / "x", more=raw(path, data)))
        assert (error.member, error.problem) == (path, "is there twice")


# Names and kinds that a tar could have and a bundle has not


@pytest.mark.parametrize("path", ["../escaped", "blobs/../../escaped", "/etc/escaped", ".."])
def test_a_name_that_leads_out(torn, tmp_path, path):
    error = refusal(torn.write(tmp_path / "x", more=raw(path, b"x")))
    assert (error.member, error.problem) == (path, "has a name that leads out of the bundle")
    torn.members[path] = b"x"
    error = refusal(torn.fit().write(tmp_path / "y"))
    assert error.member == INDEX
    assert "a name that no bundle has" in error.problem


@pytest.mark.parametrize(
    "path",
    [
        "locks/.hidden",
        "locks/a/b",
        "locks/",
        "blobs/sha256/abc",
        f"blobs/md5/{'1' * 64}",
        f"blobs/sha256/{'1' * 64}/x",
        "keys/x.pgp",
        f"signed/{'1' * 64}/./x",
        f"signed/{'1' * 64}",
        "signed/1/x",
        "other/x",
        "",
    ],
)
def test_a_name_that_no_bundle_has(torn, tmp_path, path):
    torn.listed = {**torn.listed, path: b""}
    error = refusal(torn.write(tmp_path / "x"))
    assert error.member == INDEX
    assert "a name that no bundle has" in error.problem


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a device"),
        (b"4", "a device"),
        (b"5", "a directory"),
        (b"6", "a fifo"),
        (b"S", "a sparse file"),
        (b"x", "an extended header"),
        (b"g", "an extended header"),
        (b"L", "an extended header"),
        (b"7", "of an unknown kind"),
        (b"\0", "of an unknown kind"),
    ],
)
def test_a_member_that_is_no_plain_file(torn, tmp_path, type_, said):
    path = torn.find("blobs/")
    data = torn.members.pop(path)
    header = patched(patched(tell_header(path, len(data)), 156, type_), 157, b"/etc/passwd")
    error = refusal(torn.write(tmp_path / "x", more=raw(path, data, header=header)))
    assert error.member == path
    assert f"is {said}" in error.problem


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (100, b"0004755\0"),  # mode
        (108, b"0001750\0"),  # owner
        (136, b"14524770347\0"),  # time
        (157, b"/etc/passwd"),  # target of a link that it is not
        (265, b"root"),  # owner's name
        (257, b"ustar  \0"),  # GNU's own format
        (345, b"prefix"),
        (500, b"x"),
        (124, b"0000000001\0\0"),  # not the way to write a size
        (124, b"\x80\0\0\0\0\0\0\0\0\0\0\1"),  # a size in base 256
        (124, b"-0000000001\0"),
    ],
)
def test_a_header_that_is_written_in_another_way(torn, tmp_path, at, data):
    path = torn.find("blobs/")
    content = torn.members.pop(path)
    header = patched(tell_header(path, len(content)), at, data)
    error = refusal(torn.write(tmp_path / "x", more=raw(path, content, header=header)))
    assert "rootfsbuild does not write" in error.problem or "is no number" in error.problem


def test_bundles_written_by_another_tar(torn, tmp_path):
    folder = tmp_path / "folder"
    for path, data in {INDEX: torn.index(), **torn.members}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        with tarfile.open(tmp_path / "x", "w", format=kind) as tar:
            tar.add(folder / INDEX, INDEX)
            tar.add(folder, "")
        refusal(tmp_path / "x")


# The file itself


def test_a_truncated_file(torn, tmp_path):
    path = tmp_path / "x"
    torn.write(path)
    whole = path.read_bytes()
    for length in [*range(1, len(whole), 997), len(whole) - 1, len(whole) - 10240]:
        path.write_bytes(whole[:length])
        error = refusal(path)
        assert "truncated" in error.problem or "no bundle" in error.problem
    path.write_bytes(b"")
    refusal(path)


@pytest.mark.parametrize("more", [b"x", bytes(1), bytes(512), bytes(10240), b"x" * 10240])
def test_data_behind_the_end(torn, tmp_path, more):
    path = tmp_path / "x"
    torn.write(path)
    with open(path, "ab") as file:
        file.write(more)
    assert refusal(path).problem == "goes on behind its end"


def test_data_in_the_filling(torn, tmp_path):
    path = tmp_path / "x"
    torn.write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    assert refusal(path).problem == "goes on behind its end"
    at = whole.index(torn.members[torn.find("locks/")]) - 513
    assert whole[at] == 0
    path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    assert "bytes between its members" in refusal(path).problem


def test_an_archive_within_and_one_behind(torn, tmp_path):
    torn.write(tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "y").write_bytes(whole + whole)
    assert refusal(tmp_path / "y").problem == "goes on behind its end"
    (tmp_path / "z").write_bytes(tell_end(0) + whole)
    refusal(tmp_path / "z")
    (tmp_path / "w").write_bytes(tell_end(0))
    assert refusal(tmp_path / "w").problem == "is empty"


@pytest.mark.parametrize("content", [b"hello\n", b"\x1f\x8b" + bytes(600), b"<html>" + b" " * 1000])
def test_a_file_that_is_no_bundle(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    refusal(tmp_path / "x")


def test_what_is_no_file_at_all(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent").problem
    refusal(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    refusal(tmp_path / "fifo")


def test_a_file_that_is_cut_while_it_is_read(torn, tmp_path):
    path = blob(torn, b"beta")
    file = torn.write(tmp_path / "x")
    store = Store(str(tmp_path / "cache"))
    with open_bundle(file) as bundle:
        os.truncate(file, bundle.members[path].offset + 10)
        with pytest.raises(IntegrityError, match="got 10 bytes"):
            BundleFetch(bundle, store).blob(want(torn.listed[path]))
        with pytest.raises(BundleError):
            check_bundle(bundle)
        document = torn.find("signed/").split("/", 2)
        os.truncate(file, 10)
        with pytest.raises(BundleError, match="was altered"):
            bundle.signed(document[1], document[2])


# Its list


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (b"", "is not JSON"),
        (b"not JSON", "is not JSON"),
        (b"[" * 1_000_000, "is not JSON"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "gives no version"),
        (b"null", "gives no version"),
        (b"{}", "gives no version"),
        (b'{"schema": true}', "gives no version"),
        (b'{"schema": 1.0}', "gives no version"),
        (b'{"schema": 0}', "gives no version"),
        (b'{"schema": 2}', "by a later rootfsbuild"),
        (b'{"schema": 1}', "has no list of members"),
        (b'{"schema": 1, "tool": 1, "members": []}', "has no list of members"),
        (b'{"schema": 1, "tool": "x", "members": {}}', "has no list of members"),
        (b'{"schema": 1, "tool": "x", "members": [1]}', "which is no member"),
        (b'{"schema": 1, "tool": "x", "members": [{}]}', "which is no member"),
        (b'{"schema": 1, "tool": "x", "members": []}', "is not laid out"),
    ],
)
def test_a_list_that_is_none(torn, tmp_path, index, said):
    error = refusal(torn.write(tmp_path / "x", index=index))
    assert error.member == INDEX
    assert said in error.problem
    assert len(str(error)) < 1000


LISTED = f"blobs/sha256/{'1' * 64}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": -1}, "size or a digest"),
        ({"size": True}, "size or a digest"),
        ({"size": 1 << 70}, "size or a digest"),
        ({"size": 1.0}, "which is no member"),
        ({"size": "1"}, "which is no member"),
        ({"sha256": "x"}, "size or a digest"),
        ({"sha256": "2" * 64}, "the SHA-256"),
        ({"sha256": None}, "which is no member"),
        ({"path": 1}, "which is no member"),
        ({"path": "../x"}, "a name that no bundle has"),
        ({"more": 1}, "which is no member"),
    ],
)
def test_a_list_with_an_impossible_member(torn, tmp_path, change, said):
    data = json.loads(torn.index())
    data["members"] = [{"path": LISTED, "size": 1, "sha256": "1" * 64} | change]
    error = refusal(torn.write(tmp_path / "x", index=json.dumps(data, indent=1).encode() + b"\n"))
    assert said in error.problem


@pytest.mark.parametrize("how", ["order", "twice", "key", "blank", "extra"])
def test_a_list_in_another_layout(torn, tmp_path, how):
    data = json.loads(torn.index())
    text = None
    match how:
        case "order":
            data["members"].reverse()
        case "twice":
            data["members"].append(data["members"][-1])
        case "extra":
            data["more"] = 1
        case "key":
            # The first reader of two would see another list than the second.
            text = torn.index().replace(b'"members": [', b'"members": [], "members": [', 1)
        case "blank":
            text = torn.index() + b" "
    index = text or json.dumps(data, indent=1).encode() + b"\n"
    error = refusal(torn.write(tmp_path / "x", index=index))
    assert ("lists" in error.problem and "twice" in error.problem) or "is not laid out" in error.problem


def test_a_list_too_large_to_be_read(torn, tmp_path):
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.write(tell_header(INDEX, 8 << 30 - 1))
        file.truncate(9 << 30)
    assert f"more than {MAX_INDEX}" in refusal(path).problem


def test_a_list_that_comes_second(torn, tmp_path):
    members = {torn.find("locks/"): torn.members[torn.find("locks/")], INDEX: torn.index(), **torn.members}
    content = b"".join(raw(path, data) for path, data in members.items())
    (tmp_path / "x").write_bytes(content + tell_end(len(content)))
    assert "it begins with locks/box.amd64.lock, not with bundle.json" in refusal(tmp_path / "x").problem


def test_sizes_that_lie(torn, tmp_path):
    path = blob(torn, b"alpha")
    data = json.loads(torn.index())
    for member in data["members"]:
        if member["path"] == path:
            member["size"] += 1
    error = refusal(torn.write(tmp_path / "x", index=json.dumps(data, indent=1).encode() + b"\n"))
    assert (error.member, error.problem) == (path, "has 17 bytes, but bundle.json says 18")
    # Header and list agree, the lock does not.
    torn.members[path] += b"?"
    for member in data["members"]:
        member["sha256"] = member["sha256"]
    error = refusal(torn.write(tmp_path / "y", index=json.dumps(data, indent=1).encode() + b"\n"))
    assert error.member == path
    assert "has 18 bytes, but alpha 1.0-1 (all) of box.amd64.lock has 17" in error.problem


def test_a_size_that_reaches_behind_the_end(torn, tmp_path):
    path = torn.find("blobs/")
    data = torn.members.pop(path)
    error = refusal(torn.write(tmp_path / "x", more=raw(path, data, header=tell_header(path, 1 << 32))))
    assert f"is truncated: it ends after {os.stat(tmp_path / 'x').st_size} bytes, in {path}" in error.problem


def test_a_huge_document(torn, tmp_path):
    path = torn.find("signed/")
    torn.members[path] = bytes(40_000_000)
    error = refusal(torn.fit().write(tmp_path / "x"))
    assert error.member == path
    assert "more than 32000000" in error.problem


# Anything


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x"
    join(make_parts(), make_parts(name="more", architecture="arm64", suite="sid", pair=True)).write(path)
    return path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_noticed_and_none_crashes(whole, tmp_path_factory, data):
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        length = data.draw(st.integers(0, 3))
        changed[place : place + length] = data.draw(st.binary(min_size=0, max_size=3))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    status, found = _status_and_members(path)
    path.write_bytes(whole)
    # Only the version of the tool that wrote it, which nothing follows from, can be another.
    assert status == 6 or found == _status_and_members(path)[1]


def _status_and_members(path):
    try:
        with open_bundle(str(path)) as bundle:
            check_bundle(bundle)
            return 0, {name: member.sha256 for name, member in bundle.members.items()}
    except RootfsbuildError as error:
        return exit_status(error), {}


def test_no_socket_is_made_and_nothing_is_written_but_the_store(parts, tmp_path):
    parts.write(tmp_path / "carry.tar")
    shutil.rmtree(tmp_path / "carry.tar.files")
    code = """
import hashlib, os, sys
opened = []
def heard(event, words):
    if event.startswith("socket."):
        opened.append(event)
    if event == "open" and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append(words[0])
sys.addaudithook(heard)
sys.dont_write_bytecode = True
from rootfsbuild.repository.bundle import check_bundle, find_documents, open_bundle
from rootfsbuild.repository.bundle_fetch import BundleFetch
from rootfsbuild.repository.fetch import Wanted
from rootfsbuild.repository.store import Store
with open_bundle(sys.argv[1]) as bundle:
    check_bundle(bundle)
    fetch = BundleFetch(bundle, Store(sys.argv[2]))
    for lock in bundle.locks.values():
        find_documents(lock.plan, bundle.signed)
        wanted = [Wanted(("http://mirror.example/x",), one.size, one.sha256, one.name) for one in lock.plan.packages]
        fetch.require(wanted)
        assert len(list(fetch.blobs(wanted))) == len(wanted) == 2
        try:
            fetch.document(["http://mirror.example/x"], limit=9, label="it", accept=len)
        except Exception as error:
            print(type(error).__name__)
print([place for place in opened if not str(place).startswith(sys.argv[2])])
"""
    words = [sys.executable, "-c", code, str(tmp_path / "carry.tar"), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["FetchError", "[]"], done.stderr
    assert sorted(os.listdir(tmp_path)) == ["cache", "carry.tar"]
    found = {name for _, _, names in os.walk(tmp_path / "cache" / "blobs") for name in names}
    index = hashlib.sha256(b"Packages of bookworm").hexdigest()
    assert found == set(parts.files) - {index}
