"""Packages made to write outside of the root they are unpacked into: nothing outside changes."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making.debs import make_raw_deb
from making.extracting import jobs_for, needs_root, raw, unpack
from making.tars import Directory, File, Hard, Link, Node, header, make_tar, member, pax

from rootfsbuild.errors import FileConflictError, PackageError, RootfsbuildError, TargetError
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.extract import extract_packages

pytestmark = needs_root


@pytest.fixture
def outside(tmp_path):
    """A folder beside the root, with a file that an attack would change; it must be as before at the end."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_text("precious")
    (folder / "victim").chmod(0o600)
    before = dump_tree(str(folder), times=True)
    yield folder
    assert dump_tree(str(folder), times=True) == before
    assert os.stat(folder / "victim").st_nlink == 1


def _wins(name):
    return lambda *, loser, winner, **_: loser != winner == name


def _refused(tmp_path, packages, match=None, **options):
    with pytest.raises(PackageError, match=match) as caught:
        unpack(tmp_path, packages, **options)
    assert set(os.listdir(tmp_path)) <= {"root", "outside", *(f"{name}.deb" for name in packages)}
    return caught.value


@pytest.mark.parametrize(
    "name", ["../outside/victim", "/outside/victim", "./a/../../outside/victim", "./../outside/new"]
)
def test_a_name_that_leads_outside(tmp_path, outside, name):
    _refused(tmp_path, {"evil": raw([(name, b"pwned")])}, "outside of the root")


def test_an_absolute_name_that_exists_on_the_host(tmp_path, outside):
    _refused(tmp_path, {"evil": raw([(str(outside / "victim"), b"pwned")])}, "outside of the root")


@pytest.mark.parametrize("up", ["..", "../outside", "../../../../../../../../../..", "/proc/1/root", "/proc/self/cwd"])
def test_writing_through_ones_own_symlink(tmp_path, outside, up):
    members = [("./d", Link(up)), ("./d/victim", b"pwned"), ("./d/outside/victim", b"pwned")]
    unpack(tmp_path, {"evil": raw(members)})
    # Symlinks come last, as in dpkg, and give way to the directory that is there by then.
    assert (tmp_path / "root/d/victim").read_bytes() == b"pwned"
    assert not (tmp_path / "root/d").is_symlink()


def test_writing_through_the_symlink_of_an_earlier_package(tmp_path, outside):
    packages = {"a": raw([("./d", Link(str(outside)))]), "b": raw([("./d/victim", b"pwned")])}
    with pytest.raises(FileConflictError) as caught:
        unpack(tmp_path, packages)
    assert (caught.value.path, caught.value.first, caught.value.second) == ("/d", "a", "b")


def test_writing_through_an_absolute_symlink_that_also_exists_inside(tmp_path, outside):
    inside = str(outside).lstrip("/")
    unpack(tmp_path, {"evil": {inside: Directory(), "d": Link(str(outside)), "e/x": b""}})
    unpack(tmp_path, {"more": raw([("./d/victim", b"pwned")])})
    assert (tmp_path / "root" / inside / "victim").read_bytes() == b"pwned"


def test_package_b_writing_through_the_symlink_of_package_a(tmp_path, outside):
    packages = {"a": raw([("./d", Link("../outside"))]), "b": raw([("./d/victim", b"pwned")])}
    with pytest.raises(RootfsbuildError):
        unpack(tmp_path, packages, workers=1)


def test_replacing_a_directory_by_a_symlink_and_writing_below_it(tmp_path, outside):
    members = [("./d/", Directory()), ("./d/x", b"1"), ("./d", Link(str(outside))), ("./d/victim", b"pwned")]
    unpack(tmp_path, {"evil": raw(members)})
    assert (tmp_path / "root/d").is_dir()
    assert not (tmp_path / "root/d").is_symlink()
    assert (tmp_path / "root/d/victim").read_bytes() == b"pwned"


def test_writing_to_a_file_through_a_symlink_of_the_same_name(tmp_path, outside):
    _refused(tmp_path, {"evil": raw([("./f", Link("../outside/victim")), ("./f", b"pwned")])}, "same path twice")


