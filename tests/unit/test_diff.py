from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making.plans import make_package, make_plan, make_snapshot

from rootfsbuild.formats.deb.version import compare
from rootfsbuild.inspection.diff import Kind, compare_packages, from_plan, group_changes
from rootfsbuild.inspection.differences import (
    difference_document,
    render_difference,
    summarise,
    tell_growth,
    tell_size,
)
from rootfsbuild.inspection.markdown import render_markdown
from rootfsbuild.inspection.shown import show
from rootfsbuild.listed import Listed
from rootfsbuild.lock import Lock, read_lock, write_lock

SECURITY = {"archive": "debian-security", "suite": "bookworm-security"}


def listed(name="alpha", version="1.0-1", architecture="amd64", **fields):
    values = {"source": name, "source_version": version, "installed_size": 1000, "suite": "bookworm", **fields}
    return Listed(name, version, architecture, **values)


def changed(before, after, order=compare):
    """The kinds by package name."""
    found = compare_packages(before, after, order)
    return {change.package.name: change.kind for change in (*found.changed, *found.added, *found.removed)}


def old_and_new():
    """Two plans as a week of a stable release makes them."""
    ssl, new_ssl = "3.0.15-1~deb12u1", "3.0.17-1~deb12u2"
    old = make_plan(
        make_package("libssl3", ssl, "amd64", source="openssl", installed_size=6_000_000),
        make_package("openssl", ssl, "amd64", installed_size=2_000_000),
        make_package("tzdata", "2024a-0+deb12u1", installed_size=3_000_000),
        make_package("libold1", "1.0-1", "amd64", installed_size=500_000),
        make_package("bash", "5.2.15-2", "amd64", installed_size=7_000_000),
    )
    new = make_plan(
        make_package("bash", "5.2.15-2", "amd64", installed_size=7_000_000),
        make_package("libssl3", new_ssl, "amd64", source="openssl", installed_size=6_020_000, **SECURITY),
        make_package("openssl", new_ssl, "amd64", installed_size=2_001_000, **SECURITY),
        make_package("tzdata", "2025b-0+deb12u2", installed_size=3_100_000, suite="bookworm-updates"),
        make_package("libnew1", "1.1-1", "amd64", installed_size=1_600_000),
        snapshots=(make_snapshot(), make_snapshot(**SECURITY)),
    )
    return old, new


@pytest.fixture
def difference():
    old, new = (from_plan(read_lock(write_lock(Lock("image", {}, plan)), "x.lock").plan) for plan in old_and_new())
    return compare_packages(old, new, compare)


def test_what_locks_say_is_compared(difference):
    assert {change.package.name: change.kind for change in difference.changed} == {
        "libssl3": Kind.UPGRADED,
        "openssl": Kind.UPGRADED,
        "tzdata": Kind.UPGRADED,
    }
    assert [change.package.name for change in difference.added] == ["libnew1"]
    assert [change.package.name for change in difference.removed] == ["libold1"]
    assert (difference.size_before, difference.size_after) == (18_500_000, 19_721_000)
    assert difference.delta == 1_221_000
    assert difference.delta == sum(
        change.delta for change in (*difference.changed, *difference.added, *difference.removed)
    )
    assert (difference.count_before, difference.count_after) == (5, 5)


def test_text_for_a_terminal(difference):
    assert render_difference(difference) == (
        """\
upgraded:
  openssl (2 packages)  3.0.15-1~deb12u1  -> 3.0.17-1~deb12u2   +21.0 kB  bookworm-security
    libssl3 openssl
  tzdata                2024a-0+deb12u1   -> 2025b-0+deb12u2   +100.0 kB  bookworm-updates

added:
  libnew1               1.1-1                                    +1.6 MB  bookworm

removed:
  libold1               1.0-1                                  -500.0 kB

3 upgraded, 1 added, 1 removed, +1.2 MB (18.5 MB -> 19.7 MB installed)"""
    )


