"""What a bundle carries, made on the spot: packages, and signed documents of several moments that list them."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

from making.debs import make_deb, sha256
from making.keys import make_key
from making.plans import EPOCH, make_package, make_snapshot
from making.signed import release_text

from rootfsbuild.formats.format import Contents, Proof
from rootfsbuild.plan import Index

FOLDED = "Description: {name} of a test\n It does nothing,\n .\n and that well.\nTag: role::program,\n made::up\n"


class Cart:
    """Packages and documents on the way to where no mirror is."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = make_key()
        self.stanzas = {}
        self.blobs = {}

    def make(self, name="alpha", version="1.0-1", architecture="all", *, archive="debian", files=None, **control):
        """Make a package, and return it as a plan has it; `control` are more fields (`_` for `-`)."""
        fields = {"Package": name, "Version": version, "Architecture": architecture}
        fields |= {key.replace("_", "-"): value for key, value in control.items()}
        path = self.folder / f"{archive}_{name}_{version}_{architecture}.deb"
        # Files of a build's time zone and mask are what the result must not depend on.
        blob = make_deb(path, fields, files or {f"usr/share/{name}": version.encode()}, compression="gz")
        package = make_package(name, version, architecture, archive=archive, size=len(blob), sha256=sha256(blob))
        listed = {**fields, "Filename": package.filename, "Size": len(blob), "SHA256": package.sha256}
        listed["MD5sum"] = hashlib.md5(blob).hexdigest()
        text = "".join(f"{key}: {value}\n" for key, value in listed.items()) + FOLDED.format(name=name)
        self.stanzas[package] = text
        self.blobs[package] = str(path)
        return package

    def prove(self, *packages, suite="bookworm", date=EPOCH, architecture="amd64", component="main", **fields):
        """Sign a document of a moment that lists packages, and return what it proves."""
        forms = fields.pop("forms", ("InRelease",))
        key = fields.pop("key", self.key)
        others = fields.pop("others", {})
        archive = fields.pop("archive", "debian")
        place = f"{component}/binary-{architecture}"
        text = "\n".join(self.stanzas[package] for package in packages).encode()
        files = {f"{place}/Packages": text, f"{place}/Packages.xz": lzma.compress(text), **others}
        release = release_text(files, date=date, suite="stable", codename=suite, components=component, **fields)
        documents = {"InRelease": key.sign(release), "Release": release, "Release.gpg": key.detach(release)}
        name = f"{place}/Packages.xz"
        digest = sha256(files[name])
        file = self.folder / digest
        file.write_bytes(files[name])
        snapshot = make_snapshot(
            archive=archive,
            suite=suite,
            codename=suite,
            components=(component,),
            architecture=architecture,
            date=date,
            valid_until=fields.get("valid_until"),
            sha256=sha256(documents[forms[0]]),
            signers=(key.fingerprint,),
            indexes=(Index(name, len(files[name]), digest),),
        )
        return Proof(snapshot, {f"dists/{suite}/{form}": documents[form] for form in forms}, {name: str(file)})

    def contents(self, *proofs, packages=None):
        """Return what is carried; without `packages` all that were made."""
        chosen = self.blobs if packages is None else packages
        return Contents(proofs, [(package, self.blobs[package]) for package in chosen])

    def keys(self, *archives):
        return {archive: bytes(self.key.certificate) for archive in archives or ("debian",)}

    def signer(self, key=None, name="secret.asc"):
        """Return the file of a secret key that signs."""
        path = self.folder / name
        path.write_text(str((key or make_key("Us <us@example.org>")).secret))
        return str(path)
