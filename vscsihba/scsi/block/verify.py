"""VERIFY and WRITE AND VERIFY: read the medium, and compare it with the data of the initiator.

Reads in pieces, so that memory is bounded for a range of any length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Buffer, Extent, Read
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.ranges import check_data_out, transfer_range
from vscsihba.scsi.block.read_write import store
from vscsihba.scsi.response import GOOD, Background, Steps
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

_PIECE = 1 << 20
"""Bytes read at once."""

MEDIUM_ONLY, COMPARE_ALL, COMPARE_ONE_BLOCK = 0b00, 0b01, 0b11
"""BYTCHK, SBC-4 "VERIFY(10) command"; 10b is reserved."""


def verify(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """VERIFY(10), (12), (16), (32): SBC-4; unmapped blocks are read as well (VBULS=1)."""
    byte_check = cdb["bytchk"]
    extent = transfer_range(lu, cdb)
    if byte_check == MEDIUM_ONLY:
        yield from read_pieces(extent, lambda _offset, _piece: None)
    elif byte_check == COMPARE_ALL:
        check_data_out(buffer, extent.length)
        yield from compare(lu, extent, buffer.gather)
    elif byte_check == COMPARE_ONE_BLOCK:
        check_data_out(buffer, lu.block_size if extent.length else 0)
        pattern = buffer.gather(0, lu.block_size) if extent.length else b""
        yield from compare(lu, extent, lambda _at, length: pattern * (length // lu.block_size))
    else:
        raise cdb.invalid("bytchk")
    lu.counters.events.verified_bytes += extent.length
    return GOOD


def write_and_verify(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """WRITE AND VERIFY(10), (12), (16), (32): SBC-4; writes through the cache, then reads back."""
    byte_check = cdb["bytchk"]
    if byte_check not in (MEDIUM_ONLY, COMPARE_ALL):
        raise cdb.invalid("bytchk")
    extent = transfer_range(lu, cdb)
    check_data_out(buffer, extent.length)
    yield from store(lu, extent, buffer, fua=True)
    if byte_check == COMPARE_ALL:
        yield from compare(lu, extent, buffer.gather)
    else:
        yield from read_pieces(extent, lambda _offset, _piece: None)
    lu.counters.events.verified_bytes += extent.length
    return GOOD


def compare(lu: LogicalUnit, extent: Extent, expected: Callable[[int, int], bytes]) -> Background:
    """Compare the medium with `expected`, called with a byte offset within `extent` and a length.

    Raises:
        CheckCondition: MISCOMPARE DURING VERIFY OPERATION, INFORMATION the LBA of the first
            block that differs.
    """

    def check(at: int, piece: memoryview) -> None:
        wanted = expected(at, len(piece))
        if piece != wanted:
            position = extent.offset + at + first_difference(piece, wanted)
            raise miscompare(information=position // lu.block_size)

    yield from read_pieces(extent, check)


def read_pieces(extent: Extent, look: Callable[[int, memoryview], None]) -> Background:
    """Read `extent` in pieces; call `look` with the byte offset within the extent and the bytes of each."""
    scratch = memoryview(bytearray(min(extent.length, _PIECE)))
    for at in range(0, extent.length, _PIECE):
        piece = scratch[: min(_PIECE, extent.length - at)]
        yield Read(extent.offset + at, [piece])
        look(at, piece)


def first_difference(one: bytes | memoryview, other: bytes | memoryview) -> int:
    """Return the first byte at which two buffers of one length differ, by bisection."""
    start, end = 0, len(one)
    while end - start > 1:
        middle = (start + end) // 2
        if one[start:middle] != other[start:middle]:
            end = middle
        else:
            start = middle
    return start


def miscompare(information: int) -> CheckCondition:
    """Return MISCOMPARE DURING VERIFY OPERATION."""
    return CheckCondition(
        Sense(SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, information=information)
    )
