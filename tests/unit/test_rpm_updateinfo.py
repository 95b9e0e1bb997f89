from __future__ import annotations

import pytest
from making.rpmmd import COMPRESSORS, Rpm, update, updateinfo

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.rpm.updateinfo import Fixed, parse_updateinfo

BASH = Rpm("bash", "5.2", "3.el9")
DNF = Rpm("dnf", "4.14", "1", epoch="2", arch="noarch")


def test_parse():
    body = updateinfo(
        update("RHSA-2026:1", [BASH, DNF, BASH], title="Important: bash", cves=["CVE-2026-1234"], bugs=["77"]),
        update("RHBA-2026:2", kind="bugfix", severity="None"),
    )
    first, second = parse_updateinfo(body)
    assert (first.id, first.type, first.severity, first.title) == (
        "RHSA-2026:1",
        "security",
        "Important",
        "Important: bash",
    )
    assert (first.issued, first.cves, first.bugs) == ("2026-01-02 03:04:05", ("CVE-2026-1234",), ("77",))
    assert first.packages == (Fixed("bash", "5.2-3.el9", "x86_64"), Fixed("dnf", "2:4.14-1", "noarch"))
    assert (second.type, second.severity, second.cves, second.packages) == ("bugfix", "", (), ())


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_from_a_file(tmp_path, ending):
    (tmp_path / "blob").write_bytes(COMPRESSORS[ending](updateinfo(update("A-1", [BASH]))))
    assert [one.id for one in parse_updateinfo(str(tmp_path / "blob"), "it", href=f"x.xml{ending}")] == ["A-1"]


def test_cves_are_found_where_distributions_write_them():
    elsewhere = '<reference href="https://x.example/CVE-2026-2222" id="2222" type="cve" title="x"/>'
    body = updateinfo(update("A-1", title="Fix CVE-2026-33333 and CVE-2026-1111", cves=["CVE-2026-1111"]))
    body = body.replace(b"</references>", elsewhere.encode() + b"</references>")
    (found,) = parse_updateinfo(body)
    assert found.cves == ("CVE-2026-1111", "CVE-2026-2222", "CVE-2026-33333")


def test_texts_are_fit_for_a_terminal():
    (found,) = parse_updateinfo(updateinfo(update("A-1", title="a\n b\u009b2Jc")))
    assert found.title == "a  b 2Jc"


def test_advisories_without_an_id_are_passed_over():
    assert [one.id for one in parse_updateinfo(updateinfo(update(""), update("B-1")))] == ["B-1"]


def test_many_advisories_are_read_one_by_one():
    import tracemalloc

    body = updateinfo(*(update(f"A-{number}", [BASH, DNF] * 20) for number in range(300)))
    tracemalloc.start()
    count = sum(1 for _ in parse_updateinfo(body))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, len(body) > 1_600_000, peak < 1_000_000) == (300, True, True)


def test_malformed_documents_are_refused():
    body = updateinfo(update("A-1"))
    for bad in (body[:-12], b"<x/>", b"<!DOCTYPE updates []><updates/>"):
        with pytest.raises(UntrustedError):
            list(parse_updateinfo(bad))
