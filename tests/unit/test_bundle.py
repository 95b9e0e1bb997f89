from __future__ import annotations

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making.bundles import Torn, digest, join, make_parts
from making.fetching import want
from making.keys import make_key

from rootfsbuild import events
from rootfsbuild.errors import BundleError, FetchError, IntegrityError, StorageError, UntrustedError
from rootfsbuild.lock import read_lock
from rootfsbuild.repository.bundle import check_bundle, find_documents, keyring_entry, open_bundle
from rootfsbuild.repository.bundle_fetch import BundleFetch, OldFirst
from rootfsbuild.repository.bundle_file import Member, tell_header
from rootfsbuild.repository.offline import StoreFetch
from rootfsbuild.repository.store import Store
from rootfsbuild.repository.trust import load_keyring


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "cache"))


@pytest.fixture
def written(tmp_path):
    parts = make_parts()
    parts.write(tmp_path / "carry.tar")
    return parts, str(tmp_path / "carry.tar")


def lock_of(parts):
    ((file, text),) = parts.locks.items()
    return read_lock(text, file)


# Writing and reading back


CONTENTS = st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{1,8}", fullmatch=True), st.binary(max_size=2000), max_size=5)


@settings(max_examples=40, deadline=None)
@given(CONTENTS, st.booleans(), st.integers(1, 3))
def test_what_was_written_is_read_and_twice_the_same_bytes(contents, pair, count):
    parts = join(*(make_parts(contents, name=f"box{number}", pair=pair) for number in range(count)))
    with tempfile.TemporaryDirectory() as folder:
        one, two = pathlib.Path(folder, "one"), pathlib.Path(folder, "two")
        summary = parts.write(one)
        backwards = {name: dict(reversed(getattr(parts, name).items())) for name in vars(parts)}
        type(parts)(**backwards).write(two)
        assert one.read_bytes() == two.read_bytes()
        assert summary.size == one.stat().st_size
        assert summary.locks == count
        assert sorted(os.listdir(folder)) == ["one", "one.files", "two", "two.files"]
        with open_bundle(str(one)) as bundle:
            check_bundle(bundle)
            assert bundle.locks == {file: read_lock(text, file) for file, text in parts.locks.items()}
            assert {key: bundle.signed(*key) for key in parts.signed} == parts.signed
            assert {name: bundle.key(name) for name in parts.keys} == parts.keys
            for sha256, data in parts.files.items():
                with bundle.open_blob(sha256) as stream:
                    assert stream.read() == data


def test_any_tar_can_list_it(written):
    parts, path = written
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert names[0] == "bundle.json"
        assert set(names) == {"bundle.json", *Torn(path).members}
        assert {(one.mode, one.uid, one.gid, one.mtime, one.uname) for one in tar} == {(0o644, 0, 0, 0, "")}
        (lock,) = parts.locks
        assert tar.extractfile(f"locks/{lock}").read().decode() == parts.locks[lock]


def test_a_long_name_is_split_as_ustar_does(tmp_path):
    parts = make_parts(suite="bookworm-" + "x" * 70)
    parts.write(tmp_path / "x")
    with open_bundle(str(tmp_path / "x")) as bundle, tarfile.open(tmp_path / "x") as tar:
        (path,) = (path for path in bundle.members if path.startswith("signed/"))
        assert len(path) > 100
        assert path in tar.getnames()


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [("a" * 101, 0, "too long"), ("a" * 160 + "/b", 0, "too long"), ("a", 1 << 33, "8 GiB")],
)
def test_what_ustar_has_no_room_for(name, size, said):
    with pytest.raises(ValueError, match=said):
        tell_header(name, size)