def test_writing_to_a_file_through_the_symlink_of_another_package(tmp_path, outside):
    packages = {"a": {"f": Link("../outside/victim")}, "b": {"f": b"pwned"}}
    with pytest.raises(FileConflictError):
        unpack(tmp_path, packages)


def test_a_symlink_left_by_an_earlier_package_is_replaced_not_followed(tmp_path, outside):
    packages = {"a": {"f": Link(str(outside / "victim"))}, "b": {"f": b"pwned"}}
    unpack(tmp_path, packages, may_replace=_wins("b"))
    assert (tmp_path / "root/f").read_bytes() == b"pwned"
    assert not (tmp_path / "root/f").is_symlink()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside/victim", "outside/../../outside/victim"])
def test_a_hard_link_to_a_path_outside(tmp_path, outside, target):
    _refused(tmp_path, {"evil": raw([header("./x", b"1", link=target)])}, "outside of the root")


def test_a_hard_link_through_a_symlink(tmp_path, outside):
    members = [("./d", Link("../outside")), ("./x", Hard("./d/victim"))]
    _refused(tmp_path, {"evil": raw(members)}, "not an earlier file of this package")


def test_a_hard_link_to_a_symlink(tmp_path, outside):
    members = [("./l", Link(str(outside / "victim"))), ("./x", Hard("./l")), ("./x", b"pwned")]
    _refused(tmp_path, {"evil": raw(members)}, "not an earlier file of this package")


def test_a_hard_link_to_another_packages_file(tmp_path):
    packages = {"a": {"etc/shadow": File(b"secret", 0o600)}, "evil": raw([("./x", Hard("./etc/shadow"))])}
    _refused(tmp_path, packages, "not an earlier file of this package", workers=1)


