from __future__ import annotations

import hashlib
import os
import stat
import tracemalloc
from functools import partial

import pytest
from making.extracting import needs_root
from making.rpms import (
    I32,
    STRING,
    STRINGS,
    File,
    directory,
    ghost,
    hard_links,
    link,
    make_payload,
    make_rpm,
    member,
    stripped_member,
    trailer,
)

from rootfsbuild.errors import PackageError
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.archive import open_rpm
from rootfsbuild.formats.rpm.files import Flag
from rootfsbuild.inspection.dump import dump_tree
from rootfsbuild.rootfs.entries import Entry, Kind
from rootfsbuild.rootfs.extract import Job, extract_packages
from rootfsbuild.rootfs.lay import Rules

LIMIT = 1 << 20
FILES = {
    "/etc": directory(),
    "/etc/passwd": File(b"root", flags=Flag.CONFIG),
    "/etc/secret": File(b"s", stat.S_IFREG | 0o600, "games", "users"),
    "/etc/made-later": ghost(),
    "/usr/bin": directory(),
    "/usr/bin/ping": File(b"ping", stat.S_IFREG | 0o4755, caps="cap_net_raw=ep"),
    "/usr/bin/sh": link(b"bash"),
    "/usr/bin/empty": File(b""),
    "/dev/null": File(mode=stat.S_IFCHR | 0o666, rdev=0x0103),
    "/dev/pipe": File(mode=stat.S_IFIFO | 0o600),
    **hard_links(b"the same", "/usr/bin/b", "/usr/bin/a", "/usr/bin/c"),
}
COMPRESSORS = ("gzip", "xz", "zstd", "bzip2", "lzma", "none")


@pytest.fixture
def read(tmp_path):
    def entries(files=None, *, limit=LIMIT, skip=None, owners=None, **more):
        make_rpm(tmp_path / "x.rpm", FILES if files is None else files, **more)
        options = {"skip": skip, "owners": owners}
        rpm = open_rpm(str(tmp_path / "x.rpm"), "example", **{name: one for name, one in options.items() if one})
        try:
            return [(entry, b"".join(content)) for entry, content in rpm.entries(limit)]
        finally:
            os.close(rpm.fd)

    return entries


@pytest.fixture
def refusal(read):
    def refused(files=None, **more):
        with pytest.raises(PackageError) as caught:
            read(files, **more)
        return str(caught.value)

    return refused


def test_entries_are_what_the_header_says(read):
    found = {entry.path: (entry, content) for entry, content in read()}
    mtime = 1_600_000_000 * 10**9
    assert found[b"etc/passwd"] == (Entry(b"etc/passwd", Kind.FILE, 0o644, 0, 0, mtime, 4), b"root")
    assert found[b"usr/bin"] == (Entry(b"usr/bin", Kind.DIRECTORY, 0o755, 0, 0, mtime), b"")
    assert found[b"usr/bin/sh"] == (Entry(b"usr/bin/sh", Kind.SYMLINK, 0o777, 0, 0, mtime, target=b"bash"), b"")
    assert found[b"dev/null"] == (Entry(b"dev/null", Kind.CHARACTER, 0o666, 0, 0, mtime, device=(1, 3)), b"")
    assert found[b"dev/pipe"] == (Entry(b"dev/pipe", Kind.FIFO, 0o600, 0, 0, mtime), b"")
    ping = found[b"usr/bin/ping"][0]
    assert (ping.mode, ping.xattrs[0][0], len(ping.xattrs[0][1])) == (0o4755, "security.capability", 20)
    assert b"etc/made-later" not in found


def test_directories_come_before_what_is_in_them(read):
    seen = set()
    listed = {path.encode()[1:] for path, file in FILES.items() if stat.S_ISDIR(file.mode)}
    for entry, _ in read():
        assert os.path.dirname(entry.path) in seen or os.path.dirname(entry.path) not in listed
        seen.add(entry.path)


@pytest.mark.parametrize("stripped", [False, True])
def test_hard_links_follow_the_first_which_has_the_data(read, stripped):
    links = [(entry.path, entry.kind, entry.target, content) for entry, content in read(stripped=stripped)][-3:]
    assert links == [
        (b"usr/bin/a", Kind.FILE, b"", b"the same"),
        (b"usr/bin/b", Kind.HARDLINK, b"usr/bin/a", b""),
        (b"usr/bin/c", Kind.HARDLINK, b"usr/bin/a", b""),
    ]


def test_empty_hard_links(read):
    found = [(entry.kind, entry.target) for entry, _ in read(hard_links(b"", "/a", "/b", "/c"))]
    assert found == [(Kind.FILE, b""), (Kind.HARDLINK, b"a"), (Kind.HARDLINK, b"a")]


@pytest.mark.parametrize("last", [b"./a", b"./b", b"./c"])
def test_data_of_hard_links_may_lie_on_any_of_them(read, last):
    names = [name for name in (b"./a", b"./b", b"./c") if name != last]
    for order in ([*names, last], [last, *names], [names[0], last, names[1]]):
        payload = b"".join(member(name, b"data" if name == last else b"") for name in order) + trailer()
        found = read(hard_links(b"data", "/a", "/b", "/c"), payload=payload)
        assert [(entry.path, content) for entry, content in found] == [(b"a", b"data"), (b"b", b""), (b"c", b"")]


