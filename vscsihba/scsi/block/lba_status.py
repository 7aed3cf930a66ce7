"""GET LBA STATUS: the provisioning status of blocks."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.block import Extent, Extents
from vscsihba.scsi.block.ranges import check_range
from vscsihba.scsi.response import Steps, data_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from vscsihba.block import BlockOp, BlockResult, Buffer, ExtentStatus
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

MAPPED, DEALLOCATED = 0, 1
"""PROVISIONING STATUS, SBC-4 "LBA status descriptor"."""

_ROOM_USED_UP, _AT_THE_END = 0b001, 0b011
"""COMPLETION CONDITION."""

_MOST_DESCRIPTORS = 512
_MOST_BLOCKS = 0xFFFFFFFF


def get_lba_status(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """GET LBA STATUS(16): SBC-4; as many runs as fit; REPORT TYPE is ignored (RTP=0)."""
    lba = cdb["lba"]
    check_range(lu, lba, 1)
    room = max(1, min((cdb["allocation_length"] - 8) // 16, _MOST_DESCRIPTORS))
    runs: list[list[int]] = []
    while lba < lu.blocks:
        for status, blocks in (yield from _statuses(lu, lba)):
            if runs and runs[-1][1] == status and runs[-1][0] + blocks <= _MOST_BLOCKS:
                runs[-1][0] += blocks
            else:
                runs.append([blocks, status])
            lba += blocks
        if len(runs) > room:
            break
    payload = bytearray()
    start = cdb["lba"]
    for blocks, status in runs[:room]:
        payload += struct.pack(">QIB3x", start, blocks, status)
        start += blocks
    condition = _AT_THE_END if start == lu.blocks else _ROOM_USED_UP
    header = struct.pack(">I3xB", len(payload) + 4, condition << 1)
    return data_in(buffer, header + payload, cdb["allocation_length"])


def _statuses(lu: LogicalUnit, lba: int) -> Generator[BlockOp, BlockResult, list[tuple[int, int]]]:
    """Return status and number of blocks of each run, from `lba` on."""
    size = lu.block_size
    most = min(lu.blocks - lba, _MOST_BLOCKS)
    if not lu.capabilities.extents:
        return [(MAPPED, most)]
    answer = yield Extents(Extent(lba * size, most * size))
    extents = answer if isinstance(answer, list) else []
    return _whole_blocks(extents, lba, size) or [(MAPPED, 1)]


def _whole_blocks(extents: list[ExtentStatus], lba: int, size: int) -> list[tuple[int, int]]:
    """Cut byte extents to blocks from `lba` on: a block is deallocated only if all its bytes are."""
    runs = []
    for status in extents:
        end = -(-status.extent.end // size) if status.allocated else status.extent.end // size
        if end > lba:
            runs.append((MAPPED if status.allocated else DEALLOCATED, end - lba))
            lba = end
    return runs
