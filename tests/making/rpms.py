"""RPM packages made in process, honest and broken on purpose (rpm's format documentation)."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import struct
from dataclasses import dataclass, replace

import pysequoia
from making.debs import compress

from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.files import Flag
from rootfsbuild.formats.rpm.header import MAGIC, Type

I16, I32, I64 = Type.INT16, Type.INT32, Type.INT64
STRING, STRINGS, BIN = Type.STRING, Type.STRING_ARRAY, Type.BIN
TRAILER = b"TRAILER!!!"
_ENDINGS = {"gzip": "gz", "xz": "xz", "zstd": "zst", "bzip2": "bz2", "lzma": "lzma", "none": ""}
_LETTERS = {I16: "H", I32: "I", I64: "Q", Type.CHAR: "B", Type.INT8: "B"}
_ALGORITHMS = {"md5": 1, "sha1": 2, "sha256": 8, "sha384": 9, "sha512": 10}


@dataclass(frozen=True)
class File:
    """One file of a package; paths are the keys of the dictionaries that hold them, with a leading slash."""

    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    user: str = "root"
    group: str = "root"
    mtime: int = 1_600_000_000
    flags: int = 0
    target: bytes = b""
    rdev: int = 0
    colour: int = 0
    caps: str = ""
    lang: str = ""
    inode: int | None = None
    """The same number makes hard links."""
    size: int | None = None
    digest: str | None = None


def directory(mode=0o755, **more):
    return File(mode=stat.S_IFDIR | mode, **more)


def link(target, **more):
    return File(mode=stat.S_IFLNK | 0o777, target=target, **more)


def ghost(mode=stat.S_IFREG | 0o644, **more):
    return File(mode=mode, flags=Flag.GHOST, size=0, digest="", **more)


def make_rpm(
    path=None,
    files=None,
    *,
    name="example",
    version="1.0",
    release="1",
    epoch=None,
    arch="noarch",
    requires=(),
    provides=(),
    compressor="xz",
    algorithm="sha256",
    stripped=False,
    payload=None,
    compressed=None,
    main=None,
    signature=None,
    key=None,
    legacy_key=None,
    more_keys=(),
    lead=None,
):
    """Return a package's bytes, and write them to `path` if one is given.

    `payload` replaces the plain cpio archive, `compressed` the compressed one. `main` and `signature` change the
    two headers: tag -> (type, values), or None to leave it out. `key` signs the header (tag 268), `legacy_key`
    header and payload (1002), `more_keys` the header in rpm 6's way (278).
    """
    files = {where: File(one) if isinstance(one, bytes) else one for where, one in (files or {}).items()}
    plain = make_payload(files, stripped=stripped) if payload is None else payload
    packed = compress(plain, _ENDINGS[compressor]) if compressed is None else compressed
    entries = _identity(name, version, release, epoch, arch, requires, provides)
    entries |= _file_entries(files, algorithm, long=stripped)
    entries |= _payload_entries(packed, compressor)
    header = make_header(_changed(entries, main))
    signatures = {
        tags.SHA256HEADER: (STRING, [hashlib.sha256(header).hexdigest()]),
        tags.SHA1HEADER: (STRING, [hashlib.sha1(header).hexdigest()]),
        tags.SIG_SIZE: (I32, [len(header) + len(packed)]),
        tags.SIG_MD5: (BIN, hashlib.md5(header + packed).digest()),
        tags.SIG_PAYLOADSIZE: (I32, [len(plain)]),
        tags.SIG_RESERVEDSPACE: (BIN, bytes(64)),
    }
    if key is not None:
        signatures[tags.RSAHEADER] = (BIN, sign(key, header))
    if legacy_key is not None:
        signatures[tags.SIG_PGP] = (BIN, sign(legacy_key, header + packed))
    if more_keys:
        signatures[tags.OPENPGP] = (STRINGS, [base64.b64encode(sign(one, header)) for one in more_keys])
    blob = assemble(header, packed, _changed(signatures, signature), lead=lead or make_lead(f"{name}-{version}"))
    if path is not None:
        with open(path, "wb") as file:
            file.write(blob)
    return blob


def assemble(header, packed, signatures, *, lead=None):
    """Return a package around a header, a compressed payload and the entries of a signature header."""
    signature = make_header(signatures, region=tags.HEADERSIGNATURES)
    return (lead or make_lead()) + signature + bytes(-len(signature) % 8) + header + packed


def make_lead(name="example-1.0", *, major=3, minor=0, kind=0, signature=5, magic=b"\xed\xab\xee\xdb"):
    return struct.pack(">4sBBHH66sHH16x", magic, major, minor, kind, 1, name.encode()[:65], 1, signature)


def make_header(entries, region=tags.HEADERIMMUTABLE):
    """Return a header with its magic; `entries`: tag -> (type, values), `region` None for none."""
    index, store = [], b""
    for tag in sorted(entries):
        kind, values = entries[tag]
        store += bytes(-len(store) % {I16: 2, I32: 4, I64: 8}.get(kind, 1))
        data = encode(kind, values)
        index.append((tag, kind, len(store), len(values) if kind != STRING else 1))
        store += data
    if region is not None:
        index.insert(0, (region, BIN, len(store), 16))
        store += struct.pack(">IIiI", region, BIN, -len(index) * 16, 16)
    return make_raw_header(index, store)


def make_raw_header(index, store, *, count=None, size=None):
    """Return a header of (tag, type, offset, count) and a store, whatever they say."""
    count, size = len(index) if count is None else count, len(store) if size is None else size
    return MAGIC + struct.pack(">II", count, size) + b"".join(struct.pack(">IIiI", *one) for one in index) + store


def encode(kind, values):
    if kind in _LETTERS:
        return struct.pack(f">{len(values)}{_LETTERS[kind]}", *values)
    if kind == BIN:
        return bytes(values)
    return b"".join((value.encode() if isinstance(value, str) else value) + b"\0" for value in values)


def make_payload(files, *, stripped=False):
    """Return the cpio archive of a package's files: hard links last, their data on the last of each, as rpm does."""
    paths = sorted(path for path, file in files.items() if not file.flags & Flag.GHOST)
    numbers = {path: number for number, path in enumerate(sorted(files))}
    last = {files[path].inode: path for path in paths if files[path].inode is not None}
    links = [path for path in paths if files[path].inode is not None]
    out = b""
    for path in [path for path in paths if path not in links] + sorted(links, key=lambda path: files[path].inode):
        file = files[path]
        data = file.target or file.data
        data = data if path not in links or last[file.inode] == path else b""
        out += stripped_member(numbers[path], data) if stripped else member(b"." + path.encode(), data, file.mode)
    return out + trailer()


