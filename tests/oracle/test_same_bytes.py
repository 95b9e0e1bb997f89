"""The same plan gives the same bytes, wherever, whenever and beside whatever it is built."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from making.builds import need_root, rootfsbuild, rootfsbuild_elsewhere, sha256
from making.mirror import filling_mirror

from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.remove import remove_tree

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.xdist_group("same-bytes")]

# bookworm's minimal root, and a package whose scripts compile, so that more than copied files is compared.
RECIPE = 'distro = "debian"\nrelease = "bookworm"\n[packages]\ninclude = ["python3-minimal"]\n'
EPOCH = 1700000000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    need_root()
    folder = tmp_path_factory.mktemp("same")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def memory():
    """A folder on a file system of another kind, which lists names in another order, if there is one."""
    folder = tempfile.mkdtemp(prefix="rootfsbuild-same-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield pathlib.Path(folder)
    remove_tree(folder)


def build(folder, store, target, *words, **variables):
    built = rootfsbuild(folder / "recipe.toml", "-o", target, "--cache-dir", store, *words, **variables)
    assert built.status == 0, built.err
    return target


def build_elsewhere(folder, store, target):
    built = rootfsbuild_elsewhere(folder / "recipe.toml", "-o", target, "--cache-dir", store)
    assert built.status == 0, built.err
    return target


@pytest.fixture(scope="module")
def first(folder, store):
    """The dump of a first build, and its manifest."""
    target = build(folder, store, folder / "first")
    return dump_tree(str(target), times=True), manifest(target)


def manifest(target):
    """What is written beside a result, without the identity of its inode."""
    found = json.loads(pathlib.Path(f"{target}.manifest.json").read_text())
    found.pop("made")
    return found


def assert_same(target, first):
    tree, record = first
    assert dump_tree(str(target), times=True) == tree
    assert manifest(target) == record


def test_again_on_another_file_system(folder, store, memory, first):
    assert_same(build(folder, store, memory / "again"), first)


def test_elsewhere(folder, store, first):
    assert_same(build_elsewhere(folder, store, folder / "elsewhere"), first)


def test_tar(folder, store, memory, first):
    here = build(folder, store, memory / "here.tar")
    there = build_elsewhere(folder, store, folder / "there.tar")
    assert sha256(here) == sha256(there)


def test_source_date_epoch_is_the_latest_time(folder, store, memory, first):
    target = build(folder, store, memory / "dated", SOURCE_DATE_EPOCH=EPOCH)
    # Asked of the file system itself: the dump is what the other tests trust.
    times = [os.lstat(path).st_mtime for path in every_path(target)]
    assert max(times) == EPOCH
    wanted, found = dump_tree(str(target)), without_times(first[0])
    # The day of the passwords' last change is a date too.
    different = {path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)}
    assert different <= {"/etc/shadow", "/etc/shadow-"}


def every_path(top):
    yield top
    for parent, directories, files in os.walk(top):
        yield from (os.path.join(parent, name) for name in directories + files)


def without_times(tree):
    return {path: " ".join(word for word in line.split(" ") if not word.startswith("@")) for path, line in tree.items()}


def test_two_at_once_on_an_empty_store(folder, memory, first):
    """Both succeed, each package is asked for once, and what a cold store gives is what a warm one gave."""
    with filling_mirror("debian") as debian, filling_mirror("debian-security") as security:
        targets = [memory / "one", memory / "two"]
        builders = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "rootfsbuild", "-q", folder / "recipe.toml", "-o", target),
                    *("--cache-dir", memory / "store"),
                    *("--mirror", f"debian={debian.url}", "--mirror", f"debian-security={security.url}"),
                ],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for target in targets
        ]
        for builder in builders:
            _, errors = builder.communicate(timeout=600)
            assert builder.returncode == 0, errors.decode()
        asked = debian.requests("/pool/") + security.requests("/pool/")
    for target in targets:
        assert dump_tree(str(target), times=True) == first[0]
    packages = first[1]["packages"]
    assert len(asked) == len(packages)
    assert set(asked.values()) == {1}
