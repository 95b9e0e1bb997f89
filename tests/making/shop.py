"""A signed repository of packages made on the spot, and recipes that build from it through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from making.builds import Ran
from making.debs import make_deb, sha256
from making.keys import make_key
from making.recipes import write_toml
from making.signed import write_repository
from making.tars import Directory, File, Link
from making.tinyroot import needs_sandbox

INDEX = "main/binary-amd64/Packages"

# What dpkg --configure -a comes to where no script runs, in a root that has nothing but busybox.
DPKG = b"#!/bin/sh\nsed -i 's/^Status: install ok unpacked/Status: install ok installed/' /var/lib/dpkg/status\n"


class Shop:
    """A mirror on disk with one suite, `bookworm`; everything about it can be made wrong."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.mirror = self.folder / "mirror"
        self.mirror.mkdir(parents=True)
        self.key = make_key()
        self.key.write(self.folder / "key.gpg")
        self.stanzas = []

    def add(self, name, files=None, *, scripts=None, entry=None, **control):
        """Add a package; `control` are fields (`_` for `-`), `entry` changes what the index says of it."""
        # Priority required puts it among the base, which needs no working system around it.
        fields = {"Package": name, "Version": "1.0-1", "Architecture": "all", "Priority": "required"}
        fields |= {key.replace("_", "-"): value for key, value in control.items()}
        filename = f"pool/{name}_{fields['Version']}.deb"
        path = self.mirror / filename
        path.parent.mkdir(exist_ok=True)
        blob = make_deb(path, fields, files, scripts, compression="gz")
        listed = {**fields, "Filename": filename, "Size": len(blob), "SHA256": sha256(blob), **(entry or {})}
        self.stanzas.append("".join(f"{key}: {value}\n" for key, value in listed.items()))
        return self

    def add_base(self):
        """Add `base`: enough of a system for a build to come to its end."""
        busybox = Path(needs_sandbox()).read_bytes()
        links = {f"bin/{name}": Link("busybox") for name in ("sh", "sed", "cat", "true")}
        places = dict.fromkeys(("proc", "sys", "root"), Directory())
        files = {"bin/busybox": File(busybox, 0o755), "usr/sbin/dpkg": File(DPKG, 0o755)}
        return self.add("base", {**files, **links, **places}, Essential="yes")

    def publish(self, **fields):
        """Sign what there is; `fields` are making.signed's."""
        index = "\n".join(self.stanzas).encode()
        write_repository(self.mirror, fields.pop("key", self.key), {INDEX: index}, **fields)
        return self

    def deb(self, name="alpha", version="1.0-1"):
        return self.mirror / f"pool/{name}_{version}.deb"

    def recipe(self, *include, name="box", keys=("key.gpg",), mirror=None, packages=None, extra="", **top):
        """Write a recipe that knows this repository alone, and return its path."""
        top = {"distro": "debian", "release": "bookworm", "arch": "amd64", **top}
        packages = {"variant": "custom", "include": list(include), **(packages or {})}
        archive = {"name": "mine", "suites": ["bookworm"], "keys": list(keys), "mirrors": [str(mirror or self.mirror)]}
        off = "".join(f'\n[[archive]]\nname = "{one}"\nenabled = false\n' for one in ("debian", "debian-security"))
        text = write_toml(top) + "\n[packages]\n" + write_toml(packages) + "\n[[archive]]\n" + write_toml(archive)
        path = self.folder / f"{name}.toml"
        path.write_text(text + off + extra)
        return path


def run_unprivileged(*words, cwd, **variables):
    """Run the program as a user who may do nothing; as root, that is given up first."""
    command = [sys.executable, "-m", "rootfsbuild", *map(str, words)]
    if os.geteuid() == 0:
        # The interpreter may lie in a home that only root can enter; reading is all that this capability allows.
        able = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        bound = ["--bounding-set=-all,+dac_read_search"]
        who = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        command = ["setpriv", *who, *able, *bound, "--", *command]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd), **{name: str(value) for name, value in variables.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
