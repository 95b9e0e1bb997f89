"""What holds in a distribution file beyond its fields' own types: names that must be known, what each format has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rootfsbuild.documents.checks import Written, did_you_mean, list_words, wrong
from rootfsbuild.documents.distro_fields import RELEASE, VARIANTS
from rootfsbuild.documents.templates import check_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootfsbuild.documents.paths import Path
    from rootfsbuild.documents.toml import Document

VARIABLES = ("version", "releasever", "codename", "arch", "basearch")
"""What may stand in braces in the URLs of every rpm repository."""

ARCHIVE_KEYS = {"components": "deb", "check-valid-until": "deb", "metalink": "rpm", "mirrorlist": "rpm"}
"""Fields of archives that only one package format has."""

_RELEASE_KEYS = {"components": "deb", "database": "rpm", "isa": "rpm", "module-platform": "rpm", "variants": "rpm"}
_NEEDED = {"deb": ("codename", "components"), "rpm": ("database", "variants")}


def check_distro(document: Document) -> None:
    """Check a document that has the fields of a distribution file; raises RecipeError with line and dotted path."""
    data = document.data
    _check_keys(document, (), data, {**_RELEASE_KEYS, "variables": "rpm"})
    for name, archive in data.get("archives", {}).items():
        _check_archive(document, ("archives", name), archive)
    for name, values in data.get("variables", {}).items():
        _check_names(document, ("variables", name), values, ("all", *data["architectures"]))
    _check_names(document, ("isa",), data.get("isa", {}), data["architectures"])
    for number, release in enumerate(data["release"]):
        _check_release(document, ("release", number), release)


def _check_release(document: Document, path: Path, release: Mapping[str, Any]) -> None:
    data = document.data
    _check_keys(document, path, release, _RELEASE_KEYS)
    for key in _NEEDED.get(data["format"], ()):
        if key not in release and key not in data:
            raise wrong(document, (*path, key), "missing", RELEASE.fields[key].shape.expected)
    if "codename" not in release and "version" not in release:
        raise wrong(document, (*path, "version"), "missing", "a number, or a codename")
    for index, name in enumerate(release["architectures"]):
        _check_name(document, (*path, "architectures", index), name, data["architectures"])
    _check_names(document, (*path, "isa"), release.get("isa", {}), data["architectures"])
    for name, archive in release["archives"].items():
        _check_archive(document, (*path, "archives", name), archive)
        if data["format"] != "rpm" and "suites" not in {**data.get("archives", {}).get(name, {}), **archive}:
            raise wrong(document, (*path, "archives", name, "suites"), "missing", "an array of suites")
    if data["format"] == "rpm":
        _check_variants(document, path, release)


def _check_variants(document: Document, path: Path, release: Mapping[str, Any]) -> None:
    for name in VARIANTS[1:]:
        if name not in release.get("variants", {}) and name not in document.data.get("variants", {}):
            raise wrong(document, (*path, "variants", name), "missing", "an array of packages and groups")


def _check_archive(document: Document, path: Path, archive: Mapping[str, Any]) -> None:
    _check_keys(document, path, archive, ARCHIVE_KEYS)
    for index, key in enumerate(archive.get("keys", ())):
        _check_name(document, (*path, "keys", index), key, document.data.get("keys", {}))
    if document.data["format"] == "rpm":
        check_urls(document, path, archive, (*VARIABLES, *document.data.get("variables", {})))


def check_urls(document: Written, path: Path, archive: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Check that every variable in the URLs of an rpm repository is one of `names`; raises RecipeError."""
    for index, url in enumerate(archive.get("mirrors", ())):
        check_variables(document, (*path, "mirrors", index), url, names)
    for key in ("metalink", "mirrorlist"):
        check_variables(document, (*path, key), archive.get(key, ""), names)


def _check_keys(document: Document, path: Path, table: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    kind = document.data["format"]
    for key in table:
        if kinds.get(key, kind) != kind:
            problem = f"only a distribution whose format is {kinds[key]} has it, and this one's is {kind}"
            raise wrong(document, (*path, key), problem)


def _check_names(document: Document, path: Path, table: Mapping[str, object], words: Iterable[str]) -> None:
    for name in table:
        _check_name(document, (*path, name), name, words)


def _check_name(document: Document, path: Path, word: str, words: Iterable[str]) -> None:
    known = tuple(words)
    if word not in known:
        raise wrong(document, path, f'unknown name "{word}"', list_words(known), did_you_mean(word, known))
