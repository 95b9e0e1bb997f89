"""What the confined processes and their parent tell each other, as lists of bytes.

Not pickle: a process that has read a hostile package must have no way to make its parent run anything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootfsbuild.rootfs.lay import Traces
from rootfsbuild.rootfs.package import ControlArchive
from rootfsbuild.rootfs.settle import Settlement
from rootfsbuild.rootfs.worker import Fields, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def encode_laid(control: ControlArchive, traces: Traces) -> Fields:
    """Return what a worker answers when a package has been laid."""
    files = [(os.fsencode(name), b"%o" % mode, data) for name, (data, mode) in control.files.items()]
    return (
        control.fields,
        _flat(files),
        b"\0".join(traces.paths),
        b"\0".join(traces.directories),
        _flat(traces.aliases.items()),
        _flat(traces.moved.items()),
        pack(traces.absent),
        pack(traces.links),
        pack(traces.followed),
        pack(traces.yielded),
        _flat(traces.collisions),
        _flat((path, digest.encode()) for path, digest in traces.digests.items()),
        pack(traces.made),
        traces.clash,
    )


def decode_laid(fields: Fields) -> tuple[ControlArchive, Traces]:
    """Return what `encode_laid` was given."""
    files = {os.fsdecode(name): (data, int(mode, 8)) for name, mode, data in _rows(fields[1], 3)}
    traces = Traces(
        paths=fields[2].split(b"\0") if fields[2] else [],
        directories=fields[3].split(b"\0") if fields[3] else [],
        aliases=dict(_pairs(fields[4])),
        moved=dict(_pairs(fields[5])),
        absent=unpack(fields[6]),
        links=unpack(fields[7]),
        followed=unpack(fields[8]),
        yielded=unpack(fields[9]),
        collisions=[(row[0], row[1], row[2]) for row in _rows(fields[10], 3)],
        digests={path: digest.decode() for path, digest in _pairs(fields[11])},
        made=unpack(fields[12]),
        clash=fields[13],
    )
    return ControlArchive(fields[0], files), traces


def encode_settlement(settlement: Settlement) -> bytes:
    """Return the part of a settlement that is to be done in the root."""
    paths = (pack(settlement.unlink), pack(settlement.rmdir))
    return pack((*paths, _flat(settlement.rename), _flat(settlement.directories)))


def decode_settlement(data: bytes) -> Settlement:
    """Return what `encode_settlement` was given, without the rest."""
    unlink, rmdir, rename, directories = unpack(data)
    return Settlement(unpack(unlink), unpack(rmdir), _pairs(rename), _pairs(directories))


def _flat(rows: Iterable[Sequence[bytes]]) -> bytes:
    return pack([field for row in rows for field in row])


def _rows(data: bytes, width: int) -> list[tuple[bytes, ...]]:
    fields = unpack(data)
    return [tuple(fields[at : at + width]) for at in range(0, len(fields), width)]


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(row[0], row[1]) for row in _rows(data, 2)]
