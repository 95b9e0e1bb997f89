from __future__ import annotations

import hashlib
import os
import resource
import signal
import tempfile
import threading
import time

import pytest

from rootfsbuild.errors import StorageError
from rootfsbuild.events import Warned
from rootfsbuild.repository.store import Store, default_cache_dir

DATA = b"some bytes" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "cache"))


def in_child(act):
    """Run `act` in a forked process and return its pid; the process then waits to be killed."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act(lambda: os.write(tell, b"."))
        finally:
            os._exit(0)
    os.close(tell)
    assert os.read(ready, 1) == b"."
    os.close(ready)
    return pid


def test_cache_directory_follows_the_environment():
    assert default_cache_dir({"ROOTFSBUILD_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/x"}) == "/c"
    assert default_cache_dir({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == "/x/rootfsbuild"
    assert default_cache_dir({"HOME": "/h"}) == "/h/.cache/rootfsbuild"


def test_path_is_by_digest_and_nothing_else(store):
    assert store.path(DIGEST) == f"{store.root}/blobs/sha256/{DIGEST[:2]}/{DIGEST}"
    for wrong in ("../../etc/passwd", DIGEST[:-1], DIGEST.upper(), ""):
        with pytest.raises(ValueError, match="not a SHA-256"):
            store.path(wrong)


def test_put_and_find(store):
    assert store.find(DIGEST, len(DATA)) is None
    path = store.put(DATA)
    assert path == store.find(DIGEST, len(DATA)) == store.put(DATA)
    with open(path, "rb") as file:
        assert file.read() == DATA
    assert not os.listdir(f"{store.root}/partial")


def test_empty_blob(store):
    path = store.put(b"")
    assert store.find(hashlib.sha256(b"").hexdigest(), 0) == path


def test_flipped_bit_is_noticed_and_set_aside(tmp_path):
    path = Store(str(tmp_path)).put(DATA)
    with open(path, "r+b") as file:
        file.write(b"\0")
    heard = []
    assert Store(str(tmp_path), heard.append).find(DIGEST, len(DATA)) is None
    assert not os.path.exists(path)
    assert len(os.listdir(tmp_path / "damaged")) == 1
    assert isinstance(heard[0], Warned)
    assert DIGEST[:12] in heard[0].text


def test_truncated_blob_is_noticed(tmp_path):
    path = Store(str(tmp_path)).put(DATA)
    os.truncate(path, 5)
    assert Store(str(tmp_path)).find(DIGEST, len(DATA)) is None


def test_blob_changed_after_its_first_use_is_noticed(store):
    path = store.put(DATA)
    assert store.find(DIGEST, len(DATA))
    with open(path, "r+b") as file:
        file.write(b"\0")
    os.utime(path, ns=(1, 1))
    assert store.find(DIGEST, len(DATA)) is None


def test_a_second_writer_waits_and_finds_the_blob(store):
    entered, leave, order = threading.Event(), threading.Event(), []

    def first():
        with store.claim(DIGEST, time.sleep) as claim:
            entered.set()
            assert leave.wait(5)
            claim.write(DATA)
            claim.publish()
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(5)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        leave.set()
        time.sleep(0.01)

    with store.claim(DIGEST, pause) as claim:
        order.append("second")
        assert store.find(DIGEST, len(DATA))
        assert claim.have == 0
    thread.join()
    assert pauses
    assert order == ["first", "second"]


def test_dead_lock_holder_never_blocks_and_leaves_its_bytes(store):
    def hold(ready):
        with store.claim(DIGEST, time.sleep) as claim:
            claim.write(DATA[:100])
            ready()
            signal.pause()

    pid = in_child(hold)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    def pause(_):
        pytest.fail("waited for a process that is dead")

    with store.claim(DIGEST, pause) as claim:
        assert claim.have == 100
        assert claim.prefix().digest() == hashlib.sha256(DATA[:100]).digest()
        claim.write(DATA[100:])
        claim.publish()
    assert store.find(DIGEST, len(DATA))


def test_holder_that_hangs_is_passed_by_after_a_while(store):
    def hold(ready):
        with store.claim(DIGEST, time.sleep):
            ready()
            signal.pause()

    pid = in_child(hold)
    try:
        waited = []
        with store.claim(DIGEST, waited.append, patience=10) as claim:
            claim.write(DATA)
            claim.publish()
        assert 10 <= sum(waited) < 12
        assert store.find(DIGEST, len(DATA))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_interrupted_write_keeps_its_bytes_for_the_next(store):
    def write_and_stop():
        with store.claim(DIGEST, time.sleep) as claim:
            claim.write(DATA[:10])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    with store.claim(DIGEST, time.sleep) as claim:
        assert claim.have == 10


def test_write_that_the_file_system_refuses(store):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(StorageError) as caught:
            store.put(DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "File too large" in str(caught.value)
    assert "cache prune" in caught.value.hint
    assert store.find(DIGEST, len(DATA)) is None
    assert store.put(DATA) == store.find(DIGEST, len(DATA))


def as_nobody(act):
    """Return what `act` says in a process without root's power over files; "" if it says nothing."""
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            os.write(say, str(act()).encode())
        except StorageError as error:
            os.write(say, f"StorageError {error} {error.hint}".encode())
        finally:
            os._exit(0)
    os.close(say)
    os.waitpid(pid, 0)
    with open(said, "rb") as file:
        return file.read().decode()


