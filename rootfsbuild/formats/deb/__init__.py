"""Debian's packages: from a suite's signed Release to a configured root with a native dpkg database."""

from __future__ import annotations

from rootfsbuild.formats.deb.cleanup import clean
from rootfsbuild.formats.deb.explain import why
from rootfsbuild.formats.deb.install import install_base, install_more, split_waves
from rootfsbuild.formats.deb.installed import installed
from rootfsbuild.formats.deb.prove import prove, proves
from rootfsbuild.formats.deb.refresh import refresh, resolve_metadata
from rootfsbuild.formats.deb.repository import lay_repository
from rootfsbuild.formats.deb.scripts import script_environment
from rootfsbuild.formats.deb.skeleton import prepare
from rootfsbuild.formats.deb.sourcelist import localise_sources, source_list
from rootfsbuild.formats.deb.standins import POLICY, STAND_INS
from rootfsbuild.formats.deb.upgrade import upgrade
from rootfsbuild.formats.deb.version import compare
from rootfsbuild.formats.format import Format

DEB = Format(
    name="deb",
    refresh=refresh,
    resolve=resolve_metadata,
    upgrade=upgrade,
    proves=proves,
    prove=prove,
    why=why,
    source_list=source_list,
    localise_sources=localise_sources,
    prepare=prepare,
    split_waves=split_waves,
    environment=script_environment,
    builtins={},
    stand_ins=STAND_INS,
    policy=POLICY,
    install_base=install_base,
    install_more=install_more,
    lay_repository=lay_repository,
    installed=installed,
    order=compare,
    clean=clean,
)