def test_a_hard_link_to_what_the_root_held_before(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/secret").write_text("x")
    _refused(tmp_path, {"evil": raw([("./x", Hard("./secret"))])}, "not an earlier file")


def test_a_hard_link_to_a_later_file_and_to_itself(tmp_path):
    _refused(tmp_path, {"evil": raw([("./x", Hard("./y")), ("./y", b"")])}, "not an earlier file")
    _refused(tmp_path, {"evil": raw([("./z", Hard("./z"))])}, "not an earlier file")


def test_a_very_long_chain_of_links(tmp_path, outside):
    members = [(f"./l{number}", Link(f"l{number + 1}")) for number in range(200)]
    members += [("./real/", Directory()), ("./l200", Link("real"))]
    _refused(tmp_path, {"a": raw(members), "b": raw([("./l0/victim", b"pwned")])}, "symbolic links")
    assert os.listdir(tmp_path / "root/real") == []


def test_links_that_grow_beyond_any_path(tmp_path, outside):
    step = "x" * 250
    members = [(f"./{step}", Link(".")), (f"./{'/'.join([step] * 16)}/../victim", b"")]
    _refused(tmp_path, {"evil": raw(members)}, "outside of the root")
    deep = "/".join([step] * 17)
    _refused(tmp_path, {"evil": raw([(f"./{step}", Link(".")), (f"./{deep}", b"")])}, "longer than Linux allows")


def test_links_in_a_circle(tmp_path):
    packages = {"a": raw([("./a", Link("b")), ("./b", Link("a"))]), "b": raw([("./a/x", b"")])}
    _refused(tmp_path, packages, "symbolic links")


def test_a_directory_below_a_file(tmp_path):
    _refused(tmp_path, {"evil": raw([("./f", b""), ("./f/x", b"")])}, "has something else")


def test_the_same_file_under_two_names_of_one_directory(tmp_path):
    _refused(tmp_path, {"evil": raw([("./bin/x", b"1"), ("./usr/bin/x", b"2")])}, "under two names", merged=True)


def test_two_packages_that_meet_through_aliases_do_not_share_a_temporary_name(tmp_path):
    packages = {
        "a": {"usr/bin/x": b"a", "usr/bin/y": b"a"},
        "b": {"bin/x": b"b", "bin/y": b"b"},
        "c": {"usr/bin/x": b"c", "bin/y": b"c"},
    }
    order = {"a": 0, "b": 1, "c": 2}
    unpack(
        tmp_path,
        packages,
        merged=True,
        workers=3,
        may_replace=lambda *, loser, winner, **_: order[winner] > order[loser],
    )
    found = sorted((entry.name, entry.read_bytes()) for entry in (tmp_path / "root/usr/bin").iterdir())
    assert found == [("x", b"c"), ("y", b"c")]


def test_a_package_that_brings_our_temporary_names(tmp_path):
    names = {f".rootfsbuild-{rank}-{count}": b"mine" for rank in range(3) for count in range(3)}
    packages = {"a": {"f": b"a", **names}, "b": {"f": b"b"}}
    with pytest.raises((PackageError, FileConflictError)):
        unpack(tmp_path, packages, workers=1, may_replace=_wins("b"))


@pytest.mark.parametrize("node", [Node(b"3", (1, 1)), Node(b"4", (8, 0)), Node(b"6")], ids=["memory", "disk", "fifo"])
def test_device_nodes_and_fifos(tmp_path, node):
    _refused(tmp_path, {"evil": {"dev/x": node}}, "Policy 10.6")
    assert not (tmp_path / "root/dev/x").exists()


def test_a_file_over_a_device_of_the_root_does_not_open_it(tmp_path):
    (tmp_path / "root/dev").mkdir(parents=True)
    os.mkfifo(tmp_path / "root/dev/console")
    unpack(tmp_path, {"evil": {"dev/console": b"x"}})
    assert stat.S_ISREG(os.stat(tmp_path / "root/dev/console").st_mode)


def test_setuid_is_kept_for_honest_packages_and_gone_with_a_lost_conflict(tmp_path):
    packages = {"a": {"f": File(b"a", 0o755)}, "b": {"f": File(b"b", 0o4755), "g": File(b"g", 0o4755, 1, 1)}}
    unpack(tmp_path, packages, may_replace=_wins("a"))
    assert stat.S_IMODE(os.stat(tmp_path / "root/f").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(tmp_path / "root/g").st_mode) == 0o4755


def test_labels_and_marks_of_the_host_are_not_taken_from_a_package(tmp_path):
    file = File(b"", xattrs=(("trusted.overlay.opaque", b"y"), ("security.evil", b"1"), ("user.fine", b"2")))
    unpack(tmp_path, {"evil": {"f": file}})
    assert os.listxattr(tmp_path / "root/f") == ["user.fine"]


@pytest.mark.parametrize("name", ["mnt", "mnt/victim"])
def test_nothing_is_unpacked_into_what_is_mounted_in_the_root(tmp_path, outside, name):
    (tmp_path / "root/mnt").mkdir(parents=True)
    (tmp_path / "root/mnt/victim").write_text("covered")
    source = outside / name.removeprefix("mnt").lstrip("/")
    subprocess.run(["mount", "--bind", source, tmp_path / "root" / name], check=True)
    try:
        with pytest.raises(TargetError, match="is a mount"):
            unpack(tmp_path, {"evil": {"mnt/victim": b"pwned", "mnt/new": b"pwned"}})
    finally:
        subprocess.run(["umount", tmp_path / "root" / name], check=True)


def test_a_payload_larger_than_its_metadata_allow(tmp_path):
    blob = make_raw_deb(make_tar([("./f", bytes(8 << 20))]), compression="xz")
    _refused(tmp_path, {"evil": blob}, "expands to more than", limit=1 << 20)
    assert sum(file.stat().st_size for file in (tmp_path / "root").iterdir()) <= 1 << 20


def test_a_million_empty_files_stay_within_the_limit(tmp_path):
    blocks = b"".join(header(f"./{number}") for number in range(4000))
    _refused(tmp_path, {"evil": raw(blocks + bytes(1024))}, "expands to more than", limit=1 << 20)
    assert len(os.listdir(tmp_path / "root")) <= 2048


def test_the_error_names_package_and_path_of_a_truncated_payload(tmp_path):
    data = make_tar([("./good", b"x"), ("./bad", bytes(100_000))])[:50_000]
    error = _refused(tmp_path, {"evil": raw(data)}, "truncated")
    assert (error.package, error.path) == ("evil", "bad")


def test_a_blob_that_is_a_symlink_or_a_folder(tmp_path):
    jobs = jobs_for(tmp_path, {"a": {"f": b""}})
    (tmp_path / "root").mkdir()
    os.rename(jobs[0].path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", jobs[0].path)
    with pytest.raises(PackageError):
        extract_packages(str(tmp_path / "root"), jobs, open_deb)
    os.unlink(jobs[0].path)
    os.mkdir(jobs[0].path)
    with pytest.raises(PackageError):
        extract_packages(str(tmp_path / "root"), jobs, open_deb)


def test_a_reader_that_crashes_is_the_packages_fault(tmp_path):
    def crash(fd, label):
        os.abort()

    (tmp_path / "root").mkdir()
    with pytest.raises(PackageError, match="signal 6"):
        extract_packages(str(tmp_path / "root"), jobs_for(tmp_path, {"a": {}}), crash)


def test_a_reader_that_fails_in_an_unforeseen_way_is_the_packages_fault(tmp_path):
    def fail(fd, label):
        raise KeyError("surprise")

    (tmp_path / "root").mkdir()
    with pytest.raises(PackageError, match="KeyError"):
        extract_packages(str(tmp_path / "root"), jobs_for(tmp_path, {"a": {}}), fail)


def test_the_unpacking_process_sees_no_host_and_gains_no_privilege(tmp_path):
    def spy(fd, label):
        with open("/seen", "w") as file:
            file.write(f"{os.getpid()} {os.path.exists('/etc/passwd')}")
        return open_deb(fd, label)

    def arriving():
        # With one worker the second job is handed out when the first is done, and the third is asked for after that.
        yield from jobs[:2]
        with open(f"/proc/{(tmp_path / 'root/seen').read_text().split()[0]}/status") as lines:
            status.append(lines.read())
        yield jobs[2]

    status = []
    jobs = jobs_for(tmp_path, {"a": {"f": b""}, "b": {"g": b""}, "c": {"h": b""}})
    (tmp_path / "root").mkdir()
    extract_packages(str(tmp_path / "root"), arriving(), spy, workers=1)
    assert (tmp_path / "root/seen").read_text().endswith(" False")
    assert "NoNewPrivs:\t1\n" in status[0]


_NAMES = st.sampled_from(["a", "b", "a/b", "a/b/c", "b/c", "..", "../outside/victim", "/x", "a/../../y", "c"])
_TARGETS = st.sampled_from(["a", "b", "..", "../outside", "../outside/victim", "/", "/outside", ".", "a/b", "../../.."])
_THINGS = st.one_of(
    st.builds(File, st.binary(max_size=4), st.sampled_from([0o644, 0o4755])),
    st.builds(Directory),
    st.builds(Link, _TARGETS),
    st.builds(Hard, _TARGETS),
    st.builds(Node, st.just(b"6")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(packages=st.lists(st.lists(st.tuples(_NAMES, _THINGS), max_size=6), min_size=1, max_size=3))
def test_no_sequence_of_entries_changes_anything_outside(tmp_path_factory, packages):
    folder = tmp_path_factory.mktemp("case")
    (folder / "outside").mkdir()
    (folder / "outside/victim").write_text("precious")
    before = dump_tree(str(folder / "outside"), times=True)
    blobs = {
        f"p{number}": raw([(f"./{name}" if name[0] != "/" else name, what) for name, what in members])
        for number, members in enumerate(packages)
    }
    with contextlib.suppress(PackageError, FileConflictError):
        unpack(folder, blobs, may_replace=lambda *, loser, winner, **_: winner > loser)
    assert dump_tree(str(folder / "outside"), times=True) == before
    assert os.stat(folder / "outside/victim").st_nlink == 1
    assert set(os.listdir(folder)) == {"root", "outside", *(f"{name}.deb" for name in blobs)}


def test_pax_paths_are_held_to_the_same_rules(tmp_path, outside):
    tar = pax({b"path": b"../outside/victim"}) + header("./x", size=5) + b"pwned".ljust(512, b"\0")
    _refused(tmp_path, {"evil": raw(tar + bytes(1024))}, "outside of the root")
    tar = member("./d", Link("../outside")) + pax({b"linkpath": b"./d/victim"}) + header("./x", b"1")
    _refused(tmp_path, {"evil": raw(tar + bytes(1024))}, "not an earlier file")
