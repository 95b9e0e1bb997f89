"""Every file in tests/cases/resolve: a world, a request, and the installation or the explanation it ends in."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from making.universe import make_universe

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.plan import Request

CASES = sorted((Path(__file__).parent.parent / "cases" / "resolve").glob("*.toml"))


def read_request(table):
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Request(**({"architecture": "amd64", "variant": "custom"} | lists))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, tmp_path):
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    worlds = [(index["packages"], index.get("codename", "bookworm"), index.get("pin", 500)) for index in case["index"]]
    universe = make_universe(tmp_path, *worlds)
    request = read_request(case["request"])
    if "error" in case:
        with pytest.raises(UnsatisfiableError) as caught:
            resolve(request, universe)
        assert str(caught.value).splitlines() == case["error"].strip().splitlines()
        assert caught.value.hint == case.get("hint", "")
        return
    packages = resolve(request, universe).packages
    assert [f"{package.name} {package.version}" for package in packages] == case["install"]
    if "automatic" in case:
        assert sorted(package.name for package in packages if package.automatic) == case["automatic"]


def test_there_are_cases():
    assert len(CASES) >= 15
