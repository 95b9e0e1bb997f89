"""Small worlds of Debian packages, written the short way."""

from __future__ import annotations

import hashlib
import os
import re

from rootfsbuild.formats.deb.metadata import Placed, Universe, load_index


def write_packages(short: str) -> str:
    """Return a Packages file for paragraphs whose first line is `name version [architecture]`."""
    return "\n".join(_paragraph(block) for block in re.split(r"\n\s*\n", short.strip()) if block.strip())


def _paragraph(block):
    head, *rest = [line.strip() for line in block.strip().splitlines()]
    name, version, architecture = [*head.split(), "amd64"][:3]
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": architecture,
        "Priority": "optional",
        "Description": "a package",
        "Filename": f"pool/{name}_{version.replace(':', '%3a')}_{architecture}.deb",
        "Size": "1000",
        "SHA256": hashlib.sha256(head.encode()).hexdigest(),
    }
    fields |= dict(line.split(": ", 1) for line in rest)
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def make_index(folder, short, name="Packages"):
    """Return the index of a world, with its file and its cache in `folder`."""
    text = write_packages(short).encode()
    digest = hashlib.sha256(text).hexdigest()
    path = os.path.join(folder, f"{name}-{digest[:8]}")
    with open(path, "wb") as stream:
        stream.write(text)
    return load_index(path, digest, os.path.join(folder, "cache"))


def make_universe(folder, *worlds, architecture="amd64"):
    """Return a universe of `worlds`, each the short text or (short text, codename, pin)."""
    placed = []
    for world in worlds:
        short, codename, pin = world if isinstance(world, tuple) else (world, "bookworm", 500)
        index = make_index(folder, short)
        placed.append(Placed(index, "debian", f"{codename}-suite", codename, "main", pin))
    return Universe(placed, architecture)
