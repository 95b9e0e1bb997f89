from __future__ import annotations

import pytest
from making.universe import make_universe

from rootfsbuild.errors import UnsatisfiableError
from rootfsbuild.formats.deb.explain import nearest, why
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.plan import Request

WORLD = """
    app 1
    Depends: lib (>= 1), mta | other

    lib 1
    Depends: data

    data 1

    postfix 3
    Provides: mta
    Priority: standard

    exim 4
    Provides: mta
"""


@pytest.fixture
def packages(tmp_path):
    return resolve(Request("amd64", "custom", ("app",)), make_universe(tmp_path, WORLD)).packages


def test_the_chain_goes_from_the_request_down(packages):
    assert why(packages, "data") == [
        "app 1: requested as app",
        "app Depends: lib (>= 1) -> lib 1",
        "lib Depends: data -> data 1",
    ]


def test_rivals_are_named(packages):
    assert why(packages, "postfix") == [
        "app 1: requested as app",
        "app Depends: mta | other -> postfix 3",
        "  not exim: lower priority (optional < standard)",
        "  not other: not available",
    ]


def test_a_request_explains_itself(packages):
    assert why(packages, "app") == ["app 1: requested as app"]


def test_a_rival_is_told_why_it_lost(packages):
    with pytest.raises(UnsatisfiableError) as caught:
        why(packages, "exim")
    assert list(caught.value.chains) == [
        "exim is not in the plan",
        "app Depends: mta | other took postfix instead: exim is lower priority (optional < standard)",
    ]


def test_a_misspelt_name_gets_the_nearest(packages):
    with pytest.raises(UnsatisfiableError, match="pstfix is not in the plan") as caught:
        why(packages, "pstfix")
    assert caught.value.hint == "did you mean postfix?"


def test_nothing_is_near():
    assert nearest("zzz", ["nginx", "libc6"]) == ""
