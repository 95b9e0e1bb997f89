"""Small bundles, and bundles as somebody on the way could have changed them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from making.plans import make_package, make_plan, make_snapshot

from rootfsbuild.lock import Lock, write_lock
from rootfsbuild.plan import Index
from rootfsbuild.repository.bundle_file import INDEX, Member, padding, scan, tell_end, tell_header, tell_index
from rootfsbuild.repository.bundle_writing import write_bundle


def digest(data):
    return hashlib.sha256(data).hexdigest()


@dataclass
class Parts:
    """What a bundle is made of."""

    locks: dict = field(default_factory=dict)
    signed: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    """Digest -> bytes of packages and indexes."""

    def write(self, path, report=lambda _: None):
        folder = path.parent / f"{path.name}.files"
        folder.mkdir(exist_ok=True)
        for sha256, data in self.files.items():
            (folder / sha256).write_bytes(data)
        blobs = [(sha256, len(data), str(folder / sha256)) for sha256, data in self.files.items()]
        return write_bundle(str(path), self.locks, self.signed, self.keys, blobs, report)


def make_parts(contents=None, *, name="box", architecture="amd64", pair=False, signers=("A" * 40,), suite="bookworm"):
    """Return a bundle's parts: one lock whose packages (name -> bytes) come from one suite.

    `pair`: its signed document is a Release with its Release.gpg.
    """
    contents = {"alpha": b"the package alpha", "beta": b"the package beta" * 500} if contents is None else contents
    index, document, keys = b"Packages of " + suite.encode(), b"a Release of " + suite.encode(), b"some keys"
    packages = [make_package(each, sha256=digest(data), size=len(data)) for each, data in contents.items()]
    snapshot = make_snapshot(
        suite=suite,
        sha256=digest(document),
        keyring=digest(keys),
        signers=signers,
        indexes=(Index("main/binary-amd64/Packages.xz", len(index), digest(index)),),
        mirror="",
    )
    plan = make_plan(*packages, architecture=architecture, snapshots=(snapshot,))
    text = write_lock(Lock(name, {"packages.include": tuple(contents)}, plan))
    folder = f"dists/{suite}"
    documents = {f"{folder}/Release": document, f"{folder}/Release.gpg": b"a signature"}
    return Parts(
        {f"{name}.{architecture}.lock": text},
        {
            (snapshot.sha256, path): data
            for path, data in (documents if pair else {f"{folder}/InRelease": document}).items()
        },
        {snapshot.keyring: keys},
        {digest(data): data for data in (*contents.values(), index)},
    )


def join(*parts):
    """Return the parts of one bundle for all."""
    joined = Parts()
    for one in parts:
        for name in ("locks", "signed", "keys", "files"):
            getattr(joined, name).update(getattr(one, name))
    return joined


class Torn:
    """A bundle taken apart, to be put together in another way."""

    def __init__(self, path):
        with open(path, "rb") as file:
            members = scan(file.fileno(), str(path)).values()
            self.members = {member.path: self._read(file, member) for member in members}
        self.listed = dict(self.members)
        """What bundle.json says; the same object as `members` makes a list that fits."""

    @staticmethod
    def _read(file, member):
        file.seek(member.offset)
        return file.read(member.size)

    def find(self, start):
        return next(path for path in self.members if path.startswith(start))

    def blob(self, name):
        """Return the path of a package's member."""
        lock = self.members[self.find("locks/")].decode()
        digest = lock.partition(f'name = "{name}"\n')[2].partition('hash = "sha256:')[2][:64]
        return f"blobs/sha256/{digest}"

    def fit(self):
        """Make the list fit what is there now."""
        self.listed = self.members
        return self

    def index(self):
        return tell_index(Member(name, len(data), digest(data)) for name, data in self.listed.items())

    def write(self, path, *, index=None, more=b""):
        """Write it, with another bundle.json or with raw blocks behind its members."""
        told = self.index() if index is None else index
        with open(path, "wb") as file:
            file.writelines(raw(name, data) for name, data in [(INDEX, told), *self.members.items()])
            file.write(more)
            file.write(tell_end(file.tell()))
        return str(path)


def raw(name, data, *, header=None):
    """Return a member as it lies in a bundle."""
    return (header or tell_header(name, len(data))) + data + padding(len(data))


def patched(header, at, data):
    """Return a tar header with other bytes at a place, and a checksum that fits."""
    header = header[:at] + data + header[at + len(data) :]
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]
