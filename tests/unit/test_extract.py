from __future__ import annotations

import hashlib
import itertools
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from making.debs import make_deb
from making.extracting import jobs_for, needs_root, raw, unpack
from making.tars import MTIME, Directory, File, Hard, Link, Node

from rootfsbuild.errors import FileConflictError, PackageError, StorageError
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.extract import extract_packages
from rootfsbuild.rootfs.lay import Rules

pytestmark = needs_root


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:8]


def _replaces(*pairs):
    return lambda *, loser, winner, **_: (winner, loser) in pairs


def test_everything_of_a_package_is_as_the_package_says(tmp_path):
    files = {
        "usr/bin/su": File(b"su", 0o4755),
        "usr/bin/crontab": File(b"cron", 0o2755, 0, 42),
        "usr/bin/also": Hard("usr/bin/su"),
        "usr/lib/l": Link("../bin/su"),
        "var/tmp": Directory(0o1777),
        "etc/private": File(b"x", 0o600, 7, 8),
        "odd/new\nline": b"",
    }
    unpack(tmp_path, {"a": files})
    assert dump_tree(str(tmp_path / "root"), times=True) == {
        "/": f"directory 0755 0:0 @{MTIME}",
        "/etc": f"directory 0755 0:0 @{MTIME}",
        "/etc/private": f"file 0600 7:8 {_digest(b'x')} @{MTIME}",
        "/odd": f"directory 0755 0:0 @{MTIME}",
        "/odd/new\nline": f"file 0644 0:0 {_digest(b'')} @{MTIME}",
        "/usr": f"directory 0755 0:0 @{MTIME}",
        "/usr/bin": f"directory 0755 0:0 @{MTIME}",
        "/usr/bin/also": f"file 4755 0:0 {_digest(b'su')} @{MTIME}",
        "/usr/bin/crontab": f"file 2755 0:42 {_digest(b'cron')} @{MTIME}",
        "/usr/bin/su": "hardlink /usr/bin/also",
        "/usr/lib": f"directory 0755 0:0 @{MTIME}",
        "/usr/lib/l": f"symlink 0777 0:0 -> ../bin/su @{MTIME}",
        "/var": f"directory 0755 0:0 @{MTIME}",
        "/var/tmp": f"directory 1777 0:0 @{MTIME}",
    }


def test_file_capabilities_are_kept(tmp_path):
    capability = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)
    unpack(tmp_path, {"a": {"bin/ping": File(b"x", 0o755, xattrs=(("security.capability", capability),))}})
    assert os.getxattr(tmp_path / "root/bin/ping", "security.capability") == capability


def test_the_umask_does_not_matter(tmp_path):
    before = os.umask(0o077)
    try:
        unpack(tmp_path, {"a": {"d/f": File(b"", 0o666)}})
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "root/d/f").st_mode) == 0o666
    assert stat.S_IMODE(os.stat(tmp_path / "root/d").st_mode) == 0o755


def test_paths_come_as_dpkg_lists_them(tmp_path):
    laid = unpack(tmp_path, {"a": {"usr/bin/x": b"1", "etc/y": b"2"}})["a"]
    assert laid.paths == (b"/.", b"/etc", b"/etc/y", b"/usr", b"/usr/bin", b"/usr/bin/x")


def test_control_data_and_conffile_digests_come_back(tmp_path):
    blob = make_deb(
        tmp_path / "x.deb", {"Package": "a"}, {"etc/x": b"conf", "etc/y": b"no"}, {"preinst": "#!/bin/sh\n"}, ["/etc/x"]
    )
    laid = unpack(tmp_path, {"a": blob})["a"]
    assert laid.digests == {b"/etc/x": hashlib.md5(b"conf").hexdigest()}
    assert laid.control.files["preinst"] == (b"#!/bin/sh\n", 0o755)
    assert laid.control.fields.startswith(b"Package: a\n")


