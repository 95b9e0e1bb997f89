from __future__ import annotations

import hashlib
import os
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making.plans import make_snapshot

from rootfsbuild.events import Warned
from rootfsbuild.repository.signed import confined, document_sets, suite_folder
from rootfsbuild.repository.store import Store

FOLDER = "dists/bookworm"


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def store(tmp_path, heard):
    return Store(str(tmp_path / "cache"), heard.append)


def keep(store, data, archive="debian", folder=FOLDER, **named):
    store.keep_signed(archive, digest(data), {f"{folder}/InRelease": data}, **named)
    return digest(data)


def files(store):
    return sorted(
        os.path.relpath(os.path.join(path, name), store.root)
        for path, _, names in os.walk(store.root)
        for name in names
    )


def test_kept_documents_are_found_by_digest_and_as_the_latest(store, heard):
    old, new = keep(store, b"old"), keep(store, b"new")
    assert store.signed(old, f"{FOLDER}/InRelease") == b"old"
    assert store.signed(new, f"{FOLDER}/InRelease") == b"new"
    assert store.latest("debian", f"{FOLDER}/InRelease") == b"new"
    assert store.latest("debian", "dists/sid/InRelease") is None
    assert store.latest("other", f"{FOLDER}/InRelease") is None
    assert heard == []


def test_a_document_of_the_past_is_kept_but_not_the_latest(store):
    keep(store, b"now")
    past = keep(store, b"then", latest=False)
    assert store.signed(past, f"{FOLDER}/InRelease") == b"then"
    assert store.latest("debian", f"{FOLDER}/InRelease") == b"now"


def test_a_pair_takes_the_place_of_an_inrelease_and_stays_a_pair(store):
    keep(store, b"an InRelease")
    release = b"a Release"
    for signature in (b"first", b"signed anew"):
        pair = {f"{FOLDER}/Release": release, f"{FOLDER}/Release.gpg": signature}
        store.keep_signed("debian", digest(release), pair)
        assert store.latest("debian", f"{FOLDER}/InRelease") is None
        assert store.latest("debian", f"{FOLDER}/Release") == release
        assert store.latest("debian", f"{FOLDER}/Release.gpg") == signature
    keep(store, b"an InRelease")
    assert store.latest("debian", f"{FOLDER}/Release") is None
    assert store.latest("debian", f"{FOLDER}/InRelease") == b"an InRelease"


def test_suites_inside_each_other_do_not_get_in_each_others_way(store):
    for folder in ("dists/buster", "dists/buster/updates", "flat"):
        keep(store, folder.encode(), folder=folder)
    for folder in ("dists/buster", "dists/buster/updates", "flat"):
        assert store.latest("debian", f"{folder}/InRelease") == folder.encode()


def test_a_damaged_document_is_none_and_is_written_anew(store):
    sha256 = keep(store, b"right")
    path = os.path.join(store.root, "signed", sha256, FOLDER, "InRelease")
    for damage in (b"", b"wrong", b"right and more"):
        with open(path, "wb") as file:
            file.write(damage)
        assert store.signed(sha256, f"{FOLDER}/InRelease") is None
        assert store.latest("debian", f"{FOLDER}/InRelease") is None
    keep(store, b"right")
    assert store.signed(sha256, f"{FOLDER}/InRelease") == b"right"


@pytest.mark.parametrize(
    ("archive", "path"),
    [
        ("debian", "../../../escaped/InRelease"),
        ("debian", "dists/../../../../escaped/InRelease"),
        ("debian", "dists/x\ny"),
        ("debian", "dists/x@"),
        ("debian", ""),
        ("..", "dists/x/InRelease"),
        ("", "dists/x/InRelease"),
    ],
)
def test_nothing_is_written_or_read_elsewhere(store, heard, tmp_path, archive, path):
    (tmp_path / "escaped").mkdir()
    (tmp_path / "escaped" / "InRelease").write_bytes(b"x")
    store.keep_signed(archive, digest(b"x"), {path: b"x"})
    assert [type(event) for event in heard] == [Warned]
    assert store.latest(archive, path) is None
    assert not [file for file in files(store) if file.startswith("latest")]
    if archive == "debian":
        assert store.signed(digest(b"x"), path) is None
        assert files(store) == []
    assert store.signed("../../escaped", "InRelease") is None


