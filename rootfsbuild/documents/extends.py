"""A document and the documents that it extends, in the order in which they are merged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootfsbuild.documents.checks import check, did_you_mean, wrong
from rootfsbuild.documents.toml import Document, read_toml

if TYPE_CHECKING:
    from rootfsbuild.documents.shapes import Table


def read_extending(file: str, table: Table) -> list[Document]:
    """Read a document and, before it, whatever its `extends` names, each of them once and checked.

    Raises RecipeError, also for a document that extends itself in the end.
    """
    documents: dict[str, Document] = {}
    _collect(file, table, documents, ())
    return list(documents.values())


def _collect(file: str, table: Table, documents: dict[str, Document], chain: tuple[str, ...]) -> None:
    document = read_toml(file)
    check(document, table)
    extends = document.data.get("extends", ())
    for index, name in enumerate([extends] if isinstance(extends, str) else extends):
        path = ("extends",) if isinstance(extends, str) else ("extends", index)
        base = os.path.normpath(os.path.join(os.path.dirname(file), name))
        if not os.path.isfile(base):
            raise wrong(document, path, f"no such file: {base}", "a recipe", _nearest_file(base))
        real = os.path.realpath(base)
        if real in {os.path.realpath(known) for known in (*chain, file)}:
            raise wrong(document, path, "extends itself: " + " -> ".join((*chain, file, base)))
        if real not in documents:
            _collect(base, table, documents, (*chain, file))
    documents[os.path.realpath(file)] = document


def _nearest_file(file: str) -> str:
    folder = os.path.dirname(file) or "."
    return did_you_mean(os.path.basename(file), os.listdir(folder) if os.path.isdir(folder) else ())