def test_results_are_in_plan_order_whatever_order_the_jobs_come_in(tmp_path):
    packages = {name: {f"{name}/f": b""} for name in "dbca"}
    assert list(unpack(tmp_path, packages, order=("a", "b", "c", "d"))) == ["a", "b", "c", "d"]


def test_jobs_are_taken_as_they_arrive(tmp_path):
    jobs = jobs_for(tmp_path, {name: {f"{name}/f": b"x"} for name in "abc"})
    (tmp_path / "root").mkdir()

    def arriving():
        yield jobs[0]
        # The last job is asked for only when the first is at work; wait until that one has landed.
        deadline = time.monotonic() + 20
        while not (tmp_path / "root/a/f").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert (tmp_path / "root/a/f").exists()
        yield from jobs[1:]

    assert list(extract_packages(str(tmp_path / "root"), arriving(), open_deb)) == ["a", "b", "c"]


def test_a_root_from_before_links_of_merged_usr_are_followed(tmp_path):
    laid = unpack(tmp_path, {"a": {"bin/x": b"1", "lib/deep/y": b"2"}, "b": {"usr/lib/deep/z": b"3"}}, merged=True)
    assert (tmp_path / "root/usr/bin/x").read_bytes() == b"1"
    assert (tmp_path / "root/usr/lib/deep/y").read_bytes() == b"2"
    assert os.readlink(tmp_path / "root/bin") == "usr/bin"
    assert b"/bin/x" in laid["a"].paths


def test_missing_parents_are_made(tmp_path):
    unpack(tmp_path, {"a": raw([("./a/b/c", b"x")])})
    assert stat.S_IMODE(os.stat(tmp_path / "root/a/b").st_mode) == 0o755


@pytest.mark.parametrize("order", list(itertools.permutations("ab")))
@pytest.mark.parametrize("sizes", [(1, 3_000_000), (3_000_000, 1)])
def test_the_first_package_of_the_plan_decides_a_shared_directory(tmp_path, order, sizes):
    packages = {
        "a": {"pad-a": bytes(sizes[0]), "d": Directory(0o700, 1, 1, 111)},
        "b": {"pad-b": bytes(sizes[1]), "d": Directory(0o750, 2, 2, 222)},
    }
    unpack(tmp_path, packages, order=order)
    expected = {"a": "directory 0700 1:1 @111", "b": "directory 0750 2:2 @222"}[order[0]]
    assert dump_tree(str(tmp_path / "root"), times=True)["/d"] == expected


def test_touched_dates_the_directories_that_received_files(tmp_path):
    files = {"d/e": Directory(mtime=5), "d": Directory(mtime=6), "f": Directory(mtime=7), "f/x": b""}
    unpack(tmp_path, {"a": files}, touched=9_000_000_000)
    dump = dump_tree(str(tmp_path / "root"), times=True)
    assert [dump[path].rpartition("@")[2] for path in ("/d", "/d/e", "/f")] == ["6", "5", "9"]


@pytest.mark.parametrize("order", list(itertools.permutations("ab")))
@pytest.mark.parametrize("submitted", list(itertools.permutations("ab")))
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_in_two_packages_is_an_error_that_names_both_in_plan_order(tmp_path, order, submitted, workers):
    packages = {name: {"usr/f": name.encode()} for name in submitted}
    with pytest.raises(FileConflictError) as caught:
        unpack(tmp_path, packages, order=order, workers=workers)
    assert (caught.value.path, caught.value.first, caught.value.second) == ("/usr/f", *order)


@pytest.mark.parametrize("submitted", list(itertools.permutations("ab")))
@pytest.mark.parametrize("winner", ["a", "b"])
def test_replaces_decides_a_shared_file_whoever_was_first(tmp_path, submitted, winner):
    loser = {"a": "b", "b": "a"}[winner]
    packages = {name: {"usr/f": File(name.encode(), 0o755 if name == "a" else 0o600)} for name in submitted}
    laid = unpack(tmp_path, packages, order=("a", "b"), may_replace=_replaces((winner, loser)))
    root = tmp_path / "root"
    assert (root / "usr/f").read_bytes() == winner.encode()
    assert sorted(os.listdir(root / "usr")) == ["f"]
    assert b"/usr/f" in laid[winner].paths
    assert b"/usr/f" not in laid[loser].paths


