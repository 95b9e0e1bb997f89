from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootfsbuild.formats.rpm.version import Evr, compare, join_evr, satisfies, split_evr

# Each list ascends; the cases are those of rpm-version(7) and what its words come to.
ASCENDING = (
    ["1.0~~", "1.0~rc1", "1.0~rc1^git1", "1.0", "1.0^", "1.0^git1", "1.0^git1.1", "1.0a", "1.0.1"],
    ["9", "10", "1:1", "1:1.0", "2:0"],
    ["1.0", "1.0-1", "1.0-1.el9", "1.0-2", "1.0-10"],
    ["5.5p1", "5.5p2", "5.5p10", "5.6p1"],
    ["xyz10", "xyz10.1", "1a", "1.1"],
)
SAME = [("1.0", "1_0"), ("0:1.0", "1.0"), ("1.01", "1.1"), ("1.0", "1.0."), ("1a1", "1.a.1"), ("1-00", "1-0")]


@pytest.mark.parametrize("versions", ASCENDING, ids=lambda versions: versions[0])
def test_order_of_the_manuals_examples(versions):
    assert all(compare(a, b) == -1 for a, b in pairwise(versions))
    assert all(compare(b, a) == 1 for a, b in pairwise(versions))


@pytest.mark.parametrize(("first", "second"), SAME)
def test_versions_that_are_written_differently_and_the_same(first, second):
    assert compare(first, second) == 0


def test_splitting():
    assert split_evr("1:2.0-3.el9") == Evr(1, "2.0", "3.el9")
    assert split_evr("2.0") == Evr(0, "2.0", "")
    assert split_evr(":2.0-1") == Evr(0, "2.0", "1")


@pytest.mark.parametrize("text", ["1.0", "1:1.0-2", "2.0^git-1.el9"])
def test_joining_gives_the_text_again(text):
    assert join_evr(*split_evr(text)) == text


def test_an_epoch_of_0_is_left_out():
    assert join_evr(0, "1.0", "1") == "1.0-1"


@pytest.mark.parametrize(
    ("operator", "earlier", "same", "later"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        ("=", False, True, False),
        (">=", False, True, True),
        (">", False, False, True),
        ("", True, True, True),
    ],
)
def test_operators(operator, earlier, same, later):
    assert [satisfies(one, operator, "1.0-2") for one in ("1.0-1", "1.0-2", "1.0-3")] == [earlier, same, later]


def test_a_release_counts_only_where_both_have_one():
    assert satisfies("1.0-5", "=", "1.0")
    assert not satisfies("1.0-5", ">", "1.0")
    assert satisfies("1.0", "<=", "1.0-5")


parts = st.text(alphabet="0019ab.+~^_Z", min_size=1, max_size=8)
versions = st.builds(
    lambda epoch, version, release: f"{epoch}{version}{release}",
    st.sampled_from(["", "0:", "1:", "12:"]),
    parts,
    st.one_of(st.just(""), parts.map(lambda text: f"-{text}")),
)


@given(versions, versions, versions)
def test_a_total_order(a, b, c):
    assert compare(a, b) == -compare(b, a)
    assert compare(a, a) == 0
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


@pytest.fixture(scope="module")
def solvables():
    solv = pytest.importorskip("solv")
    pool = solv.Pool()
    repo = pool.add_repo("test")
    found = repo.add_solvable(), repo.add_solvable()
    for one in found:
        one.name = "package"
    return pool, *found


@settings(max_examples=2000, deadline=None)
@given(a=versions, b=versions)
def test_agrees_with_libsolv(solvables, a, b):
    _, first, second = solvables
    first.evr, second.evr = a, b
    assert compare(a, b) == first.evrcmp(second)


@pytest.mark.oracle
@pytest.mark.skipif(not shutil.which("rpm"), reason="rpm is the judge, and is not on this host")
def test_agrees_with_rpm():
    chosen = [text for line in ASCENDING for text in line if not text.startswith("xyz")] + [a for a, _ in SAME]
    pairs = [(a, b) for a in chosen for b in chosen]
    lua = " ".join(f'print(rpm.vercmp("{a}", "{b}")..",")' for a, b in pairs)
    done = subprocess.run(["rpm", "--eval", f"%{{lua:{lua}}}"], capture_output=True, text=True, check=True)
    assert [int(one) for one in done.stdout.split(",") if one.strip()] == [compare(a, b) for a, b in pairs]
