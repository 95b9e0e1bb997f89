"""Whether the packages of a plan can be installed together, judged by python-debian and nothing of the resolver."""

from __future__ import annotations

import functools
import operator

from debian.deb822 import PkgRelation
from debian.debian_support import Version

_OPERATORS = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
}


@functools.cache
def _parse(value):
    return PkgRelation.parse_relations(value) if value else []


def relations(package, *fields):
    return [group for field in fields for group in _parse(package.field(field))]


def meets(package, wanted):
    """Whether a package is what one alternative of a relation names."""
    sign, version = wanted["version"] or ("", "")
    if package.name == wanted["name"] and (not sign or _OPERATORS[sign](Version(package.version), Version(version))):
        return True
    for (provided,) in _parse(package.field("Provides")):
        _, as_version = provided["version"] or ("", "")
        if provided["name"] == wanted["name"] and (
            not sign or (as_version and _OPERATORS[sign](Version(as_version), Version(version)))
        ):
            return True
    return False


def problems(packages):
    """Return, a line each, what keeps packages from being installed together."""
    found = []
    named = {}
    for package in packages:
        for name in {package.name, *(provided["name"] for (provided,) in _parse(package.field("Provides")))}:
            named.setdefault(name, []).append(package)
    for package in packages:
        for group in relations(package, "Pre-Depends", "Depends"):
            met = any(meets(other, wanted) for wanted in group for other in named.get(wanted["name"], ()))
            found += [] if met else [f"{package.name} {package.version} needs {PkgRelation.str([group])}"]
        for group in relations(package, "Conflicts", "Breaks"):
            found += [
                f"{package.name} {package.version} rules out {other.name} {other.version}"
                for other in named.get(group[0]["name"], ())
                if other.name != package.name and meets(other, group[0])
            ]
    return found
