from __future__ import annotations

import os
import stat

import pytest
from making.rpms import BIN, I16, I32, I64, STRINGS, File, directory, ghost, link, make_rpm

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.files import Flag
from rootfsbuild.rootfs.entries import Kind


@pytest.fixture
def files_of(tmp_path):
    def read(files, **more):
        make_rpm(tmp_path / "x.rpm", files, payload=b"", compressor="none", **more)
        rpm = open_rpm(str(tmp_path / "x.rpm"), "example")
        os.close(rpm.fd)
        return rpm.files

    return read


@pytest.fixture
def refusal(files_of):
    def refused(files=None, main=None):
        with pytest.raises(PackageError) as caught:
            files_of({"/a": b"x", "/b/c": b"y"} if files is None else files, main=main)
        return str(caught.value)

    return refused


def test_what_a_header_says_of_a_file(files_of):
    one = File(
        b"hello",
        stat.S_IFREG | 0o4755,
        "games",
        "users",
        123,
        Flag.CONFIG | Flag.NOREPLACE,
        colour=2,
        caps="cap_chown=ep",
        lang="de|at",
        inode=9,
    )
    (file,) = files_of({"/usr/bin/x": one})
    assert (file.index, file.path, file.kind, file.mode & 0o7777) == (0, b"usr/bin/x", Kind.FILE, 0o4755)
    assert (file.user, file.group, file.mtime, file.size) == (b"games", b"users", 123, 5)
    assert file.digest == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert (file.algorithm, Flag(file.flags)) == ("sha256", Flag.CONFIG | Flag.NOREPLACE)
    assert (file.colour, file.caps, file.langs, file.inode) == (2, b"cap_chown=ep", b"de|at", 9)


def test_kinds_and_ghosts(files_of):
    files = files_of(
        {
            "/": directory(),
            "/d": directory(0o1777),
            "/l": link(b"d"),
            "/n": File(mode=stat.S_IFCHR | 0o666, rdev=0x0103),
            "/p": File(mode=stat.S_IFIFO | 0o600),
            "/s": ghost(mode=stat.S_IFSOCK | 0o600),
        }
    )
    assert [file.path for file in files] == [b"", b"d", b"l", b"n", b"p", b"s"]
    assert [file.kind for file in files[:5]] == [
        Kind.DIRECTORY,
        Kind.DIRECTORY,
        Kind.SYMLINK,
        Kind.CHARACTER,
        Kind.FIFO,
    ]
    assert [file.ghost for file in files] == [False] * 5 + [True]
    assert (files[2].target, files[3].rdev) == (b"d", 0x0103)


def test_package_without_files(files_of):
    assert files_of({}) == ()


def test_sizes_beyond_four_gigabytes(files_of):
    files = files_of(
        {"/a": File(size=5 << 32, digest="0" * 64)}, main={tags.FILESIZES: None, tags.LONGFILESIZES: (I64, [5 << 32])}
    )
    assert files[0].size == 5 << 32


def test_old_lists_of_whole_names(files_of):
    old = {
        tags.BASENAMES: None,
        tags.DIRNAMES: None,
        tags.DIRINDEXES: None,
        tags.OLDFILENAMES: (STRINGS, ["/a", "/b/c"]),
    }
    assert [file.path for file in files_of({"/a": b"x", "/b/c": b"y"}, main=old)] == [b"a", b"b/c"]


