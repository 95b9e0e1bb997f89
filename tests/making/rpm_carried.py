"""What a bundle carries of RPM repositories, made on the spot: packages, and documents of several moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from making.debs import sha256
from making.keys import make_key
from making.plans import EPOCH, make_package, make_snapshot
from making.rpmmd import Rpm, filelists, primary, repomd
from making.rpms import I32, STRING, STRINGS, make_rpm

from rootfsbuild.formats.format import Contents, Proof
from rootfsbuild.formats.rpm import tags
from rootfsbuild.formats.rpm.repomd import parse_repomd
from rootfsbuild.plan import Index

SENSES = {"": 0, "<": 2, ">": 4, "=": 8, "<=": 10, ">=": 12}
TAGS = {
    "provides": (tags.PROVIDENAME, tags.PROVIDEFLAGS, tags.PROVIDEVERSION),
    "requires": (tags.REQUIRENAME, tags.REQUIREFLAGS, tags.REQUIREVERSION),
    "conflicts": (tags.CONFLICTNAME, tags.CONFLICTFLAGS, tags.CONFLICTVERSION),
    "obsoletes": (tags.OBSOLETENAME, tags.OBSOLETEFLAGS, tags.OBSOLETEVERSION),
    "recommends": (tags.RECOMMENDNAME, tags.RECOMMENDFLAGS, tags.RECOMMENDVERSION),
    "supplements": (tags.SUPPLEMENTNAME, tags.SUPPLEMENTFLAGS, tags.SUPPLEMENTVERSION),
}


class RpmCart:
    """Packages and documents on the way to where no mirror is."""

    def __init__(self, folder, key=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = key or make_key("Distribution <security@example.org>")
        self.listed = {}
        self.blobs = {}

    def make(self, name="alpha", version="1.0", arch="noarch", *, archive="baseos", files=None, main=None, **relations):
        """Make a signed package, and return it as a plan has it; relations are written `name >= 1`."""
        epoch, _, version = version.rpartition(":")
        relations["provides"] = (f"{name} = {epoch + ':' if epoch else ''}{version}-1", *relations.get("provides", ()))
        entries = {tag: entry for kind, texts in relations.items() for tag, entry in relation_entries(kind, texts)}
        blob = make_rpm(
            None,
            {f"/usr/share/{name}": version.encode()} if files is None else files,
            name=name,
            version=version,
            epoch=int(epoch) if epoch else None,
            arch=arch,
            main={**entries, **(main or {})},
            key=self.key,
        )
        path = self.folder / f"{archive}-{sha256(blob)}"
        path.write_bytes(blob)
        told = Rpm(name, version, "1", epoch or "0", arch, files=tuple(files or ()), data=blob, **relations)
        told = replace(told, provides=relations["provides"][1:])
        package = make_package(
            name,
            f"{epoch + ':' if epoch else ''}{version}-1",
            arch,
            archive=archive,
            suite="9",
            component="",
            filename=told.href,
            size=len(blob),
            sha256=sha256(blob),
            control=(
                ("Provides", ", ".join(relations["provides"])),
                ("Requires", ", ".join(relations.get("requires", ()))),
            ),
        )
        self.listed[package] = told
        self.blobs[package] = str(path)
        return package

    def prove(self, *packages, suite="9", date=EPOCH, architecture="x86_64", archive="baseos", **fields):
        """Make a document of a moment that lists packages, and return what it proves.

        `kinds` are more data: kind -> bytes; `here` are the kinds that are at hand, None for all.
        """
        key, signed, here = fields.pop("key", self.key), fields.pop("signed", True), fields.pop("here", None)
        listed = [self.listed[package] for package in packages]
        kinds = {"primary": primary(listed), "filelists": filelists(listed), **fields.pop("kinds", {})}
        text, made = repomd(kinds, date=date, **fields)
        documents = {"repodata/repomd.xml": text}
        if signed:
            documents["repodata/repomd.xml.asc"] = key.detach(text)
        indexes = {}
        for data in parse_repomd(text, "made").data.values():
            if data.href in made and (here is None or data.type in here):
                file = self.folder / data.href.rpartition("/")[2]
                file.write_bytes(made[data.href])
                indexes[data.href] = str(file)
        snapshot = make_snapshot(
            archive=archive,
            suite=suite,
            codename=suite,
            components=(),
            architecture=architecture,
            date=date,
            sha256=sha256(text),
            signers=(key.fingerprint,) if signed else (),
            indexes=tuple(Index(path, len(made[path]), sha256(made[path])) for path in indexes),
        )
        return Proof(snapshot, documents, indexes)

    def contents(self, *proofs, packages=None):
        """Return what is carried; without `packages` all that were made."""
        chosen = self.blobs if packages is None else packages
        return Contents(proofs, [(package, self.blobs[package]) for package in chosen])

    def keys(self, *archives):
        return {archive: bytes(self.key.certificate) for archive in archives or ("baseos",)}

    def signer(self, key=None, name="secret.asc"):
        """Return the file of a secret key that signs."""
        path = self.folder / name
        path.write_text(str((key or make_key("Us <us@example.org>")).secret))
        return str(path)


def relation_entries(kind, texts):
    names, flags, versions = [], [], []
    for text in texts:
        name, operator, version = [text, "", ""] if text.startswith("(") else [*text.split(), "", ""][:3]
        names.append(name)
        flags.append(SENSES[operator])
        versions.append(version)
    return zip(TAGS[kind], ((STRINGS, names), (I32, flags), (STRINGS, versions)), strict=True)


def words(**more):
    """Return what a header says for people, and its changelog."""
    return {
        1005: (STRING, [more.get("description", "It does nothing,\nand that <well> & \x07safely.")]),
        1007: (STRING, ["builder.example"]),
        1015: (STRING, ["Packager"]),
        1020: (STRING, ["https://example.org/?a=1&b=2"]),
        tags.LICENSE: (STRING, ["MIT"]),
        tags.VENDOR: (STRING, ["Example"]),
        tags.GROUP: (STRING, ["System"]),
        tags.BUILDTIME: (I32, [EPOCH - 9]),
        tags.SIZE: (I32, [12]),
        1080: (I32, [EPOCH - 20 - number for number in range(12)]),
        1081: (STRINGS, [f"Me <me@example.org> - {number}" for number in range(12)]),
        1082: (STRINGS, [f"- change {number} & more" for number in range(12)]),
    }