def member(name, data=b"", mode=stat.S_IFREG | 0o644, *, magic=b"070701", **fields):
    """Return one newc member; `fields` replace numbers, given as the eight bytes that stand for them."""
    size, checksum = b"%08x" % len(data), b"%08x" % (sum(data) & 0xFFFFFFFF if magic == b"070702" else 0)
    own = {
        "mode": mode if isinstance(mode, bytes) else b"%08x" % mode,
        "nlink": b"00000001",
        "size": size,
        "namesize": b"%08x" % (len(name) + 1),
    }
    order = "ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize checksum"
    values = {**dict.fromkeys(order.split(), b"0" * 8), **own, "checksum": checksum, **fields}
    head = magic + b"".join(values[one] for one in order.split()) + name + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def stripped_member(number, data=b""):
    return b"07070X%08x\0\0" % number + data + bytes(-len(data) % 4)


def trailer():
    return member(TRAILER, mode=0)


def sign(key, data):
    """Return a binary detached signature."""
    return bytes(pysequoia.Sig.from_bytes(key.detach(data)))


def flipped(blob, offset, bits=0xFF):
    """Return a package with bits of one byte changed."""
    return blob[:offset] + bytes([blob[offset] ^ bits]) + blob[offset + 1 :]


def hard_links(data, *paths, inode=7, **more):
    """Return files that are one."""
    return {path: replace(File(data, inode=inode), **more) for path in paths}


