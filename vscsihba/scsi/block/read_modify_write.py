"""COMPARE AND WRITE and ORWRITE: commands that read the medium to decide what to write.

The opcode table marks them exclusive: the engine runs them alone on the logical unit, which makes
them atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Read, Write
from vscsihba.scsi.block.ranges import check_data_out, check_range, transfer_range
from vscsihba.scsi.block.read_write import store
from vscsihba.scsi.block.verify import first_difference, miscompare
from vscsihba.scsi.response import GOOD, Steps

if TYPE_CHECKING:
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def compare_and_write(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """COMPARE AND WRITE: SBC-4; the data-out is the expected data, then as much new data.

    After a miscompare, INFORMATION is the byte offset of the first difference. More data-out than the CDB
    says is refused: in the 8 bits of its number of blocks, 256 appear as 0.
    """
    extent = check_range(lu, cdb["lba"], cdb["blocks"])
    if cdb["blocks"] > lu.limits.compare_and_write_blocks or buffer.length > 2 * extent.length:
        raise cdb.invalid("blocks")
    check_data_out(buffer, 2 * extent.length)
    if not extent.length:
        return GOOD
    stored = memoryview(bytearray(extent.length))
    yield Read(extent.offset, [stored])
    wanted = buffer.gather(0, extent.length)
    if stored != wanted:
        raise miscompare(information=first_difference(stored, wanted))
    replacement = Buffer(buffer.take(extent.length, extent.length))
    yield from store(lu, extent, replacement, fua=bool(cdb["fua"]))
    return GOOD


def orwrite(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """ORWRITE(16): SBC-4; sets on the medium all bits that are set in the data-out."""
    extent = transfer_range(lu, cdb)
    check_data_out(buffer, extent.length)
    if not extent.length:
        return GOOD
    stored = bytearray(extent.length)
    yield Read(extent.offset, [memoryview(stored)])
    bits = int.from_bytes(stored, "little") | int.from_bytes(buffer.gather(0, extent.length), "little")
    merged = memoryview(bits.to_bytes(extent.length, "little"))
    yield Write(extent.offset, [merged], fua=bool(cdb["fua"]) or lu.write_through)
    lu.stats.write_bytes += extent.length
    return GOOD
