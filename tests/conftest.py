from __future__ import annotations

import os
import pathlib
import signal
import tempfile

import pytest

from rootfsbuild.rootfs.remove import remove_tree


def pytest_configure():
    # A shell has its background ignore SIGINT, nohup(1) has all ignore SIGHUP, and what tests start would inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One store for all tests and all workers of a run: what one has fetched, the others find."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    return base / "store"


@pytest.fixture
def public_folder():
    """A folder that every user can reach, unlike tmp_path: apt downloads as a user of its own where it can."""
    folder = tempfile.mkdtemp(prefix="rootfsbuild-test-")
    os.chmod(folder, 0o755)
    yield pathlib.Path(folder)
    remove_tree(folder)
