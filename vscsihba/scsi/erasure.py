"""Erasing a whole medium: what FORMAT UNIT and SANITIZE have in common.

While it runs, the unit's readiness says so, with progress; the work is done in pieces,
so that progress moves and other units of the host are served in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Extent, Flush, Write, WriteZeroes
from vscsihba.scsi.response import Background, Response, Steps, answered, quietly
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey

if TYPE_CHECKING:
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.readiness import Erasure

_ZEROES_AT_ONCE = 64 << 20
_BYTES_AT_ONCE = 1 << 20


def erase(lu: LogicalUnit, erasure: Erasure, work: Background, *, immed: bool) -> Response | Steps:
    """Do `work` on the whole medium, before the status or after it.

    From here on until the end the medium is not ready; after a failure it stays so, and every
    command will learn of it. An end of the engine is a failure too: so the unit keeps a note.

    Raises:
        OSError: The note cannot be kept; nothing was erased.
    """
    before, lu.readiness.erasure = lu.readiness.erasure, erasure
    try:
        lu.save()
    except OSError:
        lu.readiness.erasure = before
        raise
    lu.refresh()
    job = _job(lu, erasure, work)
    return Response(background=quietly(job)) if immed else answered(job)


def _job(lu: LogicalUnit, erasure: Erasure, work: Background) -> Background:
    try:
        yield from work
        yield Flush()
    except CheckCondition as condition:
        erasure.failed = True
        raise CheckCondition(Sense(SenseKey.MEDIUM_ERROR, erasure.failure)) from condition
    lu.readiness.erasure = None
    lu.refresh()
    lu.save()


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