@pytest.fixture
def open_folder():
    """Return a folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield folder


def test_read_only_cache_gives_what_it_has_and_refuses_the_rest(open_folder):
    folder = os.path.join(open_folder, "cache")
    path = Store(folder).put(DATA)
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o555)
    assert as_nobody(lambda: Store(folder).find(DIGEST, len(DATA))) == path
    refused = as_nobody(lambda: Store(folder).put(b"new"))
    assert refused.startswith("StorageError")
    assert "Permission denied" in refused
    assert "--cache-dir" in refused

    def use():
        with Store(folder).in_use():
            return "used"

    assert as_nobody(use) == "used"


def fill(store, ages):
    """Put one blob of 1000 bytes for each age in days; return their paths."""
    paths = []
    for number, age in enumerate(ages):
        path = store.put(bytes([number]) * 1000)
        then = time.time() - age * 86400
        os.utime(path, (then, then))
        paths.append(path)
    return paths


def test_prune_by_age(store):
    old, new = fill(store, [40, 1])
    pruned = store.prune(days=30)
    assert (pruned.count, pruned.size) == (1, 1000)
    assert (os.path.exists(old), os.path.exists(new)) == (False, True)


def test_prune_by_size_takes_the_least_recently_used(store):
    paths = fill(store, [3, 1, 2])
    store.prune(max_bytes=2000)
    assert [os.path.exists(path) for path in paths] == [False, True, True]


def test_prune_of_everything_keeps_the_rollback_memory(store):
    fill(store, [0])
    os.makedirs(store.trust)
    memory = os.path.join(store.trust, "example_stable.json")
    with open(memory, "w", encoding="ascii") as file:
        file.write("{}")
    assert store.prune().count == 1
    assert os.path.exists(memory)


def test_use_renews_a_blob(store):
    (path,) = fill(store, [40])
    assert store.find(os.path.basename(path), 1000)
    assert store.prune(days=30).count == 0


def test_prune_never_takes_what_a_running_build_uses(tmp_path):
    store = Store(str(tmp_path))
    (path,) = fill(store, [40])

    def build(ready):
        with Store(str(tmp_path)).in_use():
            ready()
            signal.pause()

    pid = in_child(build)
    try:
        with pytest.raises(StorageError) as caught:
            store.prune()
        assert "a build is using this cache" in str(caught.value)
        assert os.path.exists(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert store.prune().count == 1


def test_two_builds_may_use_one_store(store):
    with store.in_use(), Store(store.root).in_use():
        pass


def test_prune_where_there_is_no_cache(tmp_path):
    assert Store(str(tmp_path / "none")).prune().count == 0
    assert not (tmp_path / "none").exists()


def test_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Store(str(tmp_path / "file/cache")).put(DATA)
