"""Ranges of logical blocks: checks, and conversion to bytes.

All code behind it counts in bytes. Knows no command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Extent
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey, illegal_request

if TYPE_CHECKING:
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def check_range(lu: LogicalUnit, lba: int, blocks: int) -> Extent:
    """Return the bytes of `blocks` logical blocks from `lba` on.

    Raises:
        CheckCondition: LOGICAL BLOCK ADDRESS OUT OF RANGE: the range ends beyond the capacity;
            INFORMATION is the first invalid LBA (SBC-4 "Error reporting").
    """
    if lba + blocks > lu.blocks:
        raise _out_of_range(lu, lba)
    return Extent(lba * lu.block_size, blocks * lu.block_size)


def _out_of_range(lu: LogicalUnit, lba: int) -> CheckCondition:
    information = max(lba, lu.blocks)
    out_of_range = Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    return CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, out_of_range, information=information))


def transfer_range(lu: LogicalUnit, cdb: Cdb) -> Extent:
    """Return the bytes that a CDB transfers; in READ(6) and WRITE(6), 0 blocks mean 256.

    Raises:
        CheckCondition: The range ends beyond the capacity, or exceeds MAXIMUM TRANSFER LENGTH
            (SBC-4 "Block Limits VPD page").
    """
    lba, blocks = cdb["lba"], cdb["blocks"]
    if not blocks and cdb.command.length == 6:
        blocks = 256
    if lba + blocks > lu.blocks:
        raise _out_of_range(lu, lba)
    if blocks > lu.max_transfer_blocks:
        raise cdb.invalid("blocks")
    return Extent(lba * lu.block_size, blocks * lu.block_size)


def rest_or_range(lu: LogicalUnit, cdb: Cdb) -> Extent:
    """Return the bytes of the range in a CDB, in which 0 blocks mean all up to the end.

    Raises:
        CheckCondition: The range ends beyond the capacity.
    """
    return check_range(lu, cdb["lba"], cdb["blocks"] or max(0, lu.blocks - cdb["lba"]))


def check_data_out(buffer: Buffer, length: int, *, exact: bool = False) -> None:
    """Check that a command came with at least `length` bytes of data-out, or with exactly as many.

    The CDB is right in itself; the length that the transport was told is wrong (FCP-4 "FCP_DL field",
    which allows this error or a partial transfer; a partial write helps no initiator).

    Raises:
        CheckCondition: INVALID FIELD IN COMMAND INFORMATION UNIT.
    """
    if buffer.length < length or (exact and buffer.length != length):
        raise illegal_request(Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)
