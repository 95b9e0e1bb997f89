"""Plans made from a few words."""

from __future__ import annotations

from rootfsbuild.plan import Package, Plan, Reason, Snapshot, Why

EPOCH = 1_700_000_000


def make_package(name="alpha", version="1.0-1", architecture="all", **fields):
    """A package of a plan; keywords replace what is made up."""
    values = {
        "source": name,
        "source_version": version,
        "archive": "debian",
        "suite": "bookworm",
        "component": "main",
        "filename": f"pool/main/{name}_{version}_{architecture}.deb",
        "size": 1000,
        "installed_size": 10240,
        "sha256": "0" * 64,
        "reason": Reason(Why.REQUESTED, name),
        "automatic": False,
        **fields,
    }
    return Package(name, version, architecture, **values)


def make_snapshot(**fields):
    values = {
        "archive": "debian",
        "suite": "bookworm",
        "codename": "bookworm",
        "components": ("main",),
        "architecture": "amd64",
        "date": EPOCH,
        "valid_until": None,
        "sha256": "1" * 64,
        "signers": ("A" * 40,),
        "keyring": "2" * 64,
        "mirror": "http://mirror.example/debian",
        **fields,
    }
    return Snapshot(**values)


def make_plan(*packages, **fields):
    values = {
        "format": "deb",
        "distro": "debian",
        "release": "bookworm",
        "architecture": "amd64",
        "packages": tuple(packages),
        "snapshots": (make_snapshot(),),
        "epoch": EPOCH,
        **fields,
    }
    return Plan(**values)
