"""Packages as Debian archives describe them, and all archives of a resolution as one universe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rootfsbuild.errors import UntrustedError
from rootfsbuild.formats.deb.index import Index, Paragraph, load_index
from rootfsbuild.formats.deb.relations import Alternative, Relation, parse_relations
from rootfsbuild.formats.deb.version import is_valid, satisfies, sort_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Deb", "Index", "Placed", "Universe", "load_index"]

PRIORITIES = ("required", "important", "standard", "optional", "extra")
"""From the best to the worst (Debian Policy 2.5)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.~_-]*")
_FILENAME = re.compile(r"(?:\./)*(?!/)(?:(?!\.\.?/)[^/\0\n]+/)*(?!\.\.?$)[^/\0\n]+")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SOURCE = re.compile(r"(\S+)(?:\s*\(\s*(\S+?)\s*\))?")


@dataclass(frozen=True)
class Placed:
    """One index as it stands in a resolution."""

    index: Index
    archive: str
    suite: str
    codename: str
    component: str
    pin: int
    """As in apt_preferences(5): 500 by default, 100 for backports, 1 for a NotAutomatic archive."""

    @property
    def place(self) -> str:
        """Return where its packages are, for people: `bookworm/main`."""
        return f"{self.codename or self.suite}/{self.component}"


@dataclass(frozen=True, eq=False)
class Deb:
    """One version of one package in one index; fields are read when they are asked for.

    Every property raises UntrustedError (`malformed`) when its field is missing or cannot be read.
    """

    paragraph: Paragraph
    places: tuple[Placed, ...]
    """The indexes that hold this version; it is fetched from the first."""

    @cached_property
    def name(self) -> str:
        """Return the package's name."""
        if _NAME.fullmatch(self.paragraph.name) is None:
            raise self.malformed("that is no package name")
        return self.paragraph.name

    @property
    def placed(self) -> Placed:
        """Return the index that it comes from."""
        return self.places[0]

    @cached_property
    def pin(self) -> int:
        """Return the highest pin of its places (apt_preferences(5)); what is not positive is never a candidate."""
        return max(placed.pin for placed in self.places)

    @cached_property
    def fields(self) -> dict[str, str]:
        """Return the paragraph's fields by their names in lower case."""
        found: dict[str, str] = {}
        for line in self.paragraph.text.decode("utf-8", "replace").splitlines():
            name, colon, value = line.partition(":")
            key = name.lower()
            if not colon or key in found:
                raise self.malformed(f"the line {line[:60]!r} is no field, or repeats one")
            found[key] = value.strip()
        return found

    @cached_property
    def version(self) -> str:
        """Return the version."""
        return self._matching("Version", is_valid)

    @cached_property
    def architecture(self) -> str:
        """Return the architecture, or `all`."""
        return self._matching("Architecture", lambda value: re.fullmatch(r"[a-z0-9-]+", value) is not None)

    @cached_property
    def filename(self) -> str:
        """Return the package file's path below the archive's root."""
        value = self._matching("Filename", lambda value: _FILENAME.fullmatch(value) is not None)
        return re.sub(r"^(?:\./)+", "", value)

    @cached_property
    def sha256(self) -> str:
        """Return the package file's digest in lower-case hexadecimal."""
        return self._matching("SHA256", lambda value: _SHA256.fullmatch(value) is not None).lower()

    @cached_property
    def size(self) -> int:
        """Return the bytes of the package file."""
        return int(self._matching("Size", _is_number))

    @cached_property
    def installed_size(self) -> int:
        """Return the estimate of bytes on disk; 0 when there is none."""
        value = self.fields.get("installed-size", "")
        return int(value) * 1024 if _is_number(value) else 0

    @cached_property
    def source(self) -> tuple[str, str]:
        """Return name and version of the source package (Debian Policy 5.6.1)."""
        match = _SOURCE.fullmatch(self.fields.get("source", ""))
        if match is None:
            return self.name, self.version
        return match[1], match[2] or self.version

    @cached_property
    def priority(self) -> int:
        """Return the rank of its priority in PRIORITIES: an unknown one has the last, none at all has -1, as in apt."""
        value = self.fields.get("priority", "").lower()
        if not value:
            return -1
        return PRIORITIES.index(value) if value in PRIORITIES else len(PRIORITIES) - 1

    @cached_property
    def essential(self) -> bool:
        """Tell whether it is Essential (Debian Policy 3.8)."""
        return self.fields.get("essential", "").lower() == "yes"

    @cached_property
    def important(self) -> bool:
        """Tell whether it is Protected, formerly spelt Important."""
        return "yes" in {self.fields.get("protected", "").lower(), self.fields.get("important", "").lower()}

    @cached_property
    def multi_arch(self) -> str:
        """Return `same`, `foreign`, `allowed` or `no`."""
        return self.fields.get("multi-arch", "no").lower() or "no"

    @cached_property
    def provides(self) -> tuple[Alternative, ...]:
        """Return what it provides, as written."""
        return tuple(relation.alternatives[0] for relation in self.relations("Provides"))

    def relations(self, field: str) -> tuple[Relation, ...]:
        """Return the relations of one field, as written."""
        try:
            return parse_relations(field, self.fields.get(field.lower(), ""))
        except ValueError as error:
            raise self.malformed(str(error)) from None

    def malformed(self, problem: str) -> UntrustedError:
        """Return the error that says what is wrong with this paragraph."""
        return UntrustedError(f"{self.paragraph.name} in {self.placed.place}", "malformed", problem)

    def _matching(self, field: str, is_good: Callable[[str], bool]) -> str:
        value = self.fields.get(field.lower(), "")
        if not is_good(value):
            raise self.malformed(f"{value!r} is no value of {field}" if value else f"it has no {field}")
        return value


