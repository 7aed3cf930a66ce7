"""READ DEFECT DATA and REASSIGN BLOCKS, for a medium without defect lists."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Read, Write
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.ranges import check_range
from vscsihba.scsi.response import GOOD, Response, Steps, data_in
from vscsihba.scsi.sense import CheckCondition, SenseKey, illegal_request

if TYPE_CHECKING:
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit


def read_defect_data(_lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """READ DEFECT DATA(10), (12): SBC-4; the requested lists are empty."""
    flags = cdb["req_plist"] << 4 | cdb["req_glist"] << 3 | cdb["defect_list_format"]
    no_defects = bytes(2 if cdb.command.length == 10 else 6)
    return data_in(buffer, bytes([0, flags]) + no_defects, cdb["allocation_length"])


def reassign_blocks(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """REASSIGN BLOCKS: SBC-4; a readable block stays as it is, an unreadable one becomes zeroes.

    All addresses are checked before the first block is read.
    """
    extents = [check_range(lu, lba, 1) for lba in _addresses(cdb, buffer)]
    for extent in extents:
        block = [memoryview(bytearray(extent.length))]
        try:
            yield Read(extent.offset, block)
        except CheckCondition as condition:
            if condition.sense.key is not SenseKey.MEDIUM_ERROR:
                raise
            yield Write(extent.offset, [memoryview(bytes(extent.length))], fua=lu.write_through)
    return GOOD


def _addresses(cdb: Cdb, buffer: Buffer) -> list[int]:
    """Decode the defective LBA list (SBC-4 "REASSIGN BLOCKS parameter list")."""
    if buffer.length < 4:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    header = buffer.gather(0, 4)
    length = int.from_bytes(header if cdb["longlist"] else header[2:], "big")
    size = 8 if cdb["longlba"] else 4
    if length > buffer.length - 4 or length % size:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return [lba for (lba,) in struct.iter_unpack(">Q" if size == 8 else ">I", buffer.gather(4, length))]