def test_names_that_are_no_utf8(files_of):
    paths = [file.path for file in files_of({"/a": b""}, main={tags.BASENAMES: (STRINGS, [b"\xff\n"])})]
    assert paths == [b"\xff\n"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512"])
def test_algorithms(files_of, algorithm):
    (file,) = files_of({"/a": b"x"}, algorithm=algorithm)
    assert file.algorithm == algorithm


def test_absent_algorithm_means_md5(files_of):
    (file,) = files_of({"/a": b"x"}, algorithm="md5", main={tags.FILEDIGESTALGO: None})
    assert file.algorithm == "md5"


def test_unknown_algorithm_and_digests_that_are_none(refusal):
    assert "unknown algorithm 3" in refusal(main={tags.FILEDIGESTALGO: (I32, [3])})
    assert "is none of sha256" in refusal({"/a": File(b"x", digest="abc")})
    assert "is none of sha256" in refusal({"/a": File(b"x", digest="g" * 64)})
    assert "no digest" in refusal({"/a": File(b"x", digest="")})


@pytest.mark.parametrize(
    "tag",
    [tags.FILEMODES, tags.FILEMTIMES, tags.FILESIZES, tags.FILEFLAGS, tags.FILEINODES, tags.FILERDEVS, tags.FILECOLORS],
)
def test_arrays_of_numbers_of_another_length_or_size(refusal, tag):
    kind = I16 if tag in {tags.FILEMODES, tags.FILERDEVS} else I32
    for count in (1, 3):
        assert f"tag {tag} tells of {count} files" in refusal(main={tag: (kind, [0] * count)})
    assert f"tag {tag} holds numbers of another size" in refusal(main={tag: (I64, [0] * 2)})


@pytest.mark.parametrize("tag", [tags.FILEUSERNAME, tags.FILEGROUPNAME, tags.FILEDIGESTS, tags.FILELINKTOS])
def test_arrays_of_strings_of_another_length_or_type(refusal, tag):
    for count in (1, 3):
        assert f"tag {tag} tells of {count} files" in refusal(main={tag: (STRINGS, ["a"] * count)})
    assert f"tag {tag} does not hold strings" in refusal(main={tag: (BIN, b"a\0b\0")})


@pytest.mark.parametrize("tag", [tags.FILEMODES, tags.FILEUSERNAME, tags.FILESIZES])
def test_arrays_that_must_be_there(refusal, tag):
    assert f"tag {tag} tells of 0 files" in refusal(main={tag: None})


def test_unknown_types_and_empty_links(refusal):
    assert "unknown type" in refusal({"/a": File(mode=0o644)})
    assert "unknown type" in refusal({"/a": File(mode=stat.S_IFSOCK | 0o644)})
    assert "leads nowhere" in refusal({"/a": link(b"")})


@pytest.mark.parametrize("indexes", [[0], [0, 1, 0], [0, 2], [0, 0xFFFFFFFF]])
def test_directory_indexes_that_do_not_fit(refusal, indexes):
    assert "do not fit" in refusal(main={tags.DIRINDEXES: (I32, indexes)})


@pytest.mark.parametrize("folder", ["", "b/", "/b", "//", "/../", "/a/../b/", "/./", "/a//b/", "../", "/a/..", "b"])
def test_directories_that_could_lead_outside(refusal, folder):
    assert "outside of the root" in refusal(main={tags.DIRNAMES: (STRINGS, ["/", folder])})


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc"])
def test_names_that_could_lead_outside(refusal, name):
    assert "outside of the root" in refusal(main={tags.BASENAMES: (STRINGS, ["a", name])})


@pytest.mark.parametrize("path", ["a", "./a", "/../a", "/a/", "/a//b", "/a/./b", ""])
def test_old_names_that_could_lead_outside(refusal, path):
    old = {tags.BASENAMES: None, tags.DIRNAMES: None, tags.DIRINDEXES: None, tags.OLDFILENAMES: (STRINGS, ["/x", path])}
    assert "outside of the root" in refusal(main=old)


def test_names_longer_than_linux_allows(refusal):
    assert "longer" in refusal(main={tags.BASENAMES: (STRINGS, ["a", "n" * 256])})
    assert "longer" in refusal(main={tags.DIRNAMES: (STRINGS, ["/", "/" + "n" * 256 + "/"])})
    assert "longer" in refusal(main={tags.DIRNAMES: (STRINGS, ["/", "/abcdefg" * 600 + "/"])})


def test_paths_that_are_there_twice(refusal):
    twice = {tags.BASENAMES: (STRINGS, ["c", "c"]), tags.DIRINDEXES: (I32, [1, 1])}
    assert "b/c: the header lists it twice" in refusal(main=twice)
