"""Reading the data of a ROD token, on this unit or another one.

The block lengths of the two units may differ, so a read need not begin or end with a block.
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
"""The requested ROD TYPE, and the one that the token gets."""


@dataclass(slots=True)
class TokenSource:
    """A token that is being read.

    Attributes:
        place: The unit that it belongs to.
        token: Its record.
        position: Bytes of it that have been read.
    """

    place: Place
    token: Token
    position: int = 0

    def fill(self, into: memoryview) -> Generator[BlockOp, BlockResult, int]:
        """Read the next bytes of the token; return their number, 0 at its end."""
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
            yield self.place.route(Read(extent.offset, [into]))
        else:
            around = memoryview(bytearray(cover))
            yield self.place.route(Read(extent.offset - head, [around]))
            into[:] = around[head : head + extent.length]


def find_source(lu: LogicalUnit, value: bytes) -> TokenSource:
    """Return the source for the 512 bytes of a token.

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
