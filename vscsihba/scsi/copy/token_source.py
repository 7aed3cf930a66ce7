"""Reading what a ROD token stands for, here or on another unit.

Block lengths of the two units may differ: what is read need not begin or end with a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.block import Read
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.copy.manager import Place, find_unit
from vscsihba.scsi.copy.tokens import (
    CHANGE_VULNERABLE,
    POINT_IN_TIME_ANY,
    POINT_IN_TIME_DEFAULT,
    Token,
    creator,
    rod_type,
)
from vscsihba.scsi.sense import CheckCondition, illegal_request

if TYPE_CHECKING:
    from collections.abc import Generator

    from vscsihba.block import BlockOp, BlockResult, Extent
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background

MADE_TYPES = {
    POINT_IN_TIME_DEFAULT: POINT_IN_TIME_DEFAULT,
    CHANGE_VULNERABLE: CHANGE_VULNERABLE,
    POINT_IN_TIME_ANY: CHANGE_VULNERABLE,
}
"""ROD TYPE asked for, and the one that the token gets."""


@dataclass(slots=True)
class TokenSource:
    """A token that is being read.

    Attributes:
        place: The unit that it belongs to.
        token: What it stands for.
        position: How much of it has been read, in bytes.
    """

    place: Place
    token: Token
    position: int = 0

    def fill(self, into: memoryview) -> Generator[BlockOp, BlockResult, int]:
        """Read on, as far as there is room and data; return the number of bytes."""
        filled = 0
        self.place.check(0, writing=False)
        for part in self.token.slices(self.position, len(into)):
            yield from self._read(part, into[filled : filled + part.length])
            filled += part.length
        self.position += filled
        self.token.check()
        return filled

    def _read(self, extent: Extent, into: memoryview) -> Background:
        """Read bytes that need not begin or end with a block of the unit."""
        size = self.place.unit.block_size
        head = extent.offset % size
        cover = -(-(head + extent.length) // size) * size
        if cover == extent.length:
            yield self.place.there(Read(extent.offset, [into]))
        else:
            around = memoryview(bytearray(cover))
            yield self.place.there(Read(extent.offset - head, [around]))
            into[:] = around[head : head + extent.length]


def find_source(lu: LogicalUnit, value: bytes) -> TokenSource:
    """Return what a token stands for.

    Raises:
        CheckCondition: INVALID TOKEN OPERATION.
    """
    if rod_type(value) not in MADE_TYPES:
        raise illegal_request(Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
    try:
        unit, lun = find_unit(lu, creator(value))
    except CheckCondition as condition:
        raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN) from condition
    return TokenSource(Place(unit, lun, 0), unit.tokens.find(value, unit.timestamp.clock()))
