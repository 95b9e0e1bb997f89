"""The package formats: a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootfsbuild.formats.format import Format

_RECORDS = {"deb": "DEB", "rpm": "RPM"}


class _Formats(Mapping[str, "Format[Any]"]):
    """The formats by name, each imported when it is asked for: a build has one."""

    def __getitem__(self, name: str) -> Format[Any]:
        record: Format[Any] = getattr(import_module(f"{__name__}.{name}"), _RECORDS[name])
        return record

    def __iter__(self) -> Iterator[str]:
        return iter(_RECORDS)

    def __len__(self) -> int:
        return len(_RECORDS)


FORMATS: Mapping[str, Format[Any]] = _Formats()
