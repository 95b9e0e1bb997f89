"""What is written down beside a result: what it was made of, what was trusted, and which checks were off."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rootfsbuild import __version__
from rootfsbuild.plan import Package, Plan


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as a JSON object; `packages` is a list of objects in install order."""
    return {
        "distro": plan.distro,
        "release": plan.release,
        "architecture": plan.architecture,
        "epoch": plan.epoch,
        "weakened": list(plan.weakened),
        "archives": [asdict(snapshot) for snapshot in plan.snapshots],
        "packages": [describe_package(package) for package in plan.packages],
    }


def describe_result(name: str, plan: Plan) -> dict[str, Any]:
    """Return what a build's manifest holds; `archives[].mirror` tells which mirror served each."""
    return {"rootfsbuild": __version__, "name": name, **describe_plan(plan)}


def describe_package(package: Package) -> dict[str, Any]:
    """Return one package as a JSON object; `reason` is a sentence, `why` its parts."""
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "archive": package.archive,
        "suite": package.suite,
        "component": package.component,
        "filename": package.filename,
        "size": package.size,
        "installed_size": package.installed_size,
        "sha256": package.sha256,
        "source": package.source,
        "source_version": package.source_version,
        "automatic": package.automatic,
        "depends": list(package.depends),
        "reason": str(package.reason),
        "why": asdict(package.reason),
    }
