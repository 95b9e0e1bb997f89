from __future__ import annotations

import datetime as dt
import json

import pytest
from making.plans import make_package, make_plan

from rootfsbuild.cli.render import render_plan, render_settings, settings_document, to_json
from rootfsbuild.plan import Reason, Why


def test_a_plan_is_a_table_with_a_line_for_each_package_by_name():
    plan = make_plan(
        make_package(
            "libc6", "2.36-9", "amd64", size=2_757_000, reason=Reason(Why.ESSENTIAL), installed_size=13_000_000
        ),
        make_package("a", "1", size=999, archive="mine", suite="./x"),
    )
    lines = render_plan(plan).splitlines()
    assert [line.split()[:4] for line in lines[:3]] == [
        ["PACKAGE", "VERSION", "ARCH", "ARCHIVE"],
        ["a", "1", "all", "mine/./x"],
        ["libc6", "2.36-9", "amd64", "debian/bookworm"],
    ]
    assert lines[1].endswith("999 B    requested: alpha") or "999 B" in lines[1]
    assert "2.8 MB" in lines[2]
    assert lines[2].endswith("essential")
    assert lines[-1].startswith("2 packages, 2.8 MB to fetch, 13.0 MB installed")


def test_columns_stand_below_each_other():
    plan = make_plan(make_package("a-very-long-name"), make_package("b"))
    heading, *rows = render_plan(plan).splitlines()[:3]
    for title in ("VERSION", "ARCH", "ARCHIVE", "SIZE", "WHY"):
        at = heading.index(title)
        assert all(row[at] != " " and row[at - 1] == " " for row in rows)


def test_an_empty_plan():
    assert render_plan(make_plan()).endswith("0 packages, 0 B to fetch, 0 B installed")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (3_200_000_000, "3.2 GB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_sizes_are_in_decimal_units(size, text):
    assert f" {text} to fetch" in render_plan(make_plan(make_package(size=int(size))))


SETTINGS = [
    ("distro", "debian", "r.toml:1"),
    ("packages.include", ["a", "é"], "r.toml:4"),
    ("snapshot", dt.date(2026, 10, 1), "r.toml:9"),
    ("packages.recommends", False, "default"),
]


def test_settings_are_lines_with_where_they_came_from():
    assert render_settings(SETTINGS).splitlines() == [
        'distro              = "debian"  # r.toml:1',
        'packages.include    = ["a", "é"]  # r.toml:4',
        'snapshot            = "2026-10-01"  # r.toml:9',
        "packages.recommends = false  # default",
    ]
    assert render_settings([]) == ""


def test_settings_as_json_are_keyed_by_path():
    found = json.loads(to_json(settings_document(SETTINGS)))
    assert found["packages.recommends"] == {"value": False, "origin": "default"}
    assert found["snapshot"]["value"] == "2026-10-01"


def test_json_is_readable_by_people_too():
    assert to_json({"é": [1]}) == '{\n  "é": [\n    1\n  ]\n}'
