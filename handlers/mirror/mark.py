"""The mark of a mirror's leg: a superblock behind the disk's data, at the end of the leg.

It lies in the last two whole slots of 4096 bytes, where md has the superblock of its format 1.0, so
the data begins at byte 0 and a leg can be used without the mirror. A mark is believed only where
it lies behind the data that it describes: bytes of the disk itself are never taken for one.

Everything here is done through the verbs of the leg's topmost handler, so a leg can be any stack. This
module knows where a mark is and whether a medium is empty, not what a mark decides.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from vscsihba.block import Extent
from vscsihba.errors import HostError, UsageError, VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.mirror.metadata import Metadata, decode, encode
from vscsihba.handlers.offset import OffsetHandler
from vscsihba.handlers.shared import superblock
from vscsihba.handlers.shared.superblock import SLOT
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

MARK = superblock.END
"""Bytes of a mark."""
_MAGIC = b"VSCSILEG"
_KIND = "mark of a mirror's leg"

_SCANNED = 64 << 20
"""Bytes of a medium up to which all of it is read to see whether it is empty."""
_EDGE = 16 << 20
_SAMPLES, _SAMPLE = 1024, 4096


@dataclass(frozen=True, slots=True)
class FoundMark:
    """Content of the place where a mark should be.

    Attributes:
        metadata: The mark's; None if there is none that can be read.
        damage: Why a mark that is there cannot be read; empty if there is none.
    """

    metadata: Metadata | None = None
    damage: str = ""


def length_with_mark(size: int) -> int:
    """Return the bytes that a leg needs for a disk of `size` bytes and its mark."""
    return -(-size // SLOT) * SLOT + MARK


def has_room(disk: Handler, size: int) -> bool:
    """Return whether a leg can carry a mark behind a disk of `size` bytes."""
    return _at_end(disk) >= length_with_mark(size) - MARK


def make_room(disk: Handler, size: int) -> bool:
    """Make a leg large enough for a disk and its mark, if it can grow; return whether it is."""
    if not has_room(disk, size):
        try:
            mark = _read(disk, _at_end(disk)).metadata if _at_end(disk) >= 0 else None
            if mark is not None:
                _store_behind(disk, mark, mark.size)
            disk.resize(length_with_mark(size))
        except (OSError, UsageError):
            return False
    return has_room(disk, size)


def read_mark(disk: Handler, sizes: Collection[int] = ()) -> FoundMark:
    """Look for the mark of a leg.

    Args:
        disk: The leg, open.
        sizes: Capacities of the disk, in bytes, behind which the mark may be: a leg that was enlarged
            since its mark was written does not have it at its end.

    Raises:
        OSError: It cannot be read.
    """
    end, beginning = _at_end(disk), length_with_mark(min(sizes, default=0)) - MARK
    places = {end, *(length_with_mark(size) - MARK for size in sizes)}
    readings = [_read(disk, at) for at in sorted(places, reverse=True) if beginning <= at <= end]
    marks = [mark.metadata for mark in readings if mark.metadata is not None]
    if marks:
        return FoundMark(max(marks, key=lambda mark: mark.event))
    return next((mark for mark in readings if mark.damage), FoundMark())


def write_mark(disk: Handler, metadata: Metadata) -> None:
    """Put a mark on stable storage; after a crash the leg has the old one or this one.

    Raises:
        OSError: It cannot be written.
    """
    window, text = _window(disk, _at_end(disk)), encode(metadata)
    try:
        mark = superblock.Superblock(window, _MAGIC, _KIND)
    except HostError:
        # There is none, or none that can be read; an old second slot must not count.
        write_bytes(window, SLOT, bytes(SLOT))
        superblock.create(window, text, _MAGIC, _KIND)
    else:
        mark.replace(text)


def erase_mark(disk: Handler) -> None:
    """Remove the mark of a leg that has left the mirror.

    Raises:
        OSError: It cannot be written.
    """
    write_bytes(disk, _at_end(disk), bytes(MARK))
    disk.flush()


def enlarge(disk: Handler, before: int, size: int) -> None:
    """Make a leg large enough for a larger disk; the new bytes become zeroes.

    The mark is at the new end, on stable storage, before the old one is overwritten: an attempt that failed
    may have left a leg that is larger, and has its mark at the old end only.

    Raises:
        OSError: The leg is too small, and cannot grow.
    """
    mark = read_mark(disk, [before]).metadata
    if not has_room(disk, size):
        if mark is not None:
            _store_behind(disk, mark, before)
        try:
            disk.resize(max(length_with_mark(size), _at_end(disk) + 2 * MARK))
        except OSError:
            if mark is not None or disk.geometry.size < size:
                raise
    if mark is not None:
        write_mark(disk, mark)
    # A leg that was larger may have anything there; a crash must not bring it back once the disk is larger.
    disk.write_zeroes(before, size - before, may_unmap=True, fua=True)


def shrink(disk: Handler, size: int) -> None:
    """Give back bytes that a smaller disk does not need, if the leg can shrink; its mark is always there.

    Raises:
        OSError: The mark cannot be written.
    """
    mark, length = read_mark(disk).metadata, length_with_mark(size)
    if mark is None or length > _at_end(disk):
        return
    window = _window(disk, length - MARK)
    write_bytes(window, SLOT, bytes(SLOT))
    superblock.create(window, encode(mark), _MAGIC, _KIND)
    with suppress(OSError, UsageError):
        disk.resize(length)


def is_empty(disk: Handler, size: int) -> bool:
    """Return whether the first `size` bytes of a leg are zeroes.

    Up to 64 MiB of allocated bytes are all read. Of more, 16 MiB at either end are read, and 4 KiB
    at each of 1024 places in between.

    Raises:
        OSError: They cannot be read.
    """
    data = list(_allocated(disk, min(size, disk.geometry.size)))
    if sum(extent.length for extent in data) <= _SCANNED:
        return all(_is_zero(disk, extent) for extent in data)
    end = min(size, disk.geometry.size)
    step = max(end // _SAMPLES // _SAMPLE * _SAMPLE, _SAMPLE)
    places = [Extent(0, _EDGE), Extent(end - _EDGE, _EDGE)]
    places += [Extent(at, _SAMPLE) for at in range(_EDGE, end - _EDGE, step)]
    return all(_is_zero(disk, extent) for extent in places)


def _at_end(disk: Handler) -> int:
    """Return where the mark of a leg begins; negative if the leg is too small for one."""
    return disk.geometry.size // SLOT * SLOT - MARK


def _store_behind(disk: Handler, mark: Metadata, size: int) -> None:
    """Put a copy of the mark right behind a disk of `size` bytes, on stable storage.

    There it is looked for, although the leg has grown and its new end has no mark yet. One that is there
    already may be the only one, and is not touched.

    Raises:
        OSError: It cannot be written.
    """
    at, end = length_with_mark(size) - MARK, _at_end(disk)
    if _read(disk, at).metadata == mark:
        return
    if end - at >= MARK:
        window = _window(disk, at)
        write_bytes(window, SLOT, bytes(SLOT))
        superblock.create(window, encode(mark), _MAGIC, _KIND)
    elif end > at:  # the second slot there is the first one of the mark at the end, which stays
        sequence, _ = superblock.decode(read_bytes(disk, end, SLOT), _MAGIC) or (0, b"")
        write_bytes(disk, at, superblock.encode(sequence + 1, encode(mark), _MAGIC, _KIND))
        disk.flush()


def _window(disk: Handler, at: int) -> Handler:
    window = OffsetHandler(OffsetHandler.Options(offset=at, length=MARK), disk)
    window.open()
    return window


def _read(disk: Handler, at: int) -> FoundMark:
    slots = [read_bytes(disk, at + number * SLOT, SLOT) for number in range(superblock.SLOTS)]
    whole = [found for slot in slots if (found := superblock.decode(slot, _MAGIC)) is not None]
    if not whole:
        damaged = any(slot.startswith(_MAGIC) for slot in slots)
        return FoundMark(damage="its mark is damaged" if damaged else "")
    try:
        metadata = decode(max(whole)[1])
    except VscsihbaError as error:
        return FoundMark(damage=error.message)
    return FoundMark(metadata if length_with_mark(metadata.size) - MARK <= at else None)


def _allocated(disk: Handler, end: int) -> list[Extent]:
    """Return the extents before `end` that may hold something; the first few if there are many."""
    extents: list[Extent] = []
    at = 0
    while at < end:
        for status in disk.extents(at, end - at):
            if not status.zero:
                extents.append(status.extent)
            at = status.extent.end
        if sum(extent.length for extent in extents) > _SCANNED:
            return extents
    return extents


def _is_zero(disk: Handler, extent: Extent) -> bool:
    for at in range(extent.offset, extent.end, 1 << 20):
        if any(read_bytes(disk, at, min(1 << 20, extent.end - at))):
            return False
    return True
