"""The list of dirty blocks of a cache, in a note: the next process finds what a killed one had acknowledged.

    byte 0    4 bytes: block size; 2 bytes: blocks of a line; 2 bytes: version of the format
         8    8 bytes for each extent of the file with the contents: in the low bits the mask of the
              dirty blocks, as many bits as a line has blocks; above them the number of the line plus
              one; 0 if no block is dirty

An entry is one word, so that it is put as a whole or not at all.

Neither the list nor the contents survive the machine, and nothing has to: a flush has put everything
below. This module knows the list, and not which blocks are held.
"""

import struct
from dataclasses import dataclass

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.shared.tmpfs_store import Recalled, TmpfsStore, recall

_VERSION = 1
"""In version 0, of earlier releases, each slot of one block had a number of 8 bytes."""
_HEAD = struct.Struct("<IHH")
_ENTRY = struct.Struct("<Q")
_LINE = 64 << 10
"""Bytes of a line at most: 16 blocks, so that an entry has room for the number of any line."""
_SHARE = 4
"""Lines that there is room for, at least, however small the cache is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the blocks of a cache lie.

    Attributes:
        block_size: Bytes of a block.
        blocks: Blocks of a line, 16 at most.
    """

    block_size: int
    blocks: int

    @classmethod
    def of(cls, block_size: int, count: int) -> "Shape":
        """Return the shape of a cache with room for `count` blocks."""
        most = max(1, min(_LINE // block_size, count // _SHARE))
        return cls(block_size, 1 << (most.bit_length() - 1))

    @property
    def line_size(self) -> int:
        """Bytes of a line."""
        return self.block_size * self.blocks


class DirtyList:
    """An open list.

    Args:
        store: Its bytes.
        shape: Of the cache; one that has dirty blocks keeps the shape that it has.

    Attributes:
        shape: Of the cache.

    Raises:
        OSError: The list cannot be read or begun.
    """

    def __init__(self, store: TmpfsStore, shape: Shape) -> None:
        self._store = store
        content = store.content()
        self._left = _entries(content)
        found = _shape(content)
        self.shape = found if self._left and found is not None else shape
        if found != self.shape:
            store.put(0, _HEAD.pack(shape.block_size, shape.blocks, _VERSION))

    def take_left(self) -> dict[int, tuple[int, int]]:
        """Return, once, for each extent that a killed process has left: the line and its dirty blocks."""
        left, self._left = self._left, {}
        return left

    def put(self, extent: int, number: int, dirty: int) -> None:
        """List the dirty blocks of the line in an extent, in place of those that were listed.

        Raises:
            OSError: There is no room; nothing has changed.
        """
        entry = (number + 1 << self.shape.blocks) | dirty if dirty else 0
        self._store.put(_HEAD.size + extent * _ENTRY.size, _ENTRY.pack(entry))

    def close(self, *, forget: bool) -> None:
        """Close the list, and remove it if nothing in it is needed any more."""
        self._store.close(forget=forget)


def check_waiting(name: str, *, about: bytes, block_size: int | None) -> bool:
    """Return whether a killed process has left dirty blocks; refuse options that would lose them.

    Args:
        name: The same for the same disk.
        about: Names the medium that has the disk.
        block_size: Of the cache that would write them below; None if none would.

    Raises:
        HostError: They are for another medium, or of another release.
        UsageError: They would be lost.
    """
    waiting = recall(f"{name}.dirty")
    if waiting is None or not _is_waiting(waiting):
        return False
    if waiting.about is not None and waiting.about != about:
        raise HostError(
            f"writes are waiting in {waiting.path} for another medium that this one has taken the place of",
            cure=f"bring that one back; to give those writes up, remove {waiting.path}",
        )
    shape = _shape(waiting.content)
    if shape is None:
        raise HostError(
            f"writes of another release are waiting in {waiting.path}",
            cure=f"open the disk once with that release; to give those writes up, remove {waiting.path}",
        )
    if shape.block_size != block_size:
        raise UsageError(
            "writes are waiting in its cache",
            cure=f'open it once for writing with "mode": "write-back" and "block_size": {shape.block_size}',
        )
    return True


def _is_waiting(note: Recalled) -> bool:
    """Return whether a list names dirty blocks; of another release, whether it has any numbers at all."""
    if _shape(note.content) is None:
        return any(note.content[_HEAD.size :])
    return bool(_entries(note.content))


def _shape(content: bytes) -> Shape | None:
    """Return the shape that a list is of; None if it is empty or of another release."""
    if len(content) < _HEAD.size:
        return None
    block_size, blocks, version = _HEAD.unpack_from(content)
    return Shape(block_size, blocks) if version == _VERSION else None


def _entries(content: bytes) -> dict[int, tuple[int, int]]:
    """Return the line and the dirty blocks of each extent of a list; none of one of another release."""
    shape = _shape(content)
    if shape is None:
        return {}
    whole = len(content) - (len(content) - _HEAD.size) % _ENTRY.size
    entries = enumerate(_ENTRY.iter_unpack(content[_HEAD.size : whole]))
    all_dirty = (1 << shape.blocks) - 1
    return {extent: ((entry >> shape.blocks) - 1, entry & all_dirty) for extent, (entry,) in entries if entry}
