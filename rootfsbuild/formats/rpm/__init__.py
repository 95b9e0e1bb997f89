"""RPM packages: from a repository's signed metadata to a configured root with a native rpm database."""

from __future__ import annotations

from rootfsbuild.formats.format import Format
from rootfsbuild.formats.rpm.cleanup import clean
from rootfsbuild.formats.rpm.explain import why
from rootfsbuild.formats.rpm.install import install_base, install_more, split_waves
from rootfsbuild.formats.rpm.installed import installed
from rootfsbuild.formats.rpm.prove import prove, proves
from rootfsbuild.formats.rpm.refresh import Metadata, refresh, resolve_metadata
from rootfsbuild.formats.rpm.repository import lay_repository
from rootfsbuild.formats.rpm.scripts import BUILTINS, script_environment
from rootfsbuild.formats.rpm.skeleton import prepare
from rootfsbuild.formats.rpm.sourcelist import localise_sources, source_list
from rootfsbuild.formats.rpm.upgrade import upgrade
from rootfsbuild.formats.rpm.version import compare

RPM: Format[Metadata] = Format(
    name="rpm",
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
    builtins=BUILTINS,
    stand_ins={},
    policy={},
    install_base=install_base,
    install_more=install_more,
    lay_repository=lay_repository,
    installed=installed,
    order=compare,
    clean=clean,
)