def test_hard_links_without_a_member_of_their_own(read):
    payload = member(b"./b", b"data") + trailer()
    found = read(hard_links(b"data", "/a", "/b"), payload=payload)
    assert [(entry.path, entry.kind) for entry, _ in found] == [(b"a", Kind.FILE), (b"b", Kind.HARDLINK)]


def test_hard_links_have_the_attributes_of_the_last(read):
    files = hard_links(b"data", "/a", "/b")
    files["/b"] = File(b"data", stat.S_IFREG | 0o700, inode=7, caps="cap_chown=p")
    found = read(files)
    assert [entry.mode for entry, _ in found] == [0o700, 0o700]
    assert found[0][0].xattrs


def test_files_of_one_inode_that_differ_are_no_links(read):
    files = {"/a": File(b"one", inode=7), "/b": File(b"two!", inode=7)}
    payload = make_payload({"/a": File(b"one"), "/b": File(b"two!")})
    assert [(entry.kind, content) for entry, content in read(files, payload=payload)] == [
        (Kind.FILE, b"one"),
        (Kind.FILE, b"two!"),
    ]


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compressor_gives_the_same(read, compressor, stripped):
    assert read(compressor=compressor, stripped=stripped) == read()


def test_absent_compressor_means_gzip_or_none(read):
    for compressor in ("gzip", "none"):
        assert read(compressor=compressor, main={tags.PAYLOADCOMPRESSOR: None}) == read()


def test_owners_are_asked_for_once(read):
    asked = []

    def owners(user, group):
        asked.append((user, group))
        return (12, 100) if user == b"games" else (0, 0)

    found = {entry.path: (entry.uid, entry.gid) for entry, _ in read(owners=owners)}
    assert found[b"etc/secret"] == (12, 100)
    assert found[b"etc/passwd"] == (0, 0)
    assert sorted(asked) == [(b"games", b"users"), (b"root", b"root")]


def test_skipped_files_are_left_out(read):
    names = {b"usr/bin", b"usr/bin/a", b"usr/bin/sh", b"usr/bin/ping"}
    found = {entry.path: (entry, content) for entry, content in read(skip=lambda file: file.path in names)}
    assert not names & set(found)
    assert found[b"usr/bin/b"][1] == b"the same"
    assert found[b"usr/bin/c"][0].target == b"usr/bin/b"


def test_skipped_hard_links_are_read_all_the_same(refusal):
    payload = member(b"./a", b"datA") + trailer()
    said = refusal({"/a": b"data"}, payload=payload, skip=lambda _: True)
    assert "digest" in said


def test_content_left_unread_is_checked(tmp_path):
    make_rpm(tmp_path / "x.rpm", {"/a": b"data"}, payload=member(b"./a", b"datA") + trailer())
    with pytest.raises(PackageError, match="digest"):
        list(open_rpm(str(tmp_path / "x.rpm"), "example").entries(LIMIT))


def test_error_comes_behind_the_last_chunk_at_the_latest(tmp_path):
    make_rpm(tmp_path / "x.rpm", {"/a": b"data"}, payload=member(b"./a", b"datA") + trailer())
    (_, content) = next(iter(open_rpm(str(tmp_path / "x.rpm"), "example").entries(LIMIT)))
    with pytest.raises(PackageError, match="a: does not have the sha256 digest"):
        list(content)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_digests_of_every_algorithm(read, refusal, algorithm):
    assert read({"/a": b"data"}, algorithm=algorithm)[0][1] == b"data"
    payload = member(b"./a", b"datA") + trailer()
    assert f"{algorithm} digest" in refusal({"/a": b"data"}, algorithm=algorithm, payload=payload)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (trailer(), "a: has no data in the payload"),
        (member(b"./a", b"data") + member(b"./x") + trailer(), "./x: is in the payload, but not in the header"),
        (member(b"./a", b"data") * 2 + trailer(), "a: is in the payload twice"),
        (member(b"./a", b"dat") + trailer(), "a: has 3 bytes in the payload, and 4 in the header"),
        (member(b"./a", b"data!") + trailer(), "a: has 5 bytes in the payload, and 4 in the header"),
        (member(b"./a") + trailer(), "a: has no bytes in the payload, and 4 in the header"),
        (member(b"../a", b"data") + trailer(), "../a: is in the payload, but not"),
        (member(b".//a", b"data") + trailer(), ".//a: is in the payload, but not"),
        (member(b".a", b"data") + trailer(), ".a: is in the payload, but not"),
    ],
)
def test_payload_that_is_not_the_headers(refusal, payload, said):
    assert said in refusal({"/a": b"data"}, payload=payload)


def test_names_with_a_slash_or_nothing_before_them(read):
    for name in (b"./a", b"/a", b"a"):
        assert read({"/a": b"data"}, payload=member(name, b"data") + trailer())[0][1] == b"data"


