"""PRE-FETCH: read blocks into the cache for a later READ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Extent
from vscsihba.scsi.block.ranges import rest_or_range
from vscsihba.scsi.block.verify import read_pieces
from vscsihba.scsi.response import Background, Response, Steps, answered, deferring

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

_MOST = 16 << 20
"""Bytes that one command fetches at most; GOOD does not promise that all blocks are cached."""


def pre_fetch(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """PRE-FETCH(10), (16): SBC-4; 0 blocks mean all up to the end.

    The status is GOOD, not CONDITION MET: the size of the cache is unknown.
    """
    extent = rest_or_range(lu, cdb)
    fetch = _fetch(Extent(extent.offset, min(extent.length, _MOST)))
    if cdb["immed"]:
        return Response(background=deferring(lu.defer, fetch))
    return answered(fetch)


def _fetch(extent: Extent) -> Background:
    yield from read_pieces(extent, lambda _at, _piece: None)
