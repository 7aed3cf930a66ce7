"""ROD tokens: names for data, that an initiator hands from one unit to another.

Ours are of the type "access upon reference": a token stands for ranges of blocks, and
whoever uses it gets what they hold by then. Knows bytes and ranges, no command.
"""

from __future__ import annotations

import secrets
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import illegal_request

if TYPE_CHECKING:
    from vscsihba.block import Extent

ACCESS_UPON_REFERENCE = 0x00010000
BLOCK_DEVICE_ZERO = 0xFFFF0001
"""ROD TYPE, SPC-5 "ROD types" and SBC-4."""

TOKEN_LENGTH = 512
_MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Token:
    """What a token stands for.

    Attributes:
        ranges: The bytes, in order.
        expires: When it is no longer valid, in milliseconds of the unit's clock.
    """

    ranges: tuple[Extent, ...]
    expires: int


class Tokens:
    """The tokens that a logical unit has given out; the oldest are dropped."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[bytes, Token] = OrderedDict()

    def add(self, naa: bytes, token: Token) -> bytes:
        """Remember a token; return the 512 bytes that stand for it (SPC-5 "ROD token format").

        Args:
            naa: The unit that it belongs to.
            token: What it stands for.
        """
        identifier = secrets.token_bytes(8)
        self._tokens[identifier] = token
        while len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        descriptor = struct.pack(">BB2xBBxB", 0xE4, 0, 0x01, 0x03, len(naa)) + naa
        size = sum(one.length for one in token.ranges)
        head = struct.pack(">I2xH8s", ACCESS_UPON_REFERENCE, TOKEN_LENGTH - 8, identifier)
        return (head + descriptor.ljust(32, b"\0") + size.to_bytes(16, "big")).ljust(TOKEN_LENGTH, b"\0")

    def find(self, value: bytes, now: int) -> Token:
        """Return what 512 bytes stand for.

        Args:
            value: The token.
            now: Milliseconds of the unit's clock.

        Raises:
            CheckCondition: Nobody knows the token, or it has expired.
        """
        token = self._tokens.get(value[8:16])
        if token is None:
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
        if now > token.expires:
            del self._tokens[value[8:16]]
            raise illegal_request(Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
        return token

    def delete(self, value: bytes) -> None:
        """Forget a token."""
        self._tokens.pop(value[8:16], None)


def rod_type(value: bytes) -> int:
    """Return the ROD TYPE of a token."""
    return int.from_bytes(value[:4], "big")


def creator(value: bytes) -> bytes:
    """Return the NAA of the unit that made a token."""
    return value[24 : 24 + min(value[23], 20)]