@pytest.mark.parametrize("submitted", list(itertools.permutations("abc")))
def test_three_packages_settle_as_one_after_the_other_would(tmp_path, submitted):
    packages = {name: {"f": name.encode()} for name in submitted}
    rule = _replaces(("b", "a"), ("b", "c"), ("c", "a"))
    laid = unpack(tmp_path, packages, order=("a", "b", "c"), may_replace=rule)
    assert (tmp_path / "root/f").read_bytes() == b"b"
    assert [b"/f" in laid[name].paths for name in "abc"] == [False, True, False]


@pytest.mark.parametrize("submitted", list(itertools.permutations("ab")))
def test_aliases_of_merged_usr_are_one_path(tmp_path, submitted):
    packages = {"a": {"bin/x": b"a"}, "b": {"usr/bin/x": b"b"}}
    with pytest.raises(FileConflictError) as caught:
        unpack(tmp_path, {name: packages[name] for name in submitted}, merged=True, order=("a", "b"))
    assert (caught.value.path, caught.value.first, caught.value.second) == ("/usr/bin/x", "a", "b")


@pytest.mark.parametrize("submitted", list(itertools.permutations("ab")))
@pytest.mark.parametrize("winner", ["a", "b"])
def test_hard_links_stay_with_their_own_package(tmp_path, submitted, winner):
    packages = {"a": {"f": b"of a", "g": Hard("f")}, "b": {"f": b"of b", "h": Hard("f")}}
    loser = {"a": "b", "b": "a"}[winner]
    rule = _replaces((winner, loser))
    unpack(tmp_path, {name: packages[name] for name in submitted}, order=("a", "b"), may_replace=rule)
    root = tmp_path / "root"
    assert ((root / "g").read_bytes(), (root / "h").read_bytes()) == (b"of a", b"of b")
    assert (root / "f").samefile(root / {"a": "g", "b": "h"}[winner])
    assert sorted(os.listdir(root)) == ["f", "g", "h"]