def test_a_suite_whose_name_is_too_long_is_refused_in_writing(tmp_path):
    with pytest.raises(BundleError, match="too long"):
        make_parts(suite="x" * 200).write(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_progress_adds_up(tmp_path):
    heard = []
    make_parts().write(tmp_path / "x", heard.append)
    assert heard[0].unit == "B"
    assert sum(event.amount for event in heard if isinstance(event, events.Progress)) == heard[0].total
    assert isinstance(heard[-1], events.StageEnded)
    with open_bundle(str(tmp_path / "x")) as bundle:
        heard.clear()
        check_bundle(bundle, heard.append)
    assert sum(event.amount for event in heard if isinstance(event, events.Progress)) == heard[0].total


def test_a_blob_that_is_not_what_its_digest_says_leaves_no_file_and_the_old_one(tmp_path):
    parts = make_parts()
    (tmp_path / "x").write_text("an older bundle")
    sha256 = next(iter(parts.files))
    for wrong in (b"", parts.files[sha256][:-1] + b"?", parts.files[sha256] + b"more"):
        folder = tmp_path / "x.files"
        folder.mkdir(exist_ok=True)
        blobs = []
        for name, data in parts.files.items():
            (folder / name).write_bytes(wrong if name == sha256 else data)
            blobs.append((name, len(data), str(folder / name)))
        from rootfsbuild.repository.bundle_writing import write_bundle

        with pytest.raises(IntegrityError) as caught:
            write_bundle(str(tmp_path / "x"), parts.locks, parts.signed, parts.keys, blobs)
        assert sha256 in caught.value.expected
        assert (tmp_path / "x").read_text() == "an older bundle"
        assert sorted(os.listdir(tmp_path)) == ["x", "x.files"]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError) as caught:
        make_parts().write(
            tmp_path / "x", lambda _: os.mkdir(tmp_path / "x") if not (tmp_path / "x").exists() else None
        )
    assert caught.value.path == str(tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["x", "x.files"]


@pytest.mark.parametrize("what", ["signed", "keys", "files"])
def test_what_no_reader_would_take_is_not_written(what, tmp_path):
    parts = make_parts()
    getattr(parts, what).popitem()
    with pytest.raises(BundleError, match="is missing"):
        parts.write(tmp_path / "x")
    parts = make_parts()
    extra = {"signed": ("1" * 64, "dists/x/InRelease"), "keys": "F" * 40, "files": digest(b"more")}
    getattr(parts, what)[extra[what]] = b"more"
    with pytest.raises(BundleError, match="no lock asks for it"):
        parts.write(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_names_that_no_member_can_have(tmp_path):
    parts = make_parts()
    parts.locks["../x"] = next(iter(parts.locks.values()))
    with pytest.raises(BundleError, match="cannot be the name"):
        parts.write(tmp_path / "x")
    parts = make_parts()
    parts.signed["1" * 64, "../../x"] = b""
    with pytest.raises(BundleError, match="no path of a document"):
        parts.write(tmp_path / "x")


def test_a_bundle_without_a_lock(tmp_path):
    with pytest.raises(BundleError, match="holds no lock"):
        type(make_parts())().write(tmp_path / "x")


# What a bundle tells


def test_locks_are_found_by_recipe_and_architecture(tmp_path):
    join(make_parts(), make_parts(architecture="arm64"), make_parts(name="more")).write(tmp_path / "x")
    with open_bundle(str(tmp_path / "x")) as bundle:
        assert bundle.find_lock("box", "arm64").plan.architecture == "arm64"
        assert bundle.find_lock("more", "amd64").name == "more"
        assert bundle.find_lock("more", "arm64") is None
        listing = bundle.list()
    assert [lock.file for lock in listing.locks] == ["box.amd64.lock", "box.arm64.lock", "more.amd64.lock"]
    assert [lock.packages for lock in listing.locks] == [2, 2, 2]
    assert {lock.size for lock in listing.locks} == {len(b"the package alpha") + 500 * len(b"the package beta")}
    assert listing.packages == 2


def test_what_is_not_there_is_none(written):
    _, path = written
    with open_bundle(path) as bundle:
        assert bundle.signed("1" * 64, "dists/bookworm/InRelease") is None
        assert bundle.signed("1" * 64, "../x") is None
        assert bundle.key("F" * 40) is None
        with pytest.raises(KeyError):
            bundle.open_blob("1" * 64)


def test_the_documents_of_a_plan(store):
    parts, pair = make_parts(), make_parts(pair=True)
    plan = lock_of(parts).plan
    for one in (parts, pair):
        assert find_documents(plan, lambda *key, held=one.signed: held.get(key)) == one.signed
    with pytest.raises(FetchError, match="the signed document of debian bookworm"):
        find_documents(plan, store.signed)
    # A Release alone does where nobody was to sign it, and only there.
    alone = {key: data for key, data in pair.signed.items() if not key[1].endswith(".gpg")}
    with pytest.raises(FetchError):
        find_documents(plan, lambda *key: alone.get(key))
    unsigned = lock_of(make_parts(signers=())).plan
    assert find_documents(unsigned, lambda *key: alone.get(key)) == alone


def test_a_keyring_is_carried_under_its_own_digest(tmp_path):
    keys = [make_key(), make_key()]
    keyring = load_keyring([(key.fingerprint, key.write(tmp_path / key.fingerprint)) for key in keys])
    name, data = keyring_entry(keyring)
    assert digest(data) == name
    (tmp_path / "joined.pgp").write_bytes(data)
    again = load_keyring([("", str(tmp_path / "joined.pgp"))])
    assert again.digest == keyring.digest
    assert [one.fingerprint for one in again.certificates] == sorted(key.fingerprint for key in keys)


# Fetching from one


def test_blobs_come_through_the_store(written, store):
    parts, path = written
    heard = []
    wanted = [want(data, label=sha256[:6]) for sha256, data in parts.files.items()]
    with open_bundle(path) as bundle:
        fetch = BundleFetch(bundle, store, heard.append)
        fetch.require(wanted)
        got = list(fetch.blobs(wanted))
        assert [one.size for one, _ in got] == sorted((one.size for one in wanted), reverse=True)
        for one, place in got:
            assert pathlib.Path(place).read_bytes() == parts.files[one.sha256]
            assert place == store.path(one.sha256)
        assert sum(event.amount for event in heard) == sum(one.size for one in wanted)
        assert fetch.blob(wanted[0]) == store.path(wanted[0].sha256)
    assert os.listdir(os.path.join(store.root, "partial")) == []
    # From now on the store has them.
    assert len(list(StoreFetch(store).blobs(wanted))) == len(wanted)


def test_bytes_of_an_interrupted_download_do_not_get_in_the_way(written, store):
    parts, path = written
    sha256, data = next(iter(parts.files.items()))
    with store.claim(sha256, time.sleep) as claim:
        claim.write(b"of another mirror")
    with open_bundle(path) as bundle:
        assert pathlib.Path(BundleFetch(bundle, store).blob(want(data))).read_bytes() == data


def test_everything_that_is_missing_is_listed_before_anything_is_got(written, store):
    parts, path = written
    here = [want(data) for data in parts.files.values()]
    absent = [want(b"x" * 1_000_000, label="gamma 1"), want(b"y" * 2_000_000, label="delta 2")]
    with open_bundle(path) as bundle:
        fetch = BundleFetch(bundle, store)
        for ask in (fetch.require, lambda wanted: list(fetch.blobs(wanted))):
            with pytest.raises(FetchError) as caught:
                ask([*here, *absent])
            assert str(caught.value).splitlines() == [
                f"cannot fetch 2 files (3.0 MB) that are not in {path}:",
                f"  gamma 1: not in {path}",
                f"  delta 2: not in {path}",
            ]
        with pytest.raises(FetchError, match="1 file"):
            fetch.blob(absent[0])
    assert not os.path.exists(os.path.join(store.root, "blobs"))


def test_documents_are_those_of_the_bundle_and_of_nobody_else(written, store):
    parts, path = written
    ((sha256, place),) = parts.signed
    store.keep_signed("debian", "1" * 64, {"dists/sid/Release.gpg": b"of the store"})
    urls = ["http://mirror.example/x", "latest:debian/dists/sid/Release.gpg", f"signed:{sha256}/{place}"]
    with open_bundle(path) as bundle:
        fetch = BundleFetch(bundle, store)
        assert fetch.document(urls, limit=100, label="it", accept=len) == (len(parts.signed[sha256, place]), urls[2])
        with pytest.raises(FetchError) as caught:
            fetch.document(urls[:2], limit=100, label="it", accept=len)
        assert list(caught.value.absent) == urls[:2]
        with pytest.raises(FetchError, match="more than 3"):
            fetch.document(urls[2:], limit=3, label="it", accept=len)

        def refuse(_):
            raise UntrustedError("it", "signature", "is bad")

        with pytest.raises(UntrustedError, match="is bad"):
            fetch.document(urls, limit=100, label="it", accept=refuse)


def test_an_earlier_bundle_spares_the_network(written, store):
    parts, path = written
    asked = []

    class Network:
        def blob(self, wanted):
            asked.append(wanted.label)
            return store.put(b"new")

        def blobs(self, wanted):
            for one in wanted:
                yield one, self.blob(one)

        def require(self, wanted):
            asked.extend(f"require {one.label}" for one in wanted)

        def document(self, urls, **_):
            return "theirs", urls[0]

    wanted = [want(b"new", label="new"), *(want(data, label=sha256) for sha256, data in parts.files.items())]
    with open_bundle(path) as bundle:
        fetch = OldFirst(BundleFetch(bundle, store), Network())
        fetch.require(wanted)
        got = dict(fetch.blobs(wanted))
        assert asked == ["require new", "new"]
        assert got.keys() == set(wanted)
        assert fetch.blob(wanted[1]) == got[wanted[1]]
        assert fetch.document(["x"], limit=1, label="", accept=len) == ("theirs", "x")


def test_what_could_reach_a_network_is_not_even_loaded():
    code = (
        "import sys, rootfsbuild.repository.bundle, rootfsbuild.repository.bundle_fetch\n"
        "import rootfsbuild.repository.bundle_writing, rootfsbuild.repository.offline\n"
        "names = ('requests', 'urllib3', 'http.client', 'ssl')\n"
        "names += ('rootfsbuild.repository.network', 'rootfsbuild.repository.transfer')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_part_reads_like_a_file(written):
    parts, path = written
    sha256, data = max(parts.files.items(), key=lambda item: len(item[1]))
    with open_bundle(path) as bundle, bundle.open_blob(sha256) as stream:
        assert stream.read(3) == data[:3]
        assert stream.read(5) == data[3:8]
        buffer = bytearray(7)
        assert stream.readinto(buffer) == 7
        assert buffer == data[8:15]
        assert stream.read() == data[15:]
        assert stream.read(1) == b""
        assert isinstance(stream, io.BufferedReader)
    assert Member("x", 1, "2") == Member("x", 1, "2", 0)