def test_a_slash_in_an_archives_name_stays_inside(store):
    keep(store, b"x", archive="../../x")
    assert store.latest("../../x", f"{FOLDER}/InRelease") == b"x"
    assert all(file.startswith(("signed/", "latest/")) for file in files(store))


def test_a_cache_that_cannot_be_written_warns_and_gives_what_it_has(store, heard, tmp_path):
    sha256 = keep(store, b"here")
    told = []
    # A file where a folder would have to be refuses even root.
    for folder in ("signed", "latest"):
        (tmp_path / "cache" / folder).rename(tmp_path / "cache" / f"{folder}.away")
        (tmp_path / "cache" / folder).write_text("")
    keep(store, b"more", report=told.append)
    assert [("cannot keep the signed documents of debian" in event.text) for event in told] == [True]
    assert heard == []
    for folder in ("signed", "latest"):
        (tmp_path / "cache" / folder).unlink()
        (tmp_path / "cache" / f"{folder}.away").rename(tmp_path / "cache" / folder)
    before = {file: os.stat(os.path.join(store.root, file)).st_ino for file in files(store)}
    keep(store, b"here")
    # What is there already is not written again, so that a read-only cache does not even warn.
    assert {file: os.stat(os.path.join(store.root, file)).st_ino for file in files(store)} == before
    assert store.signed(sha256, f"{FOLDER}/InRelease") == b"here"


def test_pruning_takes_old_documents_and_leaves_no_folders(store):
    old, new = keep(store, b"old", latest=False), keep(store, b"new")
    path = os.path.join(store.root, "signed", old, FOLDER, "InRelease")
    os.utime(path, (time.time() - 40 * 86400,) * 2)
    assert store.prune(days=30).count == 1
    assert store.signed(old, f"{FOLDER}/InRelease") is None
    assert os.listdir(os.path.join(store.root, "signed")) == [new]
    assert store.latest("debian", f"{FOLDER}/InRelease") == b"new"
    store.prune()
    assert files(store) == ["in-use"]
    assert keep(store, b"again")
    shutil.rmtree(store.root)


def test_use_renews_a_document(store):
    sha256 = keep(store, b"x")
    for use in (lambda: store.latest("debian", f"{FOLDER}/InRelease"), lambda: keep(store, b"x")):
        path = os.path.join(store.root, "signed", sha256, FOLDER, "InRelease")
        os.utime(path, (time.time() - 40 * 86400,) * 2)
        use()
        assert store.prune(days=30).count == 0


def test_where_documents_lie():
    assert suite_folder("bookworm") == "dists/bookworm"
    assert suite_folder("buster/updates") == "dists/buster/updates"
    assert suite_folder("a b") == "dists/a%20b"
    assert suite_folder("./") == "."
    assert suite_folder("flat/") == "flat"
    pair = ("dists/x/Release", "dists/x/Release.gpg")
    assert document_sets(make_snapshot(suite="x")) == (("dists/x/InRelease",), pair)
    assert document_sets(make_snapshot(suite="x", signers=())) == (("dists/x/InRelease",), pair, pair[:1])
    assert document_sets(make_snapshot(suite="./"))[0] == ("InRelease",)
    assert document_sets(make_snapshot(suite="flat/"))[0] == ("flat/InRelease",)
    with pytest.raises(ValueError, match="no path"):
        document_sets(make_snapshot(suite="../x"))


@given(st.text(alphabet="a./%@~\n\\é", max_size=12))
def test_a_confined_path_stays_where_it_is_put(path):
    try:
        found = confined(path)
    except ValueError:
        return
    assert os.path.normpath(os.path.join("/root", found)).startswith("/root/")
    assert confined(found) == found
    assert confined(f"./{found}//") == found