def test_markdown_for_a_pull_request(difference):
    assert render_markdown(difference, "debian12 on amd64") == (
        """\
## debian12 on amd64

**3 upgraded, 1 added, 1 removed, +1.2 MB** (installed size 18.5 MB → 19.7 MB)

### Changed (3)

| package | from | to | size |
| --- | --- | --- | ---: |
| **`openssl`**: `libssl3`, `openssl` | `3.0.15-1~deb12u1` | `3.0.17-1~deb12u2` (`bookworm-security`) | +21.0 kB |
| `tzdata` | `2024a-0+deb12u1` | `2025b-0+deb12u2` (`bookworm-updates`) | +100.0 kB |

### Added (1)

| package | version | size |
| --- | --- | ---: |
| `libnew1` | `1.1-1` (`bookworm`) | +1.6 MB |

### Removed (1)

| package | version | size |
| --- | --- | ---: |
| `libold1` | `1.0-1` | -500.0 kB |"""
    )


def test_json(difference):
    document = json.loads(json.dumps(difference_document(difference)))
    assert document["counts"] == {"upgraded": 3, "downgraded": 0, "changed": 0, "added": 1, "removed": 1}
    assert document["packages"] == {"before": 5, "after": 5}
    assert document["installed_size"] == {"before": 18_500_000, "after": 19_721_000, "delta": 1_221_000}
    assert document["changed"][0] == {
        "name": "libssl3",
        "source": "openssl",
        "kind": "upgraded",
        "before": {
            "version": "3.0.15-1~deb12u1",
            "architecture": "amd64",
            "source_version": "3.0.15-1~deb12u1",
            "installed_size": 6_000_000,
            "archive": "debian",
            "suite": "bookworm",
            "sha256": "0" * 64,
        },
        "after": {
            "version": "3.0.17-1~deb12u2",
            "architecture": "amd64",
            "source_version": "3.0.17-1~deb12u2",
            "installed_size": 6_020_000,
            "archive": "debian-security",
            "suite": "bookworm-security",
            "sha256": "0" * 64,
        },
        "delta": 20_000,
    }
    assert document["added"][0]["before"] is None
    assert document["removed"][0]["after"] is None


def test_nothing_differs():
    same = compare_packages([listed()], [listed(suite="elsewhere")], compare)
    assert not same
    assert summarise(same) == "no differences"
    assert render_difference(same) == "no differences (1 package, 1.0 kB installed)"
    assert render_markdown(same) == "## Packages\n\nNo differences."
    assert difference_document(same)["changed"] == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("1.0~rc1-1", "1.0-1", Kind.UPGRADED),
        ("9-1", "10-1", Kind.UPGRADED),
        ("1:1-1", "2-1", Kind.DOWNGRADED),
        ("1.0", "1.0-0", Kind.CHANGED),
    ],
)
def test_the_format_says_which_version_is_later(before, after, kind):
    assert changed([listed(version=before)], [listed(version=after)]) == {"alpha": kind}


def test_without_an_order_versions_are_only_different():
    assert changed([listed(version="1")], [listed(version="2")], None) == {"alpha": Kind.CHANGED}


def test_another_file_of_the_same_version_is_a_change_where_both_are_known():
    known, other, unknown = listed(sha256="a" * 64), listed(sha256="b" * 64), listed()
    assert changed([known], [other]) == {"alpha": Kind.CHANGED}
    assert changed([known], [unknown]) == {}
    assert "same version, another file" in render_difference(compare_packages([known], [other], compare))
    assert "same version, another file" in render_markdown(compare_packages([known], [other], compare))


def test_another_architecture_is_a_change_of_the_same_package():
    difference = compare_packages([listed()], [listed(architecture="all")], compare)
    assert [change.kind for change in difference.changed] == [Kind.CHANGED]
    assert "1.0-1 [amd64]  -> 1.0-1 [all]" in render_difference(difference)


def test_a_name_that_is_there_for_two_architectures_is_two_packages():
    native, foreign = listed(version="1"), listed(version="1", architecture="i386")
    difference = compare_packages([native, foreign], [listed(version="2")], compare)
    assert [change.package.architecture for change in difference.changed] == ["amd64"]
    assert [change.package.architecture for change in difference.removed] == ["i386"]
    assert "alpha:i386" in render_difference(difference)


def test_packages_of_a_source_are_together_only_if_they_changed_alike():
    before = [listed(name, "1", source="src") for name in "abcd"]
    after = [listed("a", "2", source="src"), listed("b", "2", source="src"), listed("c", "3", source="src")]
    groups = group_changes(compare_packages(before, after, compare).changed)
    assert [[change.package.name for change in group.changes] for group in groups] == [["c"], ["a", "b"]]
    assert [group.name for group in groups] == ["c", "src"]


