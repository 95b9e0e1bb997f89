from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making.extracting import needs_root

from rootfsbuild.errors import StorageError, UsageError
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.outputs.output import OUTPUTS, choose_output
from rootfsbuild.rootfs.entries import Entry, Kind
from rootfsbuild.rootfs.tar import read_tar
from rootfsbuild.rootfs.tar_writer import write_tar
from rootfsbuild.rootfs.tree import read_tree

SECOND = 1_000_000_000


def _file(path, body=b"", mtime=SECOND, **fields):
    return Entry(path, Kind.FILE, 0o644, 0, 0, mtime, len(body), **fields), body


def _written(pairs):
    out = io.BytesIO()
    write_tar([(entry, iter([body] if body else [])) for entry, body in pairs], out)
    return out.getvalue()


def _read_back(data):
    return [(entry, b"".join(content)) for entry, content in read_tar(iter([data]), "x")]


def test_what_is_written_is_what_tarfile_reads():
    capability = b"\x01\0\0\x02\0\x20\xff\0" + bytes(12)
    pairs = [
        (Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, SECOND), b""),
        (Entry(b"bin", Kind.SYMLINK, 0o777, 0, 0, SECOND, target=b"usr/bin"), b""),
        (Entry(b"dev", Kind.CHARACTER, 0o666, 0, 0, SECOND, device=(1, 3)), b""),
        _file(b"f", b"hello", xattrs=(("security.capability", capability),)),
        (Entry(b"g", Kind.HARDLINK, 0o644, 0, 0, SECOND, target=b"f"), b""),
    ]
    with tarfile.open(fileobj=io.BytesIO(_written(pairs))) as tar:
        found = {info.name: info for info in tar.getmembers()}
        assert list(found) == [".", "./bin", "./dev", "./f", "./g"]
        assert tar.extractfile("./f").read() == b"hello"
    assert found["./bin"].linkname == "usr/bin"
    assert (found["./dev"].devmajor, found["./dev"].devminor) == (1, 3)
    assert (found["./g"].islnk(), found["./g"].linkname) == (True, "./f")
    attribute = found["./f"].pax_headers["SCHILY.xattr.security.capability"]
    assert attribute.encode("utf-8", "surrogateescape") == capability
    assert all((info.uname, info.gname) == ("", "") for info in found.values())


def test_nothing_but_whole_records_and_the_same_bytes_twice():
    pairs = [_file(b"f", b"x" * 700), _file(b"n" * 200, xattrs=(("user.b", b"1"), ("user.c", b"2")))]
    assert len(_written(pairs)) % 10240 == 0
    assert _written(pairs) == _written(pairs)
    assert len(_written([])) == 10240


@pytest.mark.parametrize("length", [1, 97, 98, 99, 100, 101, 150, 155, 156, 250, 300, 4000])
@pytest.mark.parametrize("step", [1, 9, 50, 120])
def test_names_of_every_length_come_back(length, step):
    path = b"/".join([b"n" * step] * (length // (step + 1) + 1))[:length].rstrip(b"/")
    for kind in (Kind.FILE, Kind.DIRECTORY):
        entry = Entry(path, kind, 0o755, 0, 0, SECOND)
        assert _read_back(_written([(entry, b"")])) == [(entry, b"")]
    link = Entry(b"l", Kind.SYMLINK, 0o777, 0, 0, SECOND, target=path)
    assert _read_back(_written([(link, b"")])) == [(link, b"")]


def test_plain_headers_are_used_where_they_suffice():
    data = _written([_file(b"d" * 80 + b"/" + b"f" * 80)])
    assert b"PaxHeaders" not in data


@pytest.mark.parametrize(
    "fields",
    [{"uid": 0o7777777}, {"uid": 0o10000000}, {"gid": 3_000_000_000}, {"mtime": 1_234_567_890}, {"mtime": 1 << 62}],
)
def test_numbers_beyond_the_header_come_back(fields):
    entry = Entry(**{"path": b"f", "kind": Kind.FILE, "mode": 0o644, "uid": 0, "gid": 0, "mtime": 0, **fields})
    assert _read_back(_written([(entry, b"")])) == [(entry, b"")]


_PATH = st.binary(min_size=1, max_size=120).filter(
    lambda name: not set(name) & set(b"\0/") and name not in {b".", b".."}
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            Entry,
            path=st.lists(_PATH, min_size=1, max_size=4).map(b"/".join),
            kind=st.just(Kind.FILE),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, (1 << 32) - 2),
            gid=st.integers(0, (1 << 32) - 2),
            mtime=st.integers(0, 1 << 62),
            xattrs=st.dictionaries(st.sampled_from(["user.a", "security.capability"]), st.binary(max_size=40)).map(
                lambda found: tuple(sorted(found.items()))
            ),
        ),
        max_size=4,
    )
)
def test_any_entries_come_back_as_they_were(entries):
    assert [entry for entry, _ in _read_back(_written([(entry, b"") for entry in entries]))] == entries


