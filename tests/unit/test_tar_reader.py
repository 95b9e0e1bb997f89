from __future__ import annotations

import io
import shutil
import subprocess
import tarfile

import pytest
from making.tars import END, Directory, File, Hard, Link, Node, gnu_long, header, make_tar, member, pax

from rootfsbuild.errors import PackageError
from rootfsbuild.rootfs.entries import Kind
from rootfsbuild.rootfs.tar import normalise, read_tar


def _chunks(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


def _read(data, size=1 << 18):
    return [(entry, b"".join(content)) for entry, content in read_tar(_chunks(data, size), "x")]


def test_every_kind_of_member_is_read():
    data = make_tar(
        [
            ("./", Directory()),
            ("./usr/", Directory(0o1777, 5, 6)),
            ("./usr/f", File(b"hello", 0o4755, 1, 2, 3)),
            ("./usr/l", Link("/any/../thing")),
            ("./usr/h", Hard("./usr/f")),
            ("./dev", Node(b"3", (1, 3), 0o666)),
            ("./pipe", Node(b"6")),
        ]
    )
    found = [entry for entry, _ in _read(data)]
    assert [(e.path, e.kind, e.mode) for e in found] == [
        (b"", Kind.DIRECTORY, 0o755),
        (b"usr", Kind.DIRECTORY, 0o1777),
        (b"usr/f", Kind.FILE, 0o4755),
        (b"usr/l", Kind.SYMLINK, 0o777),
        (b"usr/h", Kind.HARDLINK, 0o644),
        (b"dev", Kind.CHARACTER, 0o666),
        (b"pipe", Kind.FIFO, 0o600),
    ]
    assert (found[2].uid, found[2].gid, found[2].mtime, found[2].size) == (1, 2, 3_000_000_000, 5)
    assert (found[3].target, found[4].target, found[5].device) == (b"/any/../thing", b"usr/f", (1, 3))


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_the_size_of_the_chunks_does_not_matter(size):
    data = make_tar([("./a", b"x" * 1000), ("./empty", b""), ("./b", b"y" * 512), ("./c", b"z" * 3)])
    assert [body for _, body in _read(data, size)] == [b"x" * 1000, b"", b"y" * 512, b"z" * 3]


def test_a_content_nobody_reads_is_skipped():
    data = make_tar([("./a", b"x" * 5000), ("./b", b"y")])
    assert [entry.path for entry, _ in read_tar(_chunks(data, 700), "x")] == [b"a", b"b"]


def test_a_content_read_in_part_is_skipped_to_its_end():
    data = make_tar([("./a", b"x" * 5000), ("./b", b"y")])
    found = []
    for entry, content in read_tar(_chunks(data, 700), "x"):
        found.append((entry.path, next(content)[:1]))
    assert found == [(b"a", b"x"), (b"b", b"y")]


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes_is_read_back(style):
    buffer = io.BytesIO()
    names = ["a", "d/" + "n" * 90, "p" * 60 + "/" + "q" * 80]
    if style != tarfile.USTAR_FORMAT:
        names += ["long/" * 60 + "end", "ünicode"]
    with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
        for name in names:
            info = tarfile.TarInfo("./" + name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name[::-1].encode()[: len(name)]))
    assert [entry.path.decode() for entry, _ in _read(buffer.getvalue())] == names


def test_pax_records_override_the_header():
    records = {
        b"path": b"./" + b"n/" * 150 + b"n",
        b"size": b"3",
        b"uid": b"3000000",
        b"mtime": b"12.5",
        b"comment": b"a=b\nc",
    }
    data = pax(records) + header("./short", raw_size=b"00000000000") + b"abc".ljust(512, b"\0") + END
    entry, body = _read(data)[0]
    assert (entry.path, body, entry.uid, entry.mtime) == (b"n/" * 150 + b"n", b"abc", 3_000_000, 12_500_000_000)


def test_capabilities_are_read_from_pax():
    capability = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)
    data = make_tar([("./ping", File(b"x", xattrs=(("security.capability", capability),)))])
    assert _read(data)[0][0].xattrs == (("security.capability", capability),)


def test_numbers_in_base_256_are_read():
    data = header("./big", raw_size=b"\x80" + (5).to_bytes(11, "big")) + b"12345".ljust(512, b"\0") + END
    assert _read(data)[0][1] == b"12345"


def test_an_old_header_with_a_slash_at_the_end_is_a_directory():
    data = header("./d/", b"\0", magic=bytes(8)) + END
    assert _read(data)[0][0].kind is Kind.DIRECTORY


def test_gnu_headers_have_no_prefix_field():
    data = header("./f", prefix=b"times", magic=b"ustar  \0") + END
    assert _read(data)[0][0].path == b"f"


@pytest.mark.parametrize(
    ("name", "path"),
    [(b"./a//b/./c/", b"a/b/c"), (b"a", b"a"), (b"./.hidden", b".hidden"), (b".", b""), (b"./..a", b"..a")],
)
def test_names_are_normalised(name, path):
    assert normalise(name, "x") == path


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../x", b"./a/../../x", b"..", b"", b"a\0b", b"./" + b"x" * 256])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(PackageError):
        normalise(name, "x")


def test_strange_but_legal_names_survive():
    names = [b"./new\nline", b"./\xff\xfe", b"./" + b"n" * 255, b"./ space ", b"./-rf"]
    data = make_tar([(name, b"") for name in names])
    assert [b"./" + entry.path for entry, _ in _read(data)] == names


def test_one_block_of_zeros_ends_an_archive():
    assert len(_read(member("./a", b"x") + bytes(512))) == 1


def test_gnu_long_links_are_read():
    target = "t" * 300
    assert _read(make_tar([("./l", Link(target))]))[0][0].target == target.encode()
    data = gnu_long("./" + "d/" * 200) + header("./cut", b"5") + END
    assert _read(data)[0][0].path == b"/".join([b"d"] * 200)


@pytest.mark.oracle
@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@pytest.mark.parametrize("style", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_what_gnu_tar_writes_is_read_back(tmp_path, style):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "f").write_bytes(b"content" * 1000)
    (tree / "a" / "g").hardlink_to(tree / "a" / "f")
    (tree / "a" / "b" / "l").symlink_to("../f")
    command = ["tar", "--sort=name", f"--format={style}", "-C", str(tree), "-cf", "-", "."]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert [entry.path for entry, _ in _read(data)] == [b"", b"a", b"a/b", b"a/b/l", b"a/f", b"a/g"]