class Universe:
    """All packages of one architecture that a resolution may choose from."""

    preferred: frozenset[str] = frozenset()
    """Names that are taken before others where several would do: apt knows none such."""

    def __init__(self, placed: Sequence[Placed], architecture: str) -> None:
        self.placed = tuple(placed)
        self.architecture = architecture
        self._versions: dict[str, tuple[Deb, ...]] = {}
        self._meeting: dict[tuple[str, str], tuple[str, ...]] = {}
        self._ids: dict[str, tuple[int, ...]] = {}
        self._qualified: dict[tuple[int, str], frozenset[str]] = {}

    def versions(self, name: str) -> tuple[Deb, ...]:
        """Return every version of a package, the highest first; of equal ones that of the index listed first."""
        if name not in self._versions:
            found = [(paragraph, placed) for placed in self.placed for paragraph in placed.index.paragraphs(name)]
            self._versions[name] = _merge(found, self.architecture)
        return self._versions[name]

    def candidate(self, name: str) -> Deb | None:
        """Return what apt installs unless told otherwise: of the highest pin the highest version."""
        usable = [deb for deb in self.versions(name) if deb.pin > 0]
        return max(usable, key=lambda deb: deb.pin, default=None)

    def meeting(self, alternative: Alternative) -> tuple[str, ...]:
        """Return the names of packages of which some version may meet an alternative, the name itself first."""
        key = (alternative.name, alternative.qualifier)
        if key not in self._meeting:
            name, qualifier = key
            found = [] if qualifier and not self._is_any_or_native(qualifier) else [name, *self.providing(name)]
            found += self.providing(f"{name}:{qualifier or self.architecture}")
            self._meeting[key] = tuple(dict.fromkeys(found))
        return self._meeting[key]

    def meets(self, deb: Deb, alternative: Alternative) -> bool:
        """Tell whether a package meets an alternative, by its name or by what it provides (Debian Policy 7.5).

        Provides without a version meets no versioned relation. `name:any` is met only by what is Multi-Arch:
        allowed, or says so in its Provides, as apt has it.
        """
        qualifier = alternative.qualifier
        plain = not qualifier or (deb.multi_arch == "allowed" if qualifier == "any" else self._is_native(qualifier))
        own = plain and deb.name == alternative.name
        if own and satisfies(deb.version, alternative.operator, alternative.version):
            return True
        return any(
            provided.name == alternative.name
            and (self._is_same(provided.qualifier, qualifier) if provided.qualifier else plain)
            and _provides_version(provided, alternative)
            for provided in deb.provides
        )

    def is_essential(self, name: str) -> bool:
        """Tell whether any version of a package is Essential, which makes apt treat the package so."""
        return any(deb.essential for deb in self.versions(name))

    def is_important(self, name: str) -> bool:
        """Tell the same of Protected."""
        return any(deb.important for deb in self.versions(name))

    def is_open(self, owner: Deb, relation: Relation, option: Deb) -> bool:
        """Tell whether a relation of `owner` may bring in `option`: for apt always."""
        del owner, relation, option
        return True

    def notable(self) -> tuple[str, ...]:
        """Return the packages of which some version is Essential or of a priority above optional, sorted."""
        return tuple(sorted({paragraph.name for placed in self.placed for paragraph in placed.index.notable()}))

    def package_id(self, name: str) -> tuple[int, ...]:
        """Return a value that sorts as apt's package ids: by the place where a name is met first."""
        if name not in self._ids:
            self._ids[name] = self._find_id(name)
        return self._ids[name]

    def _find_id(self, name: str) -> tuple[int, ...]:
        for at, placed in enumerate(self.placed):
            found = [place for word in self._spellings(name, at) if (place := placed.index.first_named(word))]
            if found:
                return (at, *min(found))
        return (len(self.placed),)

    def _spellings(self, name: str, at: int) -> Iterator[str]:
        # apt takes `name:native` and `name:amd64` for the name itself.
        yield name
        for qualifier in ("native", self.architecture):
            if (at, qualifier) not in self._qualified:
                self._qualified[at, qualifier] = self.placed[at].index.qualified(qualifier)
            if name in self._qualified[at, qualifier]:
                yield f"{name}:{qualifier}"

    def names(self) -> list[str]:
        """Return the names of all packages and of all that they provide, sorted."""
        return sorted({name for placed in self.placed for name in placed.index.names()})

    def providing(self, name: str) -> list[str]:
        """Return the names of packages of which some version says that it provides `name`."""
        return [paragraph.name for placed in self.placed for paragraph in placed.index.providers(name)]

    def _is_native(self, qualifier: str) -> bool:
        return qualifier in {"native", self.architecture}

    def _is_any_or_native(self, qualifier: str) -> bool:
        return qualifier == "any" or self._is_native(qualifier)

    def _is_same(self, provided: str, wanted: str) -> bool:
        return provided == wanted or (self._is_native(provided) and (not wanted or self._is_native(wanted)))


def _merge(found: Sequence[tuple[Paragraph, Placed]], architecture: str) -> tuple[Deb, ...]:
    merged: dict[str, Deb] = {}
    for paragraph, placed in found:
        deb = Deb(paragraph, (placed,))
        if deb.architecture not in {architecture, "all"}:
            continue
        known = merged.get(deb.version)
        merged[deb.version] = deb if known is None else Deb(known.paragraph, (*known.places, placed))
    return tuple(sorted(merged.values(), key=lambda deb: sort_key(deb.version), reverse=True))


def _provides_version(provided: Alternative, wanted: Alternative) -> bool:
    if provided.operator not in {"", "="}:
        return False
    if not wanted.operator:
        return True
    return bool(provided.version) and satisfies(provided.version, wanted.operator, wanted.version)


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 16