def _identity(name, version, release, epoch, arch, requires, provides):
    provides = [f"{name}", *provides]
    entries = {
        tags.HEADERI18NTABLE: (STRINGS, ["C"]),
        tags.NAME: (STRING, [name]),
        tags.VERSION: (STRING, [version]),
        tags.RELEASE: (STRING, [release]),
        tags.SUMMARY: (Type.I18NSTRING, ["made by a test"]),
        tags.OS: (STRING, ["linux"]),
        tags.ARCH: (STRING, [arch]),
        tags.SOURCERPM: (STRING, [f"{name}-{version}-{release}.src.rpm"]),
        tags.PROVIDENAME: (STRINGS, provides),
        tags.PROVIDEFLAGS: (I32, [0] * len(provides)),
        tags.PROVIDEVERSION: (STRINGS, [""] * len(provides)),
        tags.REQUIRENAME: (STRINGS, list(requires)),
        tags.REQUIREFLAGS: (I32, [0] * len(requires)),
        tags.REQUIREVERSION: (STRINGS, [""] * len(requires)),
    }
    if epoch is not None:
        entries[tags.EPOCH] = (I32, [epoch])
    return {tag: entry for tag, entry in entries.items() if entry[1]}


def _file_entries(files, algorithm, *, long):
    if not files:
        return {}
    ordered = sorted(files.items())
    folders = sorted({os.path.dirname(path).rstrip("/") + "/" for path, _ in ordered})
    column = {tag: [getattr(file, name) for _, file in ordered] for tag, name in _COLUMNS.items()}
    inodes = [index + 1000 if file.inode is None else file.inode for index, (_, file) in enumerate(ordered)]
    return {
        tags.LONGFILESIZES if long else tags.FILESIZES: (I64 if long else I32, [_size(file) for _, file in ordered]),
        tags.FILEMODES: (I16, column[tags.FILEMODES]),
        tags.FILERDEVS: (I16, column[tags.FILERDEVS]),
        tags.FILEMTIMES: (I32, column[tags.FILEMTIMES]),
        tags.FILEDIGESTS: (STRINGS, [_digest(file, algorithm) for _, file in ordered]),
        tags.FILELINKTOS: (STRINGS, column[tags.FILELINKTOS]),
        tags.FILEFLAGS: (I32, column[tags.FILEFLAGS]),
        tags.FILEUSERNAME: (STRINGS, column[tags.FILEUSERNAME]),
        tags.FILEGROUPNAME: (STRINGS, column[tags.FILEGROUPNAME]),
        tags.FILEDEVICES: (I32, [1] * len(ordered)),
        tags.FILEINODES: (I32, inodes),
        tags.FILELANGS: (STRINGS, column[tags.FILELANGS]),
        tags.FILECOLORS: (I32, column[tags.FILECOLORS]),
        tags.FILECAPS: (STRINGS, column[tags.FILECAPS]),
        tags.FILEDIGESTALGO: (I32, [_ALGORITHMS[algorithm]]),
        tags.DIRINDEXES: (I32, [folders.index(os.path.dirname(path).rstrip("/") + "/") for path, _ in ordered]),
        tags.BASENAMES: (STRINGS, [os.path.basename(path) for path, _ in ordered]),
        tags.DIRNAMES: (STRINGS, folders),
    }


_COLUMNS = {
    tags.FILEMODES: "mode",
    tags.FILERDEVS: "rdev",
    tags.FILEMTIMES: "mtime",
    tags.FILELINKTOS: "target",
    tags.FILEFLAGS: "flags",
    tags.FILEUSERNAME: "user",
    tags.FILEGROUPNAME: "group",
    tags.FILELANGS: "lang",
    tags.FILECOLORS: "colour",
    tags.FILECAPS: "caps",
}


def _payload_entries(packed, compressor):
    entries = {
        tags.PAYLOADFORMAT: (STRING, ["cpio"]),
        tags.PAYLOADDIGEST: (STRINGS, [hashlib.sha256(packed).hexdigest()]),
        tags.PAYLOADDIGESTALGO: (I32, [8]),
    }
    if compressor != "none":
        entries[tags.PAYLOADCOMPRESSOR] = (STRING, [compressor])
    return entries


def _size(file):
    return len(file.target or file.data) if file.size is None else file.size


def _digest(file, algorithm):
    if file.digest is not None or not stat.S_ISREG(file.mode):
        return file.digest or ""
    return hashlib.new(algorithm, file.data).hexdigest()


def _changed(entries, changes):
    return {tag: entry for tag, entry in {**entries, **(changes or {})}.items() if entry is not None}
