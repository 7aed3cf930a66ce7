"""Erasing a whole medium: what FORMAT UNIT and SANITIZE have in common.

While it runs, the unit's readiness says so, with progress; the work is done in pieces,
so that progress moves and other units of the host are served in between.
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

    From here on until the end the medium is not ready; after a failure it stays so, and every
    command will learn of it. An end of the engine is a failure too: so the unit keeps a note.

    Raises:
        CheckCondition: The note cannot be kept; nothing was erased.
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
    """Write `pattern` over the whole medium, beginning anew with each block."""
    size = lu.geometry.size
    block = (pattern * (lu.block_size // len(pattern) + 1))[: lu.block_size]
    piece = memoryview(block * (min(size, _BYTES_AT_ONCE) // lu.block_size))
    for offset in range(0, size, _BYTES_AT_ONCE):
        length = min(_BYTES_AT_ONCE, size - offset)
        yield Write(offset, [piece[:length]])
        erasure.done += length