def test_a_step_back_is_pointed_out():
    text = render_markdown(compare_packages([listed(version="2")], [listed(version="1")], compare))
    assert "| `alpha` | `2` | `1` **downgraded** | 0 B |" in text


def test_long_tables_are_folded_and_at_most_thirty_rows_stand_open():
    before = [listed(f"p{number:02}", "1") for number in range(31)]
    after = [listed(f"p{number:02}", "2") for number in range(31)] + [listed("q")]
    text = render_markdown(compare_packages(before, after, compare))
    folded, _, rest = text.partition("</details>")
    assert folded.count("| `p") == 31
    assert "<summary>Changed (31)</summary>\n\n| package |" in folded
    assert rest.splitlines()[2:] == [
        "### Added (1)",
        "",
        "| package | version | size |",
        "| --- | --- | ---: |",
        "| `q` | `1.0-1` (`bookworm`) | +1.0 kB |",
    ]
    assert "details" not in render_markdown(compare_packages(before[:30], after[:30], compare))


HOSTILE = ["a|b", "a\\|b", "`a`", "@someone", "#12", "<img src=x>", "[a](b)", "*a*", "a\nb", "www.example.com"]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_cells_hold_what_they_are_given(text):
    difference = compare_packages(
        [listed(text, "1")], [listed(text, f"2{text}", suite=text), listed("x", source=text)], compare
    )
    row = next(line for line in render_markdown(difference).splitlines() if line.startswith("| ") and "2" in line)
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == 6
    assert html.unescape(re.sub(r"</?code>|`", "", cells[1])).strip() == text
    # Whatever is markup stands in code, as references if need be.
    assert re.fullmatch(r"(`[\w.-]+`|<code>([\w ]|&#\d+;)*</code>)", cells[1].strip())


def test_a_terminal_is_sent_no_control_characters():
    text = render_difference(compare_packages([listed(version="1")], [listed(version="1\x1b[2J\u202e")], compare))
    assert "1\\x1b[2J\\u202e" in text
    assert text.replace("\n", "").isprintable()


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("\\\n\x1b\x9b\u202e\udcff\udc80ÿ")))
def test_shown_text_prints_and_is_unambiguous(text):
    shown = show(text)
    assert shown.isprintable()
    assert shown.isascii() or not text.isascii()
    if text.isprintable() and "\\" not in text:
        assert shown == text
    back = re.sub(
        r"\\(?:x(..)|u(....)|U(........)|(.))",
        lambda match: (
            "\\ntr"["\\ntr".index(match[4])].translate({ord("n"): "\n", ord("t"): "\t", ord("r"): "\r"})
            if match[4]
            else chr(0xDC00 + int(match[1], 16))
            if match[1] and int(match[1], 16) > 0x7F
            else chr(int(match[1] or match[2] or match[3], 16))
        ),
        shown,
    )
    assert back == text


PACKAGES = st.lists(
    st.builds(
        listed,
        st.sampled_from("abcdef"),
        st.sampled_from(["1", "2", "3~x"]),
        st.sampled_from(["amd64", "all"]),
        installed_size=st.integers(0, 1 << 40),
    ),
    unique_by=lambda package: (package.name, package.architecture),
)


@given(PACKAGES, PACKAGES)
def test_sizes_and_counts_add_up(before, after):
    difference = compare_packages(before, after, compare)
    changes = [*difference.changed, *difference.added, *difference.removed]
    assert sum(change.delta for change in changes) + _same_growth(before, after) == difference.delta
    assert difference.count_before + len(difference.added) - len(difference.removed) == difference.count_after
    grouped = [change for group in group_changes(changes) for change in group.changes]
    assert sorted(map(str, grouped)) == sorted(map(str, changes))
    back = compare_packages(after, before, compare)
    assert len(back.added) == len(difference.removed)
    assert back.delta == -difference.delta


def _same_growth(before, after):
    """What packages grow by whose version is the same: an estimate that an index corrected."""
    difference = compare_packages(before, after, compare)
    told = {id(change.after) for change in difference.changed if change.after} | {
        id(change.after) for change in difference.added
    }
    gone = {id(change.before) for change in (*difference.changed, *difference.removed) if change.before}
    return sum(package.installed_size for package in after if id(package) not in told) - sum(
        package.installed_size for package in before if id(package) not in gone
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_940, "999.9 kB"), (999_960, "1.0 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes_in_words(count, text):
    assert tell_size(count) == text
    assert tell_growth(-count) == (f"-{text}" if count else text)
