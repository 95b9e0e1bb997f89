"""A root of one static program, busybox, small enough to be made for every test, and who still uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import pytest

from rootfsbuild.errors import HostError
from rootfsbuild.rootfs.sandbox import Sandbox, check_host

PATH = "/bin"
APPLETS = """
    sh cat ls echo sleep true false kill mount umount mknod dd chmod chown rm ln mkdir rmdir touch id env head
    hostname date ps setsid nohup nc wget ifconfig pivot_root chroot chattr readlink stat test sync fsync mv
    swapon insmod reboot sysctl tty seq yes grep wc su sort unshare losetup find tr
"""


def needs_sandbox():
    """Skip the test with the reason if this host cannot run a sandbox around a busybox root."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs a static busybox (apt install busybox-static)")
    with open(busybox, "rb") as file:
        if b"ld-linux" in file.read(4096):
            pytest.skip(f"{busybox} is not static (apt install busybox-static)")
    try:
        check_host()
    except HostError as error:
        pytest.skip(f"needs a sandbox: {error}")
    return busybox


def make_tiny_root(path):
    """Make a root with busybox, its applets and the five mount points."""
    busybox = needs_sandbox()
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "run", "tmp"):
        os.makedirs(os.path.join(path, name))
    shutil.copy(busybox, os.path.join(path, "bin/busybox"))
    for name in APPLETS.split():
        os.symlink("busybox", os.path.join(path, "bin", name))
    return str(path)


def tiny_sandbox(root, **settings):
    settings.setdefault("environment", {"PATH": PATH})
    settings.setdefault("timeout", 20)
    return Sandbox(str(root), **settings)


def run(runner, argv, **settings):
    """Run a command with a session, or in a sandbox that is opened for it alone; return how it ended."""
    with runner.open() if isinstance(runner, Sandbox) else contextlib.nullcontext(runner) as session:
        return session.run(argv, **settings)


def sh(runner, script, **settings):
    """Run a shell script with a session or a sandbox; return how it ended and all that it printed."""
    output = bytearray()
    done = run(runner, ["/bin/sh", "-c", script], log=output.extend, **settings)
    return done, output.decode(errors="replace")


def traces(root):
    """Return the pids of all processes in whose mount namespace any part of `root` is mounted."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
                if any(str(root) in line.split(" - ")[0] for line in file):
                    found.append(int(pid))
        except OSError:
            continue
    return found


def wait_gone(root, seconds=3.0):
    """Return the pids that still use `root` once there are none, or the time is up."""
    deadline = time.monotonic() + seconds
    while (left := traces(root)) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left
