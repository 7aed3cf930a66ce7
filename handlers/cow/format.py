"""The overlay format: a map of clusters in a sparse file that a crash cannot damage.

    byte 0     superblock: the header, as JSON (see `superblock`)
    byte 8192  group 0: map block   4096 bytes: 8 sectors (see `sectors`), the states of 4032 clusters
                        clusters    4032 of them, each `cluster_size` bytes, most of them holes
               group 1: ...

A cluster of the disk has one fixed place, so there is no allocation table: the sparse
file is the allocator. What says whether that place counts is one byte in the map, its
state.

This module computes places and turns the header into bytes and back; it does no I/O.
"""

import uuid

import msgspec

from vscsihba.errors import HostError
from vscsihba.handlers.shared import sectors, superblock

MAGIC = b"VSCSICOW"
VERSION = 2
_KNOWN = (1, 2)
"""Version 2 has `map_uuid` and `clearing`; a file of version 1 becomes one when it is opened for writing."""
SECTORS_PER_GROUP = 8
PER_GROUP = sectors.PER_SECTOR * SECTORS_PER_GROUP
MAP_BLOCK = sectors.SECTOR * SECTORS_PER_GROUP
FIRST_CLUSTER = superblock.END + MAP_BLOCK
"""Byte offset of cluster 0: each group before a cluster adds the block of its map."""
OPTIMAL_IO = 1 << 20
"""Optimal transfer length of a disk with overlays in bytes, a multiple of every cluster size.

Linux sends no longer commands than a disk calls optimal (``sd_revalidate_disk`` in ``drivers/scsi/sd.c``), so
one cluster would be too little."""

BASE, DATA, ZERO = 0, 1, 2
"""States of a cluster: as the base has it; as stored here; all zeroes."""
LOST = 3
"""A state in memory only: stored here since the last flush, and the one after that has failed."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The header of an overlay.

    Attributes:
        version: Of this format.
        uuid: Names the overlay, wherever its file goes.
        size: Capacity of the disk in bytes.
        cluster_size: Bytes of a cluster.
        base: Identity of the layer below.
        base_size: Its size in bytes.
        base_digest: Hash of samples of its content.
        committing: A commit into the base has begun and not ended.
        session: Names what a killed process may have left in `tmpfs_store`.
        map_uuid: The uuid that the checksums of the map cover; empty if that is `uuid`.
        clearing: No cluster is stored, whatever the map says: forgetting them was begun and not ended.
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
    map_uuid: str = ""
    clearing: bool = False

    @property
    def map_name(self) -> str:
        """The name that the checksums of the map cover."""
        return self.map_uuid or self.uuid

    @property
    def clusters(self) -> int:
        """Clusters of the disk; the last one may be cut short by its end."""
        return -(-self.size // self.cluster_size)


def encode_header(header: Header) -> bytes:
    """Return the text of the superblock."""
    return msgspec.json.encode(header)


def decode_header(text: bytes) -> Header:
    """Return the header in the text of the superblock.

    Raises:
        HostError: It is of a version that is not known here.
    """
    fields = msgspec.json.decode(text)
    if fields.get("version") not in _KNOWN:
        raise HostError(
            f"the overlay is of version {fields.get('version')}, known is {VERSION}",
            cure="open it with a newer release",
        )
    return msgspec.convert({**fields, "version": VERSION}, Header)


def place_of_sector(number: int, cluster_size: int) -> int:
    """Return the byte offset of map sector `number` in the file."""
    group, within = divmod(number, SECTORS_PER_GROUP)
    return superblock.END + group * _stride(cluster_size) + within * sectors.SECTOR


def place_of(offset: int, cluster_size: int) -> int:
    """Return the offset in the file of byte `offset` of the disk, where its cluster is stored."""
    return offset + FIRST_CLUSTER + offset // (PER_GROUP * cluster_size) * MAP_BLOCK


def file_size(clusters: int, cluster_size: int) -> int:
    """Return the bytes of a file with so many clusters."""
    return place_of((clusters - 1) * cluster_size, cluster_size) + cluster_size


def _stride(cluster_size: int) -> int:
    return MAP_BLOCK + PER_GROUP * cluster_size
