"""UNMAP and WRITE SAME: many blocks changed by a command with little data.

Where the data is zeroes, the medium is asked to zero or deallocate instead of being sent them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Extent, Unmap, Write, WriteZeroes
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.ranges import check_data_out, check_range
from vscsihba.scsi.response import GOOD, Background, Steps
from vscsihba.scsi.sense import illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

_DESCRIPTOR = struct.Struct(">QI4x")
"""UNMAP block descriptor: LBA and number of blocks."""

_PIECE = 1 << 20
"""Bytes of a repeated pattern written at once."""


def unmap(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """UNMAP: SBC-4; all descriptors are checked before the first block is deallocated.

    Adjacent descriptors are merged, since storage is freed in units larger than a block.
    """
    length = cdb["parameter_list_length"]
    if not length:
        return GOOD
    if length < 8 or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    for extent in _unmap_extents(lu, buffer.gather(0, length)):
        yield Unmap(extent)
    return GOOD


def _unmap_extents(lu: LogicalUnit, parameters: bytes) -> list[Extent]:
    """Decode the parameter list; a descriptor that is cut short is ignored (SBC-4 "UNMAP parameter list")."""
    length = min(int.from_bytes(parameters[2:4], "big"), len(parameters) - 8)
    length -= length % _DESCRIPTOR.size
    if length // _DESCRIPTOR.size > lu.limits.unmap_descriptors:
        raise invalid_parameter(2)
    extents: list[Extent] = []
    total = 0
    for at in range(8, 8 + length, _DESCRIPTOR.size):
        lba, blocks = _DESCRIPTOR.unpack_from(parameters, at)
        total += blocks
        if total > lu.limits.unmap_blocks:
            raise invalid_parameter(at + 8)
        extent = check_range(lu, lba, blocks)
        if extents and extents[-1].end == extent.offset:
            extents[-1] = Extent(extents[-1].offset, extents[-1].length + extent.length)
        elif blocks:
            extents.append(extent)
    return extents


def write_same(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """WRITE SAME(10), (16), (32): SBC-4.

    With UNMAP, storage may be freed where the result reads the same; a medium that
    cannot free storage refuses the bit. The table refuses ANCHOR: anchored blocks are not supported.
    0 blocks do not mean "up to the end" (WSNZ=1): that would usually exceed the limit, and
    libiscsi's WriteSame10.UnmapUntilEnd expects the blocks to read as zeroes after a pattern of
    FFh, which SBC-4 ("WRITE SAME command and unmap operations") forbids.
    """
    if cdb["unmap"] and not lu.capabilities.unmap:
        raise cdb.invalid("unmap")
    extent = check_range(lu, cdb["lba"], cdb["blocks"])
    if not extent.length or extent.length > lu.limits.write_same_blocks * lu.block_size:
        raise cdb.invalid("blocks")
    pattern = bytes(lu.block_size)
    if not cdb.get("ndob"):
        check_data_out(buffer, lu.block_size, exact=True)
        pattern = buffer.gather()
    if any(pattern):
        yield from fill(lu, extent, pattern)
    else:
        yield WriteZeroes(extent, may_unmap=bool(cdb["unmap"]), fua=lu.write_through)
    return GOOD


def fill(lu: LogicalUnit, extent: Extent, pattern: bytes) -> Background:
    """Fill `extent` with `pattern`, one block."""
    piece = memoryview(pattern * (min(extent.length, _PIECE) // len(pattern)))
    for offset in range(extent.offset, extent.end, _PIECE):
        yield Write(offset, [piece[: extent.end - offset]], fua=lu.write_through)