def test_a_content_of_a_wrong_length_is_an_error():
    entry, _ = _file(b"f", b"12345")
    for body in (b"1234", b"123456"):
        with pytest.raises(ValueError, match="changed while it was read"):
            _written([(entry, body)])


def _sample(folder):
    (folder / "d").mkdir()
    (folder / "d/f").write_bytes(b"x" * 100_000)
    (folder / "d" / ("n" * 200)).write_bytes(b"long")
    os.link(folder / "d/f", folder / "d/g")
    (folder / "l").symlink_to("d/f")
    (folder / "empty").write_bytes(b"")
    for path in ("d/f", "d", "."):
        os.utime(folder / path, (5, 5))


def test_the_tar_output_is_the_tree_with_times_clamped(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    _sample(root)
    choose_output("x.tar").write(str(root), str(tmp_path / "x.tar"), 1000)
    found = _read_back((tmp_path / "x.tar").read_bytes())
    expected = [(entry, b"".join(content)) for entry, content in read_tree(str(root))]
    assert [body for _, body in found] == [body for _, body in expected]
    assert [entry.path for entry, _ in found] == [entry.path for entry, _ in expected]
    assert {entry.path: entry.mtime // SECOND for entry, _ in found} == {
        b"": 5,
        b"d": 5,
        b"d/f": 5,
        b"d/g": 5,
        b"d/" + b"n" * 200: 1000,
        b"empty": 1000,
        b"l": 1000,
    }


def test_the_tar_output_does_not_overwrite_and_says_when_it_cannot_write(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "x.tar").write_text("mine")
    with pytest.raises(StorageError, match="File exists"):
        choose_output("x.tar").write(str(tmp_path / "root"), str(tmp_path / "x.tar"), 0)
    with pytest.raises(StorageError, match="No such file"):
        choose_output("x.tar").write(str(tmp_path / "root"), str(tmp_path / "no/x.tar"), 0)


@needs_root
def test_a_full_disk_is_a_storage_error(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/big").write_bytes(bytes(3 << 20))
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path / "small"], check=True)
    try:
        with pytest.raises(StorageError, match="No space left"):
            choose_output("x.tar").write(str(tmp_path / "root"), str(tmp_path / "small/x.tar"), 0)
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


@pytest.mark.oracle
@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
@needs_root
def test_gnu_tar_unpacks_what_was_written_to_the_same_tree(tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    copy.mkdir()
    _sample(root)
    os.setxattr(root / "d/f", "security.capability", b"\x01\0\0\x02\0\x20\0\0" + bytes(12))
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    choose_output("x.tar").write(str(root), str(tmp_path / "x.tar"), 1 << 40)
    command = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tmp_path / "x.tar", "-C", copy]
    subprocess.run(command, check=True)
    # Times of directories are whole seconds here, and GNU tar keeps the fractions of the rest.
    assert dump_tree(str(copy), times=True) == dump_tree(str(root), times=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x", "directory"),
        ("x/", "directory"),
        ("x.tar", "tar"),
        ("a.tar/b", "directory"),
        ("X.TAR", "tar"),
        ("debian-12.5", "directory"),
        ("x.tar.gz/", "directory"),
    ],
)
def test_the_name_decides_the_form(path, name):
    assert choose_output(path).name == name


@pytest.mark.parametrize(
    "path", ["x.tar.gz", "x.tgz", "out/x.tar.zst", "x.squashfs", "x.ext4", "x.oci", "x.wsl", "x.zip"]
)
def test_a_form_that_is_not_offered_says_what_is(path):
    with pytest.raises(UsageError, match=r"cannot be written yet; there are: tar \(\.tar\), directory"):
        choose_output(path)


def test_names_of_outputs_are_unique():
    assert len({output.name for output in OUTPUTS}) == len(OUTPUTS)
