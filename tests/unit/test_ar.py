from __future__ import annotations

import os

import pytest
from making.debs import make_ar, make_deb
from making.tars import File, Hard, Link

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.deb.ar import read_members
from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.rootfs.entries import Kind


def _members(tmp_path, blob):
    path = tmp_path / "x.a"
    path.write_bytes(blob)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_members(fd, "x")
    finally:
        os.close(fd)


def test_members_have_their_names_places_and_sizes(tmp_path):
    blob = make_ar([("debian-binary", b"2.0\n"), ("odd", b"abc"), ("after/", b"z")])
    found = _members(tmp_path, blob)
    assert [(m.name, m.size, blob[m.offset : m.offset + m.size]) for m in found] == [
        ("debian-binary", 4, b"2.0\n"),
        ("odd", 3, b"abc"),
        ("after", 1, b"z"),
    ]


def test_an_archive_without_members_is_empty(tmp_path):
    assert _members(tmp_path, b"!<arch>\n") == ()


def test_the_last_byte_of_padding_may_be_missing(tmp_path):
    assert _members(tmp_path, make_ar([("odd", b"abc")])[:-1])[0].size == 3


@pytest.mark.parametrize("compression", ["", "gz", "xz", "zst", "bz2", "lzma"])
def test_every_compression_of_dpkg_is_read(tmp_path, compression):
    path = tmp_path / "x.deb"
    body = os.urandom(300_000) + bytes(700_000)
    make_deb(path, files={"usr/bin/x": File(body, 0o755)}, compression=compression)
    deb = open_deb(str(path), "x")
    found = {entry.path: (entry.kind, b"".join(content)) for entry, content in deb.entries(1 << 24)}
    os.close(deb.fd)
    assert found[b"usr/bin/x"] == (Kind.FILE, body)
    assert list(found) == [b"", b"usr", b"usr/bin", b"usr/bin/x"]


def test_the_control_archive_is_read_with_modes(tmp_path):
    path = tmp_path / "x.deb"
    make_deb(
        path,
        {"Package": "hello"},
        scripts={"postinst": "#!/bin/sh\n"},
        conffiles=["/etc/x", "remove-on-upgrade /etc/y"],
    )
    deb = open_deb(str(path), "x")
    os.close(deb.fd)
    assert deb.control.fields.startswith(b"Package: hello\n")
    assert deb.control.files["postinst"] == (b"#!/bin/sh\n", 0o755)
    assert set(deb.control.files) == {"postinst", "conffiles"}
    assert deb.digested == {b"etc/x"}


def test_members_with_an_underscore_and_those_behind_data_are_skipped(tmp_path):
    path = tmp_path / "x.deb"
    make_deb(path, files={"a": b"1", "b": Link("a"), "c": Hard("a")}, compression="")
    fd = os.open(path, os.O_RDONLY)
    parts = [(m.name, os.pread(fd, m.size, m.offset)) for m in read_members(fd, "x")]
    os.close(fd)
    parts.insert(1, ("_gpgbuilder", b"signature"))
    path.write_bytes(make_ar([*parts, ("later", b"?")]))
    deb = open_deb(str(path), "x")
    kinds = [entry.kind for entry, _ in deb.entries(1 << 20)]
    os.close(deb.fd)
    assert kinds == [Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.HARDLINK]


def test_a_newer_minor_version_is_read_and_a_major_one_is_not(tmp_path):
    path = tmp_path / "x.deb"
    blob = make_deb(path)
    path.write_bytes(blob.replace(b"2.0\n", b"2.9\n", 1))
    os.close(open_deb(str(path), "x").fd)
    path.write_bytes(blob.replace(b"2.0\n", b"3.0\n", 1))
    with pytest.raises(PackageError, match=r"version b'3\.0"):
        open_deb(str(path), "x")
