"""Real data that does not belong to this repository, and lies beside it where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared/data"


def cs9_baseos():
    """Return the folder of CentOS Stream 9's BaseOS metadata; skip the test where it is not."""
    return real_data("cs9-baseos")


def real_data(name):
    """Return the path of real data; skip the test where it is not."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path
