from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rootfsbuild.errors import RootfsbuildError, UsageError
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.outputs.output import DIRECTORY, OUTPUTS, choose_output, offered

EPOCH = 1_600_000_000
SUFFIXES = [suffix for output in OUTPUTS for suffix in output.suffixes]
LONG = "n" * 120 + "/" + "é" * 60

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")

# Forms that are written; a directory is moved, with the times it has.
archives = pytest.mark.parametrize(
    "output", [output for output in OUTPUTS if output is not DIRECTORY], ids=lambda output: output.name
)


@pytest.fixture(params=OUTPUTS, ids=lambda output: output.name)
def output(request):
    return request.param


def make_tree(top):
    """A small tree with one of everything that a root has."""
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/bin/tool").write_bytes(b"#!/bin/sh\n" * 5000)
    (top / "usr/bin/tool").chmod(0o4755)
    os.link(top / "usr/bin/tool", top / "usr/bin/zwilling")
    (top / "bin").symlink_to("usr/bin")
    (top / "dangling").symlink_to("/no/such/" + "x" * 150)
    (top / "empty").mkdir(mode=0o700)
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / LONG).parent.mkdir()
    (top / LONG).write_text("long")
    (top / "a b\n").write_text("")
    with open(os.fsencode(top) + b"/\xff", "wb") as file:
        file.write(b"no text")
    os.mkfifo(top / "fifo")
    if os.geteuid() == 0:
        os.chown(top / "empty", 1234, 65534)
        os.mknod(top / "null", 0o20666, os.makedev(1, 3))
        (top / "null").chmod(0o666)
    os.utime(top / "usr/bin", (EPOCH - 5, EPOCH - 5))
    os.utime(top / "empty", (EPOCH + 500, EPOCH + 500))
    top.chmod(0o755)
    return top


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return make_tree(tmp_path / "root")


def place(tmp_path, output, name="result"):
    return tmp_path / (name + (output.suffixes[0] if output.suffixes else ""))


def taken_out(tmp_path, output, path):
    """The tree that a result holds, as a directory."""
    if output.name == "directory":
        return path
    if output.name == "tar":
        if shutil.which("tar") is None:
            pytest.skip("tar is not installed")
        out = tmp_path / f"{path.name}.out"
        out.mkdir()
        words = ["--numeric-owner", "-p", "--xattrs", "--xattrs-include=*", "-C", str(out), "-xf", str(path)]
        done = subprocess.run(["tar", *words], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return out
    raise AssertionError(f"tell this test how to read {output.name}")


# The record


def test_names_and_endings_are_unique():
    assert len({output.name for output in OUTPUTS}) == len(OUTPUTS)
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


def test_exactly_one_takes_what_no_ending_claims():
    assert [output for output in OUTPUTS if not output.suffixes] == [DIRECTORY]


def test_every_output_is_chosen_by_its_endings(output):
    for suffix in output.suffixes:
        assert choose_output(f"out/x{suffix}") is output
        assert choose_output(f"out/X{suffix.upper()}") is output
    assert callable(output.write)
    assert output.write.__doc__


@pytest.mark.parametrize("path", ["out/x", "out/debian12.5", "x.d", "out/.hidden", "/srv/tar"])
def test_everything_else_is_a_directory(path):
    assert choose_output(path) is DIRECTORY


@pytest.mark.parametrize("path", ["x.tar.gz", "x.tgz", "out/X.TAR.ZST", "x.squashfs", "x.ext4", "x.oci", "x.wsl"])
def test_forms_that_come_later_are_refused_with_what_there_is(path):
    with pytest.raises(UsageError) as caught:
        choose_output(path)
    assert path in str(caught.value)
    assert all(output.name in str(caught.value) for output in OUTPUTS)
    assert caught.value.hint
    assert ".tar" in offered()


# What is written


@needs_root
def test_the_tree_comes_out_as_it_went_in(tmp_path, output, root):
    before = dump_tree(str(root))
    path = place(tmp_path, output)
    output.write(str(root), str(path), EPOCH)
    assert dump_tree(str(taken_out(tmp_path, output, path))) == before


@needs_root
@archives
def test_no_archive_holds_a_time_after_the_epoch(tmp_path, output, root):
    path = place(tmp_path, output)
    output.write(str(root), str(path), EPOCH)
    out = taken_out(tmp_path, output, path)
    times = [os.lstat(os.path.join(at, name)).st_mtime for at, dirs, files in os.walk(out) for name in dirs + files]
    assert max(times) <= EPOCH
    assert os.lstat(out / "usr/bin").st_mtime == EPOCH - 5


@needs_root
@archives
def test_the_same_tree_gives_the_same_bytes(tmp_path, output):
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path = place(tmp_path, output, f"{name}-result")
        output.write(str(make_tree(tmp_path / name)), str(path), EPOCH)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_nothing_is_overwritten(tmp_path, output):
    (tmp_path / "root").mkdir()
    path = place(tmp_path, output)
    if output is DIRECTORY:
        path.mkdir()
        (path / "mine").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises((OSError, RootfsbuildError)):
        output.write(str(tmp_path / "root"), str(path), EPOCH)
    assert (path / "mine" if output is DIRECTORY else path).read_text() == "mine"


@needs_root
@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_tar_lists_its_archive_without_complaint(tmp_path, root):
    output = next(output for output in OUTPUTS if output.name == "tar")
    path = tmp_path / "x.tar"
    output.write(str(root), str(path), EPOCH)
    command = ["tar", "--numeric-owner", "--quoting-style=literal", "-tvf", str(path)]
    done = subprocess.run(
        command, capture_output=True, check=False, env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"-rwsr-xr-x 0/0" in done.stdout
    assert b"drwx------ 1234/65534" in done.stdout
    assert b"crw-rw-rw- 0/0" in done.stdout
    assert b"link to" in done.stdout
