"""Locks and roots side by side, whichever of the two each is."""

from __future__ import annotations

import os

from rootfsbuild.errors import PackageError, UsageError
from rootfsbuild.formats import FORMATS
from rootfsbuild.inspection.compare import PathDifference
from rootfsbuild.inspection.diff import Difference, compare_packages, from_plan
from rootfsbuild.inspection.paths import compare_files
from rootfsbuild.listed import Listed
from rootfsbuild.lock import load_lock
from rootfsbuild.plan import Plan


def compare_plans(before: Plan, after: Plan) -> Difference:
    """Return which packages differ between two plans."""
    return compare_packages(from_plan(before), from_plan(after), FORMATS[after.format].order)


def compare_results(before: str, after: str) -> Difference:
    """Return which packages differ between two locks, two roots, or a lock and a root.

    Raises UsageError for what is neither, and what reading them raises.
    """
    (first, one), (second, other) = _read(before), _read(after)
    if first != second:
        raise UsageError(f"{before} has {first} packages and {after} has {second} ones", hint="compare like with like")
    return compare_packages(one, other, FORMATS[first].order)


def compare_roots(before: str, after: str) -> tuple[PathDifference, ...] | None:
    """Return which files differ between two roots; None unless both are roots."""
    if not (os.path.isdir(before) and os.path.isdir(after)):
        return None
    return compare_files(before, after)


def _read(path: str) -> tuple[str, tuple[Listed, ...]]:
    if not os.path.isdir(path):
        plan = load_lock(path).plan
        return plan.format, from_plan(plan)
    missed: list[PackageError] = []
    for name, format_ in FORMATS.items():
        try:
            return name, format_.installed(path)
        except PackageError as error:
            missed.append(error)
    raise PackageError(path, "; ".join(dict.fromkeys(error.problem for error in missed)))
