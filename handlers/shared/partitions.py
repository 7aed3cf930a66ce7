"""Partition tables: where the partitions of a disk lie, by the numbers that Linux gives them.

Knows GPT (UEFI specification, "GUID Partition Table") with its two copies, and the MBR with its
chain of logical partitions. It reads through a handler and knows nothing of what is inside.
"""

import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.shared.vectored import read_bytes

log = logging.getLogger(__name__)

_MBR_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_MBR_ENTRY = struct.Struct("<4xB3xII")
"""Type, first block, number of blocks."""
_MOST_LOGICAL = 256

_GPT_SIGNATURE = b"EFI PART"
_GPT_HEADER = struct.Struct("<8s4xII4xQQQQ16xQIII")
"""Signature, header size, its CRC; own, other, first and last usable block; table's block, entries, size
of each, CRC of all."""
_GPT_ENTRY = struct.Struct("<16s16xQQ")
"""Type (zeroes: unused), first and last block."""
_MOST_TABLE = 1 << 20
"""Bytes of a table that somebody could have meant; 128 entries have 16 KiB."""


_BLOCK_SIZES = (512, 1024, 2048, 4096)
"""Bytes of the blocks that a table may count in."""
_Table = tuple[bytes, int]
"""The entries, and the bytes of each."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Where a partition is.

    Attributes:
        start: Its first byte.
        length: Bytes.
    """

    start: int
    length: int


def find_partition(disk: Handler, number: int) -> Partition:
    """Return where partition `number` of an open disk is; Linux counts from 1.

    Raises:
        UsageError: There is no such partition, no table, or one that cannot be believed.
        OSError: The disk cannot be read.
    """
    table = dict(partitions(disk))
    if number not in table:
        there = ", ".join(map(str, sorted(table))) or "none"
        raise UsageError(f"there is no partition {number}", cure=f"there are: {there}")
    return table[number]


def partitions(disk: Handler) -> Iterator[tuple[int, Partition]]:
    """Yield number and place of every partition of an open disk.

    Raises:
        UsageError: It has no table, or one that cannot be believed.
        OSError: It cannot be read.
    """
    mbr = _block(disk, 0)
    if mbr[510:512] != _MBR_SIGNATURE:
        raise UsageError(
            "there is no partition table (MBR or GPT)", cure='say where by "offset" and "length"'
        )
    if any(kind == _PROTECTIVE for kind, _, _ in _entries(mbr)):
        yield from _gpt(disk)
    else:
        yield from _mbr(disk, mbr)


def _mbr(disk: Handler, mbr: bytes) -> Iterator[tuple[int, Partition]]:
    """Yield the primary partitions, then the logical ones, which count from 5."""
    extended = 0
    for number, (kind, first, count) in enumerate(_entries(mbr), start=1):
        if kind and count:
            yield number, _partition(disk, first, count)
        if kind in _EXTENDED and not extended:
            extended = first
    if extended:
        yield from enumerate(_logical(disk, extended), start=5)


def _logical(disk: Handler, extended: int) -> Iterator[Partition]:
    """Yield the partitions inside the extended one, each told of by a block of its own."""
    at = extended
    for _ in range(_MOST_LOGICAL):
        if not 0 < at < disk.geometry.blocks:
            raise UsageError(f"the chain of logical partitions leaves the disk at block {at}")
        block = _block(disk, at)
        if block[510:512] != _MBR_SIGNATURE:
            return
        (kind, first, count), (link_kind, link, _), *_ = _entries(block)
        if kind and count:
            yield _partition(disk, at + first, count)
        if link_kind not in _EXTENDED or not link:
            return
        at = extended + link
    raise UsageError(f"the chain of logical partitions has more than {_MOST_LOGICAL} links")


def _entries(block: bytes) -> list[tuple[int, int, int]]:
    """Return type, first block and number of blocks of each entry in an MBR, or what looks like one."""
    return [_MBR_ENTRY.unpack_from(block, 446 + 16 * number) for number in range(4)]


def _gpt(disk: Handler) -> Iterator[tuple[int, Partition]]:
    """Yield the partitions of the first copy that is whole."""
    table, block_size = _gpt_of_some_size(disk)
    entries, size = table
    for number, at in enumerate(range(0, len(entries), size), start=1):
        kind, first, last = _GPT_ENTRY.unpack_from(entries, at)
        if any(kind) and first <= last:
            yield number, Partition(first * block_size, (last - first + 1) * block_size)


def _gpt_of_some_size(disk: Handler) -> tuple[_Table, int]:
    """Return the table and the bytes of the blocks that it counts in.

    These are the disk's own. An image of a disk with others has been made elsewhere, or is shown with
    another block size here; then the one size with which there is a table is taken.

    Raises:
        UsageError: There is no table that is whole, or there are several.
    """
    own = disk.geometry.block_size
    if (table := _gpt_of(disk, own)) is not None:
        return table, own
    tables = {size: table for size in _BLOCK_SIZES if (table := _gpt_of(disk, size)) is not None}
    if not tables:
        raise UsageError(
            "both copies of the partition table (GPT) are damaged, in blocks of "
            f"{', '.join(map(str, _BLOCK_SIZES))} bytes",
            cure='say where by "offset" and "length"',
        )
    sizes = " and ".join(map(str, tables))
    if len(tables) > 1:
        raise UsageError(
            f"there are partition tables (GPT) in blocks of {sizes} bytes",
            cure='set the "block_size" of the disk below to the right one',
        )
    log.info("%s has a partition table (GPT) in blocks of %s bytes, not %d", disk.identity, sizes, own)
    ((size, table),) = tables.items()
    return table, size


def _gpt_of(disk: Handler, block_size: int) -> _Table | None:
    """Return the first copy that is whole, if the table counts in blocks of `block_size` bytes."""
    last = disk.geometry.size // block_size - 1
    return _gpt_table(disk, 1, block_size) or _gpt_table(disk, last, block_size)


def _gpt_table(disk: Handler, lba: int, block_size: int) -> _Table | None:
    """Return the table that the header at a block tells of; None if it is not whole."""
    if not 0 < lba < disk.geometry.size // block_size:
        return None
    block = read_bytes(disk, lba * block_size, block_size)
    signature, length, checksum, own, _, _, _, place, count, size, table_checksum = _GPT_HEADER.unpack_from(
        block
    )
    if signature != _GPT_SIGNATURE or own != lba or not _GPT_HEADER.size <= length <= len(block):
        return None
    if zlib.crc32(block[:16] + bytes(4) + block[20:length]) != checksum:
        return None
    start, total = place * block_size, count * size
    if size < 128 or size % 8 or not 0 < total <= _MOST_TABLE or start + total > disk.geometry.size:
        return None
    entries = read_bytes(disk, start, total)
    return (entries, size) if zlib.crc32(entries) == table_checksum else None


def _block(disk: Handler, lba: int) -> bytes:
    return read_bytes(disk, lba * disk.geometry.block_size, disk.geometry.block_size)


def _partition(disk: Handler, first: int, count: int) -> Partition:
    return Partition(first * disk.geometry.block_size, count * disk.geometry.block_size)
