from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One store for all tests and all workers of a run: what one has fetched, the others find."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    return base / "store"
