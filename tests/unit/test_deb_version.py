from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootfsbuild.formats.deb.version import compare, is_valid, satisfies, sort_key

# Each list ascends; deb-version(7) and Debian Policy 5.6.12 give the reasons.
ASCENDING = (
    ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0a", "1.0+b1", "1.0.1"],
    ["9", "10", "1:1", "1:1.0", "2:0"],
    ["1.0-1", "1.0-1+b1", "1.0-1.1", "1.0-2", "1.0-10"],
    ["2.36-9+deb12u9", "2.36-9+deb12u13"],
    ["1.0~rc1-1", "1.0-1~bpo12+1", "1.0-1"],
    ["1.2-3", "1.2-3-4", "1.2.1-1"],
)
SAME = [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.01", "1.1"), ("1.", "1.0"), ("1.0a", "1.0a0"), ("1-00", "1-0")]


@pytest.mark.parametrize("versions", ASCENDING, ids=lambda versions: versions[0])
def test_order_of_the_policys_examples(versions):
    assert sorted(set(versions), key=sort_key) == versions
    assert all(compare(a, b) == -1 for a, b in pairwise(versions))


@pytest.mark.parametrize(("first", "second"), SAME)
def test_versions_that_are_written_differently_and_the_same(first, second):
    assert compare(first, second) == 0


@pytest.mark.parametrize(
    ("operator", "earlier", "same", "later"),
    [
        ("<<", True, False, False),
        ("<=", True, True, False),
        ("=", False, True, False),
        (">=", False, True, True),
        (">>", False, False, True),
        ("", True, True, True),
    ],
)
def test_operators(operator, earlier, same, later):
    assert [satisfies(version, operator, "1.0-1") for version in ("1.0~", "1.0-1", "1.0-1+b1")] == [
        earlier,
        same,
        later,
    ]


@pytest.mark.parametrize("good", ["1", "0:1.2~rc1+dfsg-3.1", "20230101", "1:2:3-4"])
def test_valid(good):
    assert is_valid(good)


@pytest.mark.parametrize("bad", ["", "a1", "1_0", "1 0", "1/../2", "1\n", "-1", ":1"])
def test_not_valid(bad):
    assert not is_valid(bad)


parts = st.text(alphabet="0123456789ab.+~z", min_size=0, max_size=8)
versions = st.builds(
    lambda epoch, upstream, revision: f"{epoch}0{upstream}{revision}",
    st.sampled_from(["", "0:", "1:", "12:"]),
    parts,
    st.one_of(st.just(""), parts.map(lambda text: f"-0{text}"), parts.map(lambda text: f"-{text}1")),
)


@given(versions, versions, versions)
def test_a_total_order(a, b, c):
    assert compare(a, b) == -compare(b, a)
    assert compare(a, a) == 0
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


@pytest.mark.oracle
@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is the judge, and is not on this host")
@settings(max_examples=120, deadline=None)
@given(versions, versions)
def test_agrees_with_dpkg(a, b):
    verdict = subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0
    assert (compare(a, b) < 0) == verdict
    if not verdict:
        same = subprocess.run(["dpkg", "--compare-versions", a, "eq", b], check=False).returncode == 0
        assert (compare(a, b) == 0) == same