@pytest.mark.parametrize("path", ["/etc/passwd", "/usr/bin", "/usr/bin/sh", "/dev/null", "/usr/bin/empty"])
def test_no_file_may_be_missing(refusal, path):
    payload = make_payload({where: one for where, one in FILES.items() if where != path})
    assert f"{path[1:]}: " in refusal(payload=payload)


def test_ghosts_have_no_member(refusal):
    assert "must not be" in refusal({"/a": ghost()}, payload=member(b"./a") + trailer())


def test_hard_links_with_the_data_twice_or_never(refusal):
    files = hard_links(b"data", "/a", "/b")
    twice = member(b"./a", b"data") + member(b"./b", b"data") + trailer()
    assert "b: has its data in the payload twice" in refusal(files, payload=twice)
    never = member(b"./a") + member(b"./b") + trailer()
    assert "a: has no data in the payload" in refusal(files, payload=never)


def test_types_are_the_headers(refusal):
    assert "is a symlink" in refusal({"/l": link(b"to")}, payload=member(b"./l", b"elsewhere") + trailer())
    assert "is a symlink" in refusal({"/l": link(b"to")}, payload=member(b"./l", b"ot") + trailer())
    assert "is a directory" in refusal({"/d": directory()}, payload=member(b"./d", b"x") + trailer())
    assert "is a fifo" in refusal({"/p": FILES["/dev/pipe"]}, payload=member(b"./p", b"x") + trailer())


def test_modes_in_the_payload_mean_nothing(read):
    payload = member(b"./a", b"data", stat.S_IFLNK | 0o4777) + trailer()
    ((entry, content),) = read({"/a": b"data"}, payload=payload)
    assert (entry.kind, entry.mode, content) == (Kind.FILE, 0o644, b"data")


def test_stripped_numbers_must_be_listed(refusal):
    assert "file number 1," in refusal({"/a": b"data"}, stripped=True, payload=stripped_member(1, b"data") + trailer())


def test_impossible_capabilities_name_the_file(refusal):
    assert "a: has impossible capabilities" in refusal({"/a": File(b"x", caps="cap_root=ep")})


def test_limit_is_of_plain_bytes(read, refusal):
    files = {"/a": b"\0" * 50_000}
    assert "more than the 40000 bytes" in refusal(files, limit=40_000)
    assert read(files, limit=60_000)


def test_size_of_the_plain_payload(refusal):
    assert "expands to" in refusal(signature={tags.SIG_PAYLOADSIZE: (I32, [17])})


def test_unknown_compressors_and_payloads(refusal):
    assert "compressed with 'lzo'" in refusal(main={tags.PAYLOADCOMPRESSOR: (STRING, ["lzo"])})
    assert "'drpm' archive" in refusal(main={tags.PAYLOADFORMAT: (STRING, ["drpm"])})


def test_source_packages_are_refused(refusal):
    assert "source package" in refusal(main={tags.SOURCERPM: None})
    assert "source package" in refusal(main={tags.SOURCEPACKAGE: (I32, [1])})


def test_control_is_the_headers_bytes(tmp_path):
    blob = make_rpm(tmp_path / "x.rpm", FILES, main={tags.POSTINPROG: (STRINGS, ["/bin/sh"])})
    rpm = open_rpm(str(tmp_path / "x.rpm"), "example")
    assert rpm.control.fields in blob
    assert hashlib.sha256(rpm.control.fields).hexdigest() == rpm.head.signature.text(tags.SHA256HEADER)
    assert rpm.digested == frozenset()
    os.close(rpm.fd)


def test_hard_links_are_not_gathered_in_memory(tmp_path):
    data = bytes(range(256)) * (1 << 17)
    make_rpm(tmp_path / "x.rpm", hard_links(data, "/a", "/b", "/c"), compressor="gzip")
    rpm = open_rpm(str(tmp_path / "x.rpm"), "example")
    tracemalloc.start()
    for _, content in rpm.entries(1 << 26):
        for _ in content:
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    os.close(rpm.fd)
    assert peak < 4 << 20


@needs_root
def test_confined_workers_lay_it_down(tmp_path):
    (tmp_path / "root").mkdir()
    make_rpm(tmp_path / "x.rpm", FILES, compressor="zstd")
    owners = {b"games": 12, b"users": 100}
    opened = partial(open_rpm, owners=lambda user, group: (owners.get(user, 0), owners.get(group, 0)))
    job = Job(str(tmp_path / "x.rpm"), "example", LIMIT)
    laid = extract_packages(str(tmp_path / "root"), [job], opened, rules=Rules(devices=True))
    tree = dump_tree(str(tmp_path / "root"))
    assert tree["/etc/secret"].startswith("file 0600 12:100 ")
    assert tree["/usr/bin/sh"] == "symlink 0777 0:0 -> bash"
    assert tree["/usr/bin/b"] == "hardlink /usr/bin/a"
    assert "/etc/made-later" not in tree
    assert os.getxattr(tmp_path / "root/usr/bin/ping", "security.capability")[4:8] == b"\0\x20\0\0"
    assert stat.S_ISCHR((tmp_path / "root/dev/null").lstat().st_mode)
    assert laid["example"].control.fields[:4] == b"\x8e\xad\xe8\x01"
