"""Debian's packages: from a suite's signed Release to a configured root with a native dpkg database."""

from __future__ import annotations

from rootfsbuild.formats.deb.cleanup import clean
from rootfsbuild.formats.deb.explain import why
from rootfsbuild.formats.deb.install import install, split_waves
from rootfsbuild.formats.deb.refresh import refresh
from rootfsbuild.formats.deb.resolve import resolve
from rootfsbuild.formats.deb.scripts import script_environment
from rootfsbuild.formats.deb.skeleton import prepare, source_list
from rootfsbuild.formats.format import Format

DEB = Format(
    name="deb",
    refresh=refresh,
    resolve=resolve,
    why=why,
    source_list=source_list,
    prepare=prepare,
    split_waves=split_waves,
    environment=script_environment,
    install=install,
    clean=clean,
)