def test_a_file_and_a_directory_at_one_path_are_a_conflict_either_way(tmp_path):
    packages = {"a": {"x": b"file"}, "b": {"x/y": b"below"}}
    for number, submitted in enumerate(itertools.permutations("ab")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(FileConflictError) as caught:
            unpack(folder, {name: packages[name] for name in submitted}, order=("a", "b"), workers=1)
        assert (caught.value.path, caught.value.first, caught.value.second) == ("/x", "a", "b")


@pytest.mark.parametrize("submitted", list(itertools.permutations("ab")))
@pytest.mark.parametrize("workers", [1, 2])
def test_a_link_gives_way_to_a_directory_of_an_earlier_package(tmp_path, submitted, workers):
    packages = {"a": {"d/x": b"1", "d/h": Hard("d/x")}, "b": {"elsewhere": Directory(), "d": Link("elsewhere")}}
    laid = unpack(tmp_path, {name: packages[name] for name in submitted}, order=("a", "b"), workers=workers)
    assert (tmp_path / "root/d/x").samefile(tmp_path / "root/d/h")
    assert not (tmp_path / "root/d").is_symlink()
    assert os.listdir(tmp_path / "root/elsewhere") == []
    assert b"/d" in laid["b"].paths


@pytest.mark.parametrize("submitted", list(itertools.permutations("abc")))
@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_follows_a_link_of_an_earlier_package(tmp_path, submitted, workers):
    (tmp_path / "root/before").mkdir(parents=True)
    packages = {
        "a": {"real": Directory(), "d": Link("real")},
        "b": {"d/s/x": b"1", "before/y": b""},
        "c": {"d/s/z": b""},
    }
    unpack(tmp_path, {name: packages[name] for name in submitted}, order=("a", "b", "c"), workers=workers)
    assert sorted(dump_tree(str(tmp_path / "root"))) == [
        "/",
        "/before",
        "/before/y",
        "/d",
        "/real",
        "/real/s",
        "/real/s/x",
        "/real/s/z",
    ]
    assert os.readlink(tmp_path / "root/d") == "real"


def test_an_order_that_has_to_be_made_up_for_changes_nothing_else(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_text("nobody's")
    packages = {
        "b": {"d/x": b"1", "f": b"packaged", "shared": b"b"},
        "a": {"real": Directory(), "d": Link("real"), "shared": b"a"},
    }
    told = []
    rule = _replaces(("b", "a"))
    laid = unpack(tmp_path, packages, order=("a", "b"), may_replace=rule, report=told.append, workers=1)
    root = tmp_path / "root"
    assert sorted(os.listdir(root)) == ["d", "f", "real", "shared"]
    assert [(root / name).read_bytes() for name in ("f", "shared", "real/x")] == [b"packaged", b"b", b"1"]
    assert len(told) == 2
    assert list(laid) == ["a", "b"]


def test_what_is_nobodys_is_replaced_as_dpkg_does(tmp_path):
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/fstab").write_text("before")
    unpack(tmp_path, {"a": {"etc/fstab": b"packaged"}})
    assert (tmp_path / "root/etc/fstab").read_bytes() == b"packaged"
    assert os.listdir(tmp_path / "root/etc") == ["fstab"]


def test_a_second_call_knows_the_files_of_the_first(tmp_path):
    first = unpack(tmp_path, {"a": {"bin/f": b"a"}}, merged=True)
    with pytest.raises(FileConflictError) as caught:
        unpack(tmp_path, {"b": {"usr/bin/f": b"b"}}, earlier=first)
    assert (caught.value.first, caught.value.second) == ("a", "b")


def test_a_second_call_may_take_files_over_and_says_so(tmp_path):
    first = unpack(tmp_path, {"a": {"f": b"a", "g": b"g"}})
    second = unpack(tmp_path, {"b": {"f": b"b"}}, earlier=first, may_replace=_replaces(("b", "a")))
    assert (tmp_path / "root/f").read_bytes() == b"b"
    assert second["a"].paths == (b"/.", b"/g")
    assert second["b"].paths == (b"/.", b"/f")


def test_a_second_call_leaves_the_directories_of_the_first_alone(tmp_path):
    first = unpack(tmp_path, {"a": {"d": Directory()}})
    os.chmod(tmp_path / "root/d", 0o711)
    unpack(tmp_path, {"b": {"d": Directory(0o777)}}, earlier=first)
    assert stat.S_IMODE(os.stat(tmp_path / "root/d").st_mode) == 0o711


def test_a_diverted_file_goes_where_the_diversion_says(tmp_path):
    rules = Rules({b"usr/bin/sh": ("dash", b"usr/bin/sh.distrib")})
    packages = {"bash": {"bin/sh": b"bash"}, "dash": {"usr/bin/sh": b"dash"}}
    laid = unpack(tmp_path, packages, merged=True, rules=rules)
    root = tmp_path / "root/usr/bin"
    assert ((root / "sh").read_bytes(), (root / "sh.distrib").read_bytes()) == (b"dash", b"bash")
    assert b"/bin/sh" in laid["bash"].paths


def test_excluded_files_are_listed_but_not_made_and_directories_only_if_needed(tmp_path):
    rules = Rules(excluded=lambda path: path.startswith(b"usr/share/doc/") and not path.endswith(b"copyright"))
    files = {
        "usr/share/doc/a/copyright": b"c",
        "usr/share/doc/a/changelog": b"l",
        "usr/share/doc/b/readme": b"r",
        "usr/share/doc/b/again": Hard("usr/share/doc/b/readme"),
    }
    laid = unpack(tmp_path, {"a": files}, rules=rules)["a"]
    doc = tmp_path / "root/usr/share/doc"
    assert os.listdir(doc) == ["a"]
    assert os.listdir(doc / "a") == ["copyright"]
    assert b"/usr/share/doc/b/readme" in laid.paths
    assert b"/usr/share/doc/b" in laid.paths


def test_devices_are_made_when_they_are_allowed(tmp_path):
    files = {"dev/null": Node(b"3", (1, 3), 0o666), "dev/initctl": Node(b"6", mode=0o600)}
    unpack(tmp_path, {"a": files}, rules=Rules(devices=True))
    dump = dump_tree(str(tmp_path / "root"))
    assert (dump["/dev/null"], dump["/dev/initctl"]) == ("character 0666 0:0 1:3", "fifo 0600 0:0")


def test_a_full_disk_is_a_storage_error(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], check=True)
    try:
        with pytest.raises(StorageError, match="No space left") as caught:
            unpack(tmp_path, {"a": {"usr/big": bytes(4 << 20)}})
        assert "usr/big" in caught.value.path
    finally:
        subprocess.run(["umount", root], check=True)


def test_exhausted_inodes_are_a_storage_error(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=20", "none", root], check=True)
    try:
        with pytest.raises(StorageError, match="No space left"):
            unpack(tmp_path, {"a": {f"f{number}": b"" for number in range(50)}})
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_read_only_root_is_a_storage_error(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", root], check=True)
    try:
        with pytest.raises(StorageError, match="Read-only"):
            unpack(tmp_path, {"a": {"f": b""}})
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_missing_blob_is_a_package_error(tmp_path):
    jobs = jobs_for(tmp_path, {"a": {"f": b""}})
    os.unlink(jobs[0].path)
    (tmp_path / "root").mkdir()
    with pytest.raises(PackageError, match="No such file"):
        extract_packages(str(tmp_path / "root"), jobs, open_deb)


def _children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


def test_no_process_and_no_descriptor_is_left_after_success_or_failure(tmp_path):
    before = _children(), sorted(os.listdir("/proc/self/fd"))
    unpack(tmp_path, {"a": {"f": b""}})
    with pytest.raises(PackageError):
        unpack(tmp_path, {"b": b"garbage"})
    with pytest.raises(ZeroDivisionError):
        extract_packages(str(tmp_path / "root"), (1 // 0 for _ in "x"), open_deb)
    assert (_children(), sorted(os.listdir("/proc/self/fd"))) == before


def test_workers_die_with_their_parent(tmp_path):
    jobs = jobs_for(tmp_path, {"a": {"f": b""}})
    (tmp_path / "root").mkdir()
    program = f"""
import os, time
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.rootfs.extract import Job, extract_packages
def tell(fd, label):
    with open("/pid", "w") as file:
        file.write(str(os.getpid()))
    return open_deb(fd, label)
def jobs():
    yield Job({jobs[0].path!r}, "a", 1 << 20)
    while not os.path.exists({str(tmp_path / "root/f")!r}):
        time.sleep(0.001)
    print("laid", flush=True)
    time.sleep(60)
extract_packages({str(tmp_path / "root")!r}, jobs(), tell)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "laid\n"
        worker = int((tmp_path / "root/pid").read_text())
        assert worker != process.pid
        assert _alive(worker)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(worker)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    packages = {
        f"p{n}": {f"d{n % 3}/f{m}-{n}": File(os.urandom(8) * m, 0o644 + n % 2) for m in range(20)} for n in range(12)
    }
    dumps = []
    for workers in (1, 2, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        unpack(folder, packages, workers=workers)
        dumps.append(dump_tree(str(folder / "root"), times=True))
    assert dumps[0] == dumps[1] == dumps[2]
