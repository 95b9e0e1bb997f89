"""The package formats: a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootfsbuild.formats.deb import DEB
from rootfsbuild.formats.format import Format

FORMATS: Mapping[str, Format[Any]] = {DEB.name: DEB}
