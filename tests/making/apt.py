"""The host's apt, asked what it would install on an empty system whose indexes are ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

_CONFIG = """
Dir "{root}";
Dir::Etc "{root}/etc";
Dir::Etc::sourcelist "{root}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
APT::Architecture "amd64";
APT::Architectures {{"amd64";}};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
pkgCacheGen::ForceEssential ",";
"""


def find_apt():
    """Return the version of apt if its choices are those that we follow: 2.x, before the new solver."""
    if not shutil.which("apt-get"):
        return None
    text = subprocess.run(["apt-get", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"apt (2\.\d+)", text)
    return match and match[1]


class Apt:
    """An apt of its own directories, which never touches the host's."""

    def __init__(self, root):
        self.root = str(root)
        for path in ("etc", "state", "lists/partial", "cache/archives/partial"):
            os.makedirs(f"{self.root}/{path}", exist_ok=True)
        with open(f"{self.root}/apt.conf", "w", encoding="utf-8") as stream:
            stream.write(_CONFIG.format(root=self.root))
        self.set_status("")

    def set_indexes(self, *indexes):
        """Take indexes, each (text, codename, pin), in the order of the sources."""
        for name in os.listdir(f"{self.root}/lists"):
            if name != "partial":
                os.unlink(f"{self.root}/lists/{name}")
        sources = []
        for text, codename, pin in indexes:
            stem = f"{self.root}/lists/archive.invalid_{codename}_dists_{codename}"
            quirks = {500: "", 100: "NotAutomatic: yes\nButAutomaticUpgrades: yes\n", 1: "NotAutomatic: yes\n"}[pin]
            with open(f"{stem}_Release", "w", encoding="utf-8") as stream:
                stream.write(f"Suite: {codename}-suite\nCodename: {codename}\nComponents: main\n{quirks}")
            with open(f"{stem}_main_binary-amd64_Packages", "w", encoding="utf-8") as stream:
                stream.write(text)
            sources.append(f"deb [trusted=yes] http://archive.invalid/{codename} {codename} main\n")
        with open(f"{self.root}/etc/sources.list", "w", encoding="utf-8") as stream:
            stream.writelines(sources)
        self._forget()

    def set_status(self, text):
        """Take dpkg's record of what is installed."""
        with open(f"{self.root}/state/status", "w", encoding="utf-8") as stream:
            stream.write(text)
        self._forget()

    def install(self, names, *, recommends=False):
        """Return name -> version of what `apt-get install` would add, or None when it fails."""
        # --print-uris decides as an installation does; --simulate would walk all packages once for each new one.
        command = ["apt-get", "install", "-qq", "--yes", "--print-uris"]
        command += ["-o", f"APT::Install-Recommends={str(recommends).lower()}", *names]
        environment = {"PATH": os.environ["PATH"], "APT_CONFIG": f"{self.root}/apt.conf", "LC_ALL": "C"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        files = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("'")]
        return {name: version.replace("%3a", ":") for name, version, _ in (file.split("_", 2) for file in files)}

    def install_all(self, requests):
        """Return what `install` does for each (names, recommends), two at a time."""
        with ThreadPoolExecutor(2) as pool:
            yield from pool.map(lambda request: self.install(request[0], recommends=request[1]), requests)

    def _forget(self):
        for name in ("pkgcache.bin", "srcpkgcache.bin"):
            if os.path.exists(f"{self.root}/cache/{name}"):
                os.unlink(f"{self.root}/cache/{name}")
