"""Sectors of a map of bytes, with checksums so that damage is noticed.

A disk writes 512 bytes whole or not at all. So each sector has its own number and checksum,
the checksum covers the name of the file too, and a sector that was never written is
damaged, not empty.
"""

import struct
import zlib

SECTOR = 512
_HEAD = struct.Struct("<II")
PER_SECTOR = SECTOR - _HEAD.size
"""Bytes of the map in one sector."""


def encode(number: int, states: bytes | bytearray, name: str) -> bytes:
    """Return sector `number` of the map of the file called `name`, with up to 504 bytes of it."""
    body = bytes(states).ljust(PER_SECTOR, b"\0")
    return _HEAD.pack(_checksum(number, body, name), number & 0xFFFFFFFF) + body


def decode(number: int, sector: bytes, name: str) -> bytes | None:
    """Return the 504 bytes of sector `number`, None if it is damaged or misplaced."""
    crc, stored = _HEAD.unpack_from(sector)
    body = sector[_HEAD.size :]
    if stored != number & 0xFFFFFFFF or crc != _checksum(number, body, name):
        return None
    return body


def _checksum(number: int, body: bytes, name: str) -> int:
    return zlib.crc32(body, zlib.crc32(f"{name}:{number}".encode()))
