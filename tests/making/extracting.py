"""Unpack packages made by a test into a root of its own."""

from __future__ import annotations

import os

import pytest
from making.debs import make_deb, make_raw_deb

from rootfsbuild.formats.deb.archive import open_deb
from rootfsbuild.rootfs.extract import Job, extract_packages

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking is confined by chroot(2), which needs root")
LIMIT = 64 << 20


def jobs_for(folder, packages, limit=LIMIT):
    """Write packages, name → files (as making.debs takes them) or the bytes of a .deb, and return their jobs."""
    jobs = []
    for name, files in packages.items():
        path = folder / f"{name}.deb"
        if isinstance(files, bytes):
            path.write_bytes(files)
        else:
            make_deb(path, {"Package": name}, files, compression="")
        jobs.append(Job(str(path), name, limit))
    return jobs


def unpack(folder, packages, *, limit=LIMIT, merged=False, **options):
    """Unpack packages into `folder/root` and return what extract_packages returns."""
    root = folder / "root"
    if not root.exists():
        root.mkdir()
        root.chmod(0o755)
        for name in ("bin", "lib") if merged else ():
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
    return extract_packages(str(root), jobs_for(folder, packages, limit), open_deb, **options)


def raw(members_or_tar, compression=""):
    """The bytes of a .deb around a data.tar made of making.tars members, or given as it is."""
    from making.tars import make_tar

    data = members_or_tar if isinstance(members_or_tar, bytes) else make_tar(members_or_tar)
    return make_raw_deb(data, compression=compression)
