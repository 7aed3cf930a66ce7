"""The write log: acknowledged writes to an image that its daemon may still lose.

The daemon keeps tables of the image in memory until a flush, so its death loses the place of newly written
clusters, even where their data is in the page cache of this machine. Therefore a copy of every
acknowledged change stays on a tmpfs until a flush has succeeded: a new daemon gets these changes again, in
order, and so does the next engine after the death of this one. A log without changes that is there
nevertheless tells that a daemon was killed.

The file is a `TmpfsStore`. Its content is a page with the number of the oldest change that is needed, then
a table of changes, then their data, used as a ring. A change is in the log once its entry of the
table is, which is written last and lies within one page.

This module knows neither daemons nor formats.
"""

import errno
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vscsihba.block import Views
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore

_ENTRY: Final = struct.Struct("<QQQQII")
"""An entry of the table: number, offset, length, position of the data, kind, CRC-32 of all of these."""
_ENTRY_ROOM: Final = 64
_ENTRIES: Final = 4096
_FIRST: Final = struct.Struct("<QI")
"""The head: number of the oldest change that is needed, CRC-32 of the bytes before it."""
_TABLE: Final = 4096
_DATA: Final = _TABLE + _ENTRIES * _ENTRY_ROOM
_PART: Final = 1 << 20
_WRITE, _ZERO, _UNMAP = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a range of a disk.

    Attributes:
        offset: First byte.
        length: Bytes.
        zero: The range becomes zeroes; otherwise data is written.
        may_unmap: The zeroes need no storage.
    """

    offset: int
    length: int
    zero: bool = False
    may_unmap: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    change: Change
    position: int

    def encode(self) -> bytes:
        change = self.change
        kind = _WRITE if not change.zero else _UNMAP if change.may_unmap else _ZERO
        raw = _ENTRY.pack(self.number, change.offset, change.length, self.position, kind, 0)[:-4]
        return raw + struct.pack("<I", zlib.crc32(raw))


class WriteLog:
    """Acknowledged changes since the last flush.

    Its methods may be called by one thread at a time.

    Args:
        name: Unique for the image, for ever.
        about: Names the image, for `vscsihba.handlers.shared.tmpfs_store.recall`.
        size: Bytes of data that it holds at most.

    Raises:
        InUseError: Another process or disk has it open.
        HostError, OSError: It cannot be opened.
    """

    def __init__(self, name: str, *, about: bytes, size: int) -> None:
        self._store = TmpfsStore(name, about=about)
        self._size = size
        with ExitStack() as failing:
            failing.callback(self._store.close, forget=False)
            self._store.put(_DATA - 1, b"\0")  # behind the last entry: the table is there as a whole
            content = bytearray(_DATA)
            self._store.get(0, [memoryview(content)])
            failing.pop_all()
        self._first = _first(content)
        self._entries = deque(_recovered(content, self._first))
        self._next = self._entries[-1].number + 1 if self._entries else self._first
        self._at = 0
        self._used = sum(_stored(entry.change) for entry in self._entries)
        self._from_before = bool(self._entries)  # the ring may have had another size then: it is only read

    def __len__(self) -> int:
        """Return the number of changes."""
        return len(self._entries)

    @property
    def end(self) -> int:
        """The number that the next change will have."""
        return self._next

    @property
    def is_half_full(self) -> bool:
        """Whether a flush is due, so that there is room for more."""
        return 2 * self._used > self._size or 2 * len(self._entries) > _ENTRIES

    def append(self, change: Change, views: Views = ()) -> bool:
        """Record a change.

        Args:
            change: The change.
            views: Its data, `change.length` bytes unless it is of zeroes.

        Returns:
            Whether there was room for it; if not, nothing has changed.
        """
        stored = _stored(change)
        position = self._place(stored)
        if position is None:
            return False
        entry = _Entry(self._next, change, position)
        try:
            if stored:
                self._store.put_views(_DATA + position, views)
            self._store.put(_TABLE + entry.number % _ENTRIES * _ENTRY_ROOM, entry.encode())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            return False
        self._entries.append(entry)
        self._next += 1
        self._at = position + stored
        self._used += stored
        return True

    def drop(self, end: int) -> None:
        """Forget the changes with numbers below `end`: they are on stable storage.

        Raises:
            OSError: That cannot be recorded. All changes are kept: a later process repeats them, and must
                neither find newer data in their places nor lack newer changes.
        """
        first = max(self._first, end)
        raw = struct.pack("<Q", first)
        self._store.put(0, raw + struct.pack("<I", zlib.crc32(raw)))
        self._first = first
        while self._entries and self._entries[0].number < end:
            self._used -= _stored(self._entries.popleft().change)
        if not self._entries:
            self._at = 0  # memory that was used before is used first
            self._from_before = False

    def changes(self) -> Iterator[tuple[Change, memoryview]]:
        """Yield the changes in order with their data, a long one in parts.

        Raises:
            OSError: They cannot be read.
        """
        for entry in list(self._entries):
            if entry.change.zero:
                yield entry.change, memoryview(b"")
                continue
            for done in range(0, entry.change.length, _PART):
                part = bytearray(min(_PART, entry.change.length - done))
                self._store.get(_DATA + entry.position + done, [memoryview(part)])
                yield Change(entry.change.offset + done, len(part)), memoryview(part)

    @property
    def path(self) -> Path:
        """Its file."""
        return self._store.path

    def last_change(self) -> float:
        """Return the time of the last change of the log, in seconds since the epoch."""
        return self._store.path.stat().st_mtime

    def close(self, *, keep: bool = False) -> None:
        """Close the log, and remove it if it is empty; with `keep` leave the empty file."""
        if keep and not self._entries:
            self._store.empty()
        self._store.close(forget=not self._entries and not keep)

    def _place(self, length: int) -> int | None:
        """Return a position of free room for `length` bytes, None if there is none."""
        if self._from_before or len(self._entries) >= _ENTRIES:
            return None
        if not self._entries:
            return 0 if length <= self._size else None
        oldest = next((entry.position for entry in self._entries if _stored(entry.change)), None)
        if oldest is None:
            return 0 if length <= self._size else None
        if self._at > oldest:  # free: behind it, and before the oldest
            if self._at + length <= self._size:
                return self._at
            return 0 if length <= oldest else None
        return self._at if self._at + length <= oldest else None


def _stored(change: Change) -> int:
    """Return the bytes of the data of a change."""
    return 0 if change.zero else change.length


def _first(content: bytearray) -> int:
    """Return the number of the oldest change that is needed; the first number is 1."""
    number, crc = _FIRST.unpack_from(content)
    return int(number) if zlib.crc32(content[:8]) == crc else 1


def _recovered(content: bytearray, first: int) -> list[_Entry]:
    """Return the changes from the number `first` on that an earlier process has left, in order."""
    found = {}
    for at in range(_TABLE, _DATA, _ENTRY_ROOM):
        number, offset, length, position, kind, crc = _ENTRY.unpack_from(content, at)
        if number >= first and zlib.crc32(content[at : at + _ENTRY.size - 4]) == crc:
            change = Change(offset, length, zero=kind != _WRITE, may_unmap=kind == _UNMAP)
            found[number] = _Entry(number, change, position)
    return [found[number] for number in sorted(found)]
