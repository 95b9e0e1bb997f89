from __future__ import annotations

import gzip
import io
import json
import os
import tarfile

import pytest
from making.extracting import needs_root

from rootfsbuild.errors import PackageError
from rootfsbuild.inspection.compare import What, compare_trees
from rootfsbuild.inspection.dump import WHOLE, dump_archive, dump_tree
from rootfsbuild.inspection.paths import (
    compare_files,
    count_paths,
    paths_document,
    render_files,
    render_paths,
    summarise_files,
)
from rootfsbuild.outputs.tar import write_tar_file

EPOCH = 1_700_000_000
CAPABILITY = b"\x01\0\0\x02\0\x20\xff\0" + bytes(12)


def make_tree(root):
    """A tree with all that an archive has difficulties with."""
    root.mkdir()
    for name in ("etc", "usr/bin", "empty", "n" * 120):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"x" * 70_000)
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/again")
    os.link(root / "usr/bin/tool", root / "a")
    (root / "etc/empty").touch()
    (root / "bin").symlink_to("usr/bin")
    (root / "long link").symlink_to("x/" * 90)
    (root / "like a time").symlink_to("a @7")
    os.link(root / "bin", root / "also bin", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o600)
    for name in ("new\nline", "sp ace", "byte\udcff", "é", "back\\slash", "n" * 120 + "/" + "m" * 200, "-x", "\x1b[2J"):
        (root / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    os.utime(root / "etc/empty", ns=(7, 7_000_000_001))
    os.utime(root / "pipe", (0, 0))
    os.utime(root / "like a time", (9, 9), follow_symlinks=False)
    return root


def add_what_root_may(root):
    for name, kind in (("null", 0o020666), ("disk", 0o060660)):
        os.mknod(root / name, kind, os.makedev(259, 300))
        os.chmod(root / name, kind & 0o7777)
    os.chown(root / "etc/empty", 3_000_000, 4)
    os.setxattr(root / "usr/bin/tool", "security.capability", CAPABILITY)
    os.setxattr(root / "sp ace", "user.a b%", b"\0= \n")
    os.setxattr(root / "etc", "user.empty", b"")


def settle(root):
    """Give every path a time that an archive of EPOCH keeps."""
    for parent, directories, files in os.walk(root, topdown=False):
        for name in (*directories, *files, "."):
            path = os.path.join(parent, name)
            if os.lstat(path).st_mtime > EPOCH:
                os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


@pytest.fixture
def trees(tmp_path):
    """Two equal trees, and a function that compares them."""
    one, two = make_tree(tmp_path / "one"), make_tree(tmp_path / "two")
    settle(one)
    settle(two)

    def compare(**options):
        options = {"times": True, "digits": WHOLE, **options}
        return compare_trees(dump_tree(str(one), **options), dump_tree(str(two), **options))

    return one, two, compare


def test_equal_trees_have_no_differences(trees):
    _, _, compare = trees
    assert compare() == ()
    assert count_paths(()) == "no differences"
    assert render_paths(()) == "no differences"


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_an_archive_has_the_dump_of_the_directory_it_was_made_from(tmp_path, ending):
    root = make_tree(tmp_path / "root")
    settle(root)
    path = str(tmp_path / "root.tar")
    write_tar_file(str(root), path, EPOCH)
    if ending == ".tar.gz":
        with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
            packed.write(plain.read())
        path += ".gz"
    expected = dump_tree(str(root), times=True, digits=WHOLE)
    found = dump_archive(path, times=True, digits=WHOLE)
    assert list(found.items()) == list(expected.items())
    assert found["/byte\udcff"].startswith("file ")
    assert found["/usr/bin/again"] == "hardlink /a"
    assert dump_archive(path) == dump_tree(str(root))


@needs_root
def test_devices_owners_and_attributes_survive_in_an_archive(tmp_path):
    root = make_tree(tmp_path / "root")
    add_what_root_may(root)
    settle(root)
    path = str(tmp_path / "root.tar")
    write_tar_file(str(root), path, EPOCH)
    found = dump_archive(path, times=True)
    assert compare_trees(dump_tree(str(root), times=True), found) == ()
    assert found == dump_tree(str(root), times=True)
    assert f"security.capability={CAPABILITY.hex()}" in found["/a"]
    assert "user.a%20b%25=003d200a" in found["/sp ace"]
    assert found["/disk"].startswith("block 0660 0:0 259:300 @")
    assert " 3000000:4 " in found["/etc/empty"]


def test_what_is_no_plain_archive_is_refused(tmp_path):
    twice = io.BytesIO()
    with tarfile.open(fileobj=twice, mode="w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("./a"))
    for name, data, problem in (
        ("x.tar", b"text" * 200, "tar header"),
        ("y.tar", twice.getvalue(), "listed twice"),
        ("z.tar", twice.getvalue()[:700], "truncated"),
        ("z.tar.gz", b"\x1f\x8b", "compressed stream"),
        ("z.other", b"", "unknown compression"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PackageError, match=problem):
            dump_archive(str(tmp_path / name))


def replace_file(path, kind):
    path.unlink()
    kind(path)


CHANGES = {
    "content": (lambda two: (two / "etc/empty").write_text("x"), {"/etc/empty": [What.CONTENT]}),
    "mode": (lambda two: (two / "a").chmod(0o755), {"/a": [What.MODE]}),
    "extra": (lambda two: (two / "etc/new").touch(), {"/etc/new": [What.EXTRA]}),
    "missing": (lambda two: (two / "sp ace").unlink(), {"/sp ace": [What.MISSING]}),
    "type": (lambda two: replace_file(two / "pipe", lambda path: path.touch()), {"/pipe": [What.TYPE]}),
    "target": (
        lambda two: replace_file(two / "long link", lambda path: path.symlink_to("y")),
        {"/long link": [What.TARGET]},
    ),
    "first of a hard link": (
        lambda two: (two / "a").unlink(),
        {"/a": [What.MISSING], "/usr/bin/again": [What.TYPE], "/usr/bin/tool": [What.TARGET]},
    ),
    "several": (
        lambda two: ((two / "é").write_text("x"), (two / "é").chmod(0o600)),
        {"/é": [What.MODE, What.CONTENT]},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_named(trees, name):
    _, two, compare = trees
    change, expected = CHANGES[name]
    change(two)
    assert {difference.path: list(difference.what) for difference in compare(times=False)} == expected


def test_times_are_compared_if_both_have_them(trees):
    one, two, compare = trees
    os.utime(two / "like a time", (8, 8), follow_symlinks=False)
    os.utime(two / "etc/empty", (7, 7))
    found = compare()
    assert [(difference.path, difference.what) for difference in found] == [
        ("/etc/empty", (What.TIME,)),
        ("/like a time", (What.TIME,)),
    ]
    assert (found[1].aspects[0].expected, found[1].aspects[0].actual) == ("9", "8")
    assert compare(times=False) == ()
    assert compare_trees(dump_tree(str(one), times=True), dump_tree(str(two))) == ()


def test_the_text_of_a_link_is_no_time(trees):
    one, two, _ = trees
    replace_file(two / "like a time", lambda path: path.symlink_to("a @8"))
    (found,) = compare_trees(dump_tree(str(one)), dump_tree(str(two)))
    assert [(aspect.what, aspect.expected, aspect.actual) for aspect in found.aspects] == [
        (What.TARGET, "a @7", "a @8"),
    ]


@needs_root
def test_owners_devices_and_attributes_are_compared(trees):
    one, two, compare = trees
    for tree in (one, two):
        add_what_root_may(tree)
        settle(tree)
    assert compare() == ()
    os.chown(two / "etc/empty", 5, 4)
    (two / "null").unlink()
    os.mknod(two / "null", 0o020644, os.makedev(1, 3))
    (two / "null").chmod(0o666)
    os.setxattr(two / "a", "security.capability", CAPABILITY[:-1] + b"\x01")
    os.removexattr(two / "etc", "user.empty")
    os.setxattr(two / "sp ace", "user.a b%", b"x")
    found = {difference.path: difference.what for difference in compare(times=False)}
    assert found == {
        "/a": (What.CAPABILITY,),
        "/etc": (What.ATTRIBUTE,),
        "/etc/empty": (What.OWNER,),
        "/null": (What.DEVICE,),
        "/sp ace": (What.ATTRIBUTE,),
    }


def test_a_file_with_the_same_first_digits_is_another_one():
    lines = [f"file 0644 0:0 {digest}" for digest in ("0" * 64, "0" * 63 + "1")]
    root = {"/": "directory 0755 0:0"}
    (found,) = compare_trees({**root, "/f": lines[0]}, {**root, "/f": lines[1]})
    assert found.what == (What.CONTENT,)


def test_what_is_no_dump_is_refused():
    with pytest.raises(ValueError, match="not a line"):
        compare_trees({"/": "directory 0755 0:0"}, {"/": "something else"})


def test_differences_in_words(trees):
    _, two, compare = trees
    (two / "etc/empty").chmod(0o600)
    (two / "etc/empty").write_text("x")
    (two / "sp ace").unlink()
    (two / "\x1b[2J").write_text("x")
    replace_file(two / "long link", lambda path: path.symlink_to("a\nb"))
    replace_file(two / "pipe", lambda path: path.touch())
    assert render_paths(compare(times=False)) == (
        f"""\
/\\x1b[2J    content
/etc/empty  mode 0600 instead of 0644, content
/long link  target a\\nb instead of {"x/" * 90}
/pipe       type file instead of fifo
/sp ace     missing
5 paths differ: 1 missing, 1 type, 1 mode, 2 content, 1 target"""
    )


def test_only_the_first_fifty_are_shown():
    root = {"/": "directory 0755 0:0"}
    many = root | {f"/{number:03}": "file 0644 0:0 00000000" for number in range(120)}
    lines = render_paths(compare_trees(root, many)).splitlines()
    assert lines[:2] == ["/000  extra", "/001  extra"]
    assert lines[49:] == ["/049  extra", "and 70 more", "120 paths differ: 120 extra"]


def test_json_names_both_sides(trees):
    _, two, compare = trees
    (two / "etc/empty").chmod(0o600)
    (two / "byte\udcff").unlink()
    document = json.loads(json.dumps(paths_document(compare(times=False)), ensure_ascii=False).encode())
    byte, empty = document
    assert byte["path"] == "/byte\\xff"
    assert [item["what"] for item in byte["differs"]] == ["missing"]
    assert byte["differs"][0]["actual"] is None
    assert empty == {
        "path": "/etc/empty",
        "differs": [{"what": "mode", "expected": "0644", "actual": "0600"}],
    }


def test_what_became_of_the_files_of_a_root(trees):
    one, two, _ = trees
    (two / "etc/new").touch()
    (two / "etc/other").touch()
    (two / "sp ace").unlink()
    (two / "é").write_text("x")
    differences = compare_files(str(one), str(two))
    assert summarise_files(differences) == "files: 2 added, 1 removed, 1 changed"
    assert render_files(differences) == "+ /etc/new\n+ /etc/other\n- /sp ace\n~ /é  content"
    assert summarise_files(()) == "files: 0 added, 0 removed, 0 changed"
