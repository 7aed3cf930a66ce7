"""Erasing a whole medium, the common part of FORMAT UNIT and SANITIZE.

While it runs, the unit is not ready and reports its progress. The work is done in pieces,
so that the progress moves and other units of the HBA are served in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Extent, Flush, Write, WriteZeroes
from vscsihba.scsi.response import GOOD, Background, Response, Steps, quietly
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey

if TYPE_CHECKING:
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.readiness import Erasure

_ZEROES_AT_ONCE = 64 << 20
_BYTES_AT_ONCE = 1 << 20


def erase(lu: LogicalUnit, erasure: Erasure, work: Background, *, immed: bool) -> Steps:
    """Do `work` on the whole medium, before the status or after it.

    The medium is not ready until the end; after a failure it stays so, and every command reports it. The
    death of the engine is a failure too, so the state is stored before the work begins.

    Raises:
        CheckCondition: The state cannot be stored; nothing was erased.
    """
    before, lu.readiness.erasure = lu.readiness.erasure, erasure
    lu.refresh()
    try:
        yield lu.keep(erasure=erasure)
    except CheckCondition:
        lu.readiness.erasure = before
        lu.refresh()
        raise
    job = _job(lu, erasure, work)
    if immed:
        return Response(background=quietly(job))
    yield from job
    return GOOD


def _job(lu: LogicalUnit, erasure: Erasure, work: Background) -> Background:
    try:
        yield from work
        yield Flush()
        yield lu.keep(erasure=None)
    except CheckCondition as condition:
        erasure.failed = True
        raise CheckCondition(Sense(SenseKey.MEDIUM_ERROR, erasure.failure)) from condition
    lu.readiness.erasure = None
    lu.refresh()


def zero(lu: LogicalUnit, erasure: Erasure, *, may_unmap: bool) -> Background:
    """Make the whole medium read as zeroes."""
    size = lu.geometry.size
    for offset in range(0, size, _ZEROES_AT_ONCE):
        length = min(_ZEROES_AT_ONCE, size - offset)
        yield WriteZeroes(Extent(offset, length), may_unmap=may_unmap)
        erasure.done += length


def overwrite(lu: LogicalUnit, erasure: Erasure, pattern: bytes) -> Background:
    """Write `pattern` over the whole medium; it begins again with each block."""
    size = lu.geometry.size
    block = (pattern * (lu.block_size // len(pattern) + 1))[: lu.block_size]
    piece = memoryview(block * (min(size, _BYTES_AT_ONCE) // lu.block_size))
    for offset in range(0, size, _BYTES_AT_ONCE):
        length = min(_BYTES_AT_ONCE, size - offset)
        yield Write(offset, [piece[:length]])
        erasure.done += length
