"""The overlay format: how a map of clusters lies in a sparse file, so that a crash cannot hurt it.

    byte 0     header slot 0        4096 bytes
    byte 4096  header slot 1        4096 bytes
    byte 8192  group 0: map block   4096 bytes, the state of 4032 clusters
                        clusters    4032 of them, each `cluster_size` bytes, most of them holes
               group 1: ...

A cluster of the disk has one fixed place, so there is no allocation table: the sparse
file is the allocator. What says whether that place counts is one byte in the map, its
state. The states are kept in sectors of 512 bytes, which a disk writes whole or not at
all, each with its number and a checksum, and every sector is written when the file is
made: one that is all zeroes is damaged, too.

A header is replaced by writing the slot that does not hold the newest one, so that one
of them is always whole. It is JSON after 24 bytes of ``magic, crc32, length, sequence``.

This module turns bytes into headers and states and back; it does no I/O.
"""

import struct
import uuid
import zlib

import msgspec

from vscsihba.errors import HostError

MAGIC = b"VSCSICOW"
VERSION = 1
SLOT = 4096
SLOTS = 2
SECTOR = 512
PER_SECTOR = SECTOR - 8
SECTORS_PER_GROUP = 8
PER_GROUP = PER_SECTOR * SECTORS_PER_GROUP
MAP_BLOCK = SECTOR * SECTORS_PER_GROUP

BASE, DATA, ZERO = 0, 1, 2
"""States of a cluster: as the base has it; as stored here; all zeroes."""

_SLOT_HEAD = struct.Struct("<8sIIQ")
_SECTOR_HEAD = struct.Struct("<II")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What an overlay says of itself.

    Attributes:
        version: Of this format.
        uuid: Names the overlay, wherever its file goes.
        size: Capacity of the disk in bytes.
        cluster_size: Bytes of a cluster.
        base: Identity of the layer below.
        base_size: Its size in bytes.
        base_digest: Hash of samples of its content.
        committing: A commit into the base has begun and not ended.
        session: Names what a killed process may have left in `surviving`.
    """

    version: int = VERSION
    uuid: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    size: int
    cluster_size: int
    base: str
    base_size: int
    base_digest: str
    committing: bool = False
    session: str = ""

    @property
    def clusters(self) -> int:
        """Clusters of the disk; the last one may be cut short by its end."""
        return -(-self.size // self.cluster_size)


def encode_slot(header: Header, sequence: int) -> bytes:
    """Return the slot that holds `header` as the `sequence`-th one.

    Raises:
        HostError: It is too long, which only a very long identity of a base can cause.
    """
    text = msgspec.json.encode(header)
    if len(text) > SLOT - _SLOT_HEAD.size:
        raise HostError("the base has too long a name for an overlay", cure="use a shorter path")
    rest = struct.pack("<IQ", len(text), sequence) + text
    return (MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest).ljust(SLOT, b"\0")


def decode_slot(slot: bytes) -> tuple[int, Header] | None:
    """Return sequence and header of a slot, None if it is not whole.

    Raises:
        HostError: It is whole, and of a version that is not known here.
    """
    if len(slot) < SLOT:
        return None
    magic, crc, length, sequence = _SLOT_HEAD.unpack_from(slot)
    end = _SLOT_HEAD.size + length
    if magic != MAGIC or end > len(slot) or zlib.crc32(slot[12:end]) != crc:
        return None
    fields = msgspec.json.decode(slot[_SLOT_HEAD.size : end])
    if fields.get("version") != VERSION:
        raise HostError(
            f"the overlay is of version {fields.get('version')}, known is {VERSION}",
            cure="open it with a newer release",
        )
    return sequence, msgspec.convert(fields, Header)


def encode_sector(number: int, states: bytes | bytearray | memoryview, overlay: str) -> bytes:
    """Return map sector `number` of the overlay whose uuid is `overlay`, with up to 504 states."""
    body = bytes(states).ljust(PER_SECTOR, b"\0")
    return _SECTOR_HEAD.pack(_checksum(number, body, overlay), number & 0xFFFFFFFF) + body


def decode_sector(number: int, sector: bytes, overlay: str) -> bytes | None:
    """Return the 504 states of map sector `number`, None if it is damaged or misplaced."""
    crc, found = _SECTOR_HEAD.unpack_from(sector)
    body = sector[_SECTOR_HEAD.size :]
    if found != number & 0xFFFFFFFF or crc != _checksum(number, body, overlay) or max(body) > ZERO:
        return None
    return body


def place_of_sector(number: int, cluster_size: int) -> int:
    """Return the byte offset of map sector `number` in the file."""
    group, within = divmod(number, SECTORS_PER_GROUP)
    return SLOT * SLOTS + group * _stride(cluster_size) + within * SECTOR


def place_of_cluster(number: int, cluster_size: int) -> int:
    """Return the byte offset of cluster `number` in the file."""
    group, within = divmod(number, PER_GROUP)
    return SLOT * SLOTS + group * _stride(cluster_size) + MAP_BLOCK + within * cluster_size


def file_size(clusters: int, cluster_size: int) -> int:
    """Return the bytes of a file with so many clusters."""
    return place_of_cluster(clusters - 1, cluster_size) + cluster_size


def _stride(cluster_size: int) -> int:
    return MAP_BLOCK + PER_GROUP * cluster_size


def _checksum(number: int, body: bytes, overlay: str) -> int:
    return zlib.crc32(body, zlib.crc32(f"{overlay}:{number}".encode()))
