from __future__ import annotations

import json

import pytest
from making.plans import EPOCH, make_package, make_plan, make_snapshot

from rootfsbuild import __version__
from rootfsbuild.manifest import describe_package, describe_plan, describe_result
from rootfsbuild.plan import Index, Reason, Why

DEPENDENCY = Reason(Why.DEPENDENCY, "Depends: default-mta | mail-transport-agent", "mdadm", (("exim4", "excluded"),))


def test_a_plan_is_plain_json_in_install_order():
    indexes = (Index("main/binary-amd64/Packages.xz", 5, "3" * 64),)
    plan = make_plan(
        make_package("libc6"),
        make_package("bash"),
        snapshots=(make_snapshot(indexes=indexes, valid_until=EPOCH + 1),),
        weakened=("expired",),
    )
    found = json.loads(json.dumps(describe_plan(plan)))
    assert [package["name"] for package in found["packages"]] == ["libc6", "bash"]
    assert {key: found[key] for key in ("distro", "release", "architecture", "epoch", "weakened")} == {
        "distro": "debian",
        "release": "bookworm",
        "architecture": "amd64",
        "epoch": EPOCH,
        "weakened": ["expired"],
    }


def test_what_was_trusted_is_recorded():
    snapshot = make_snapshot(signers=("B" * 40,), mirror="http://near.example/d")
    (archive,) = describe_plan(make_plan(snapshots=(snapshot,)))["archives"]
    assert archive["archive"] == "debian"
    assert archive["mirror"] == "http://near.example/d"
    assert list(archive["signers"]) == ["B" * 40]
    assert {"suite", "codename", "date", "valid_until", "sha256", "keyring", "indexes"} <= archive.keys()


def test_a_package_has_what_the_command_line_promises():
    found = describe_package(make_package("bash", "5.2-1", "amd64", size=7, sha256="4" * 64))
    assert {key: found[key] for key in ("name", "version", "architecture", "archive", "size", "sha256")} == {
        "name": "bash",
        "version": "5.2-1",
        "architecture": "amd64",
        "archive": "debian",
        "size": 7,
        "sha256": "4" * 64,
    }
    assert "://" not in found["filename"]


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (Reason(Why.REQUESTED, "nginx=1.22.*"), "requested: nginx=1.22.*"),
        (Reason(Why.ESSENTIAL), "essential"),
        (Reason(Why.PRIORITY, "required"), "priority required"),
        (Reason(Why.DISTRIBUTION), "the distribution's choice"),
        (DEPENDENCY, "mdadm Depends: default-mta | mail-transport-agent"),
    ],
)
def test_the_reason_is_a_sentence_and_its_parts(reason, sentence):
    found = json.loads(json.dumps(describe_package(make_package(reason=reason))))
    assert found["reason"] == sentence
    assert found["why"]["why"] == reason.why.value
    assert found["why"]["rejected"] == [list(pair) for pair in reason.rejected]


def test_a_result_says_what_made_it_and_what_it_is_called():
    found = describe_result("box", make_plan(make_package()))
    assert (found["rootfsbuild"], found["name"]) == (__version__, "box")
    assert len(found["packages"]) == 1
