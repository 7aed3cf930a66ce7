"""READ, WRITE and SYNCHRONIZE CACHE: data between the medium and the initiator.

The data is never copied: block operations get views of the task's own buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Extent, Flush, Read, Write
from vscsihba.scsi.block.ranges import check_data_out, check_range, rest_or_range, transfer_range
from vscsihba.scsi.response import GOOD, Background, Response, Steps, answered, deferring, moved

if TYPE_CHECKING:
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def read(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """READ(6), (10), (12), (16), (32): SBC-4.

    With FUA, the blocks come from the medium: a volatile cache is flushed first.
    """
    extent = transfer_range(lu, cdb)
    length = min(extent.length, buffer.length)
    if length and cdb.get("fua") and lu.capabilities.flush:
        yield Flush()
    whole = length - length % lu.block_size
    if whole:
        yield Read(extent.offset, buffer.views if whole == buffer.length else buffer.take(0, whole))
    if length > whole:
        # The initiator's buffer ends within a block, and handlers read whole blocks only.
        last = memoryview(bytearray(lu.block_size))
        yield Read(extent.offset + whole, [last])
        buffer.scatter(last, whole)
    lu.stats.read_bytes += length
    return moved(length)


def write(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """WRITE(6), (10), (12), (16), (32): SBC-4."""
    extent = transfer_range(lu, cdb)
    check_data_out(buffer, extent.length)
    yield from store(lu, extent, buffer, fua=bool(cdb.get("fua")))
    return GOOD


def write_atomic(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """WRITE ATOMIC(16), (32): SBC-4; one block operation, which the medium does wholly or not at all.

    The table refuses an atomic boundary, at which the write might be split.
    """
    if cdb["blocks"] > lu.limits.atomic_blocks:
        check_range(lu, cdb["lba"], cdb["blocks"])
        raise cdb.invalid("blocks")
    return write(lu, cdb, buffer)


def store(lu: LogicalUnit, extent: Extent, buffer: Buffer, *, fua: bool) -> Background:
    """Write the head of `buffer` to `extent`, through a volatile cache if WCE=0 or `fua`."""
    if extent.length:
        yield Write(extent.offset, buffer.take(0, extent.length), fua=fua or lu.write_through)
        lu.stats.write_bytes += extent.length


def synchronize_cache(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """SYNCHRONIZE CACHE(10), (16): SBC-4; the whole cache is flushed, not only the range of the CDB."""
    rest_or_range(lu, cdb)
    return flush(lu, later=bool(cdb["immed"]))


def flush(lu: LogicalUnit, *, later: bool) -> Response | Steps:
    """Flush the cache before the status, or `later`, with a failure as a deferred error.

    Initiators may ignore that, so the next flush reports it too (`vscsihba.scsi.failed_flush`).
    """
    return Response(background=deferring(lu.defer, _flush())) if later else answered(_flush())


def _flush() -> Background:
    yield Flush()
