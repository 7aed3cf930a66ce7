"""ROD tokens: names for data, which an initiator passes from one unit to another.

A token represents the contents of ranges of blocks at its creation (SPC-5 "point in time copy").
No data is copied for that: a change of the data revokes the token, which the standard
allows and initiators expect. Knows bytes and ranges, no command.
"""

from __future__ import annotations

import secrets
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.block import CryptoErase, Extent, Unmap, Write, WriteZeroes
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import illegal_request

if TYPE_CHECKING:
    from vscsihba.block import MediumOp

POINT_IN_TIME_DEFAULT = 0x00800000
CHANGE_VULNERABLE = 0x00800001
POINT_IN_TIME_ANY = 0x0080FFFF
BLOCK_DEVICE_ZERO = 0xFFFF0001
"""ROD TYPE, SPC-5 "ROD types" and SBC-4 "Block device zero ROD token"."""

TOKEN_LENGTH = 512
_MOST_TOKENS = 64


@dataclass(slots=True)
class Token:
    """The record of one token.

    Attributes:
        kind: ROD TYPE.
        ranges: The bytes, in order.
        expires: End of its validity, in milliseconds of the unit's clock.
        revoked: Its data has changed.
    """

    kind: int
    ranges: tuple[Extent, ...]
    expires: int
    revoked: bool = False

    @property
    def size(self) -> int:
        """Bytes that it represents."""
        return sum(one.length for one in self.ranges)

    def touches(self, extent: Extent) -> bool:
        """Return whether it represents any byte of `extent`."""
        return any(one.offset < extent.end and extent.offset < one.end for one in self.ranges)

    def slices(self, start: int, length: int) -> list[Extent]:
        """Return the extents of its bytes from `start` on, `length` bytes or fewer at its end."""
        extents = []
        for one in self.ranges:
            part = Extent(one.offset + start, min(one.length - start, length))
            if part.length > 0:
                extents.append(part)
                length -= part.length
            start = max(0, start - one.length)
        return extents

    def check(self) -> None:
        """Check that its data has not changed.

        Raises:
            CheckCondition: TOKEN REVOKED.
        """
        if self.revoked:
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED)


class Tokens:
    """The tokens that a logical unit has made; the oldest are dropped."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[bytes, Token] = OrderedDict()

    def __bool__(self) -> bool:
        return any(not token.revoked for token in self._tokens.values())

    def add(self, naa: bytes, token: Token) -> bytes:
        """Add a token; return its 512 bytes (SPC-5 "ROD token format").

        Args:
            naa: NAA designator of the unit.
            token: Its record.
        """
        identifier = secrets.token_bytes(8)
        self._tokens[identifier] = token
        while len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        descriptor = struct.pack(">B3xBBxB", 0xE4, 0x01, 0x03, len(naa)) + naa
        head = struct.pack(">I2xH8s", token.kind, TOKEN_LENGTH - 8, identifier)
        return (head + descriptor.ljust(32, b"\0") + token.size.to_bytes(16, "big")).ljust(
            TOKEN_LENGTH, b"\0"
        )

    def find(self, value: bytes, now: int) -> Token:
        """Return the record of a token.

        Args:
            value: The 512 bytes of the token.
            now: Milliseconds of the unit's clock.

        Raises:
            CheckCondition: The token is unknown, expired or revoked.
        """
        token = self._tokens.get(value[8:16])
        if token is None:
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
        if now > token.expires:
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
        token.check()
        return token

    def delete(self, value: bytes) -> None:
        """Drop a token."""
        self._tokens.pop(value[8:16], None)

    def drop_expired(self, now: int) -> None:
        """Drop the tokens that have expired at `now`, milliseconds of the unit's clock."""
        for identifier in [one for one, token in self._tokens.items() if now > token.expires]:
            del self._tokens[identifier]

    def notice(self, operation: MediumOp) -> None:
        """Revoke the tokens whose data `operation` is about to change."""
        extent = _changed(operation)
        if extent is not None:
            for token in self._tokens.values():
                token.revoked = token.revoked or token.touches(extent)


def _changed(operation: MediumOp) -> Extent | None:
    """Return the extent that an operation changes, None if it changes nothing."""
    match operation:
        case Write(offset, views):
            return Extent(offset, sum(map(len, views)))
        case Unmap(extent) | WriteZeroes(extent):
            return extent
        case CryptoErase():
            return Extent(0, 1 << 64)
        case _:
            return None


def rod_type(value: bytes) -> int:
    """Return the ROD TYPE of a token."""
    return int.from_bytes(value[:4], "big")


def creator(value: bytes) -> bytes:
    """Return the NAA of the unit that made a token."""
    return value[24 : 24 + min(value[23], 20)]
