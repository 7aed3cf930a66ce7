"""Acknowledged writes that no flush has covered yet, kept so that they can be sent again.

A server with a volatile cache may lose them when it dies. Knows no connection.
"""

import threading
from bisect import bisect_left
from collections import deque
from typing import Final, NamedTuple

_OVERHEAD: Final = 128
"""Bytes of memory that an entry takes besides its data, about."""


class Kept(NamedTuple):
    """A part of an acknowledged write.

    Attributes:
        offset: First byte.
        length: Bytes.
        data: The bytes; None for zeroes.
        known: The bytes are kept; False: there was no room for them.
        discarded: The range was deallocated, and has no particular content.
    """

    offset: int
    length: int
    data: bytes | memoryview | None
    known: bool = True
    discarded: bool = False


class UnflushedWrites:
    """The writes since the last flush, oldest first. All methods may be called on any thread.

    Args:
        limit: Bytes above which a flush is due; at twice as much, further writes are not kept. 0: none is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # Position, size in memory, and the fields of a `Kept`, which is made when it is needed.
        self._entries: deque[tuple[int, int, int, int, bytes | None, bool, bool]] = deque()
        self._bytes = 0
        self._position = 0
        self._unkept = 0

    @property
    def position(self) -> int:
        """The number of writes so far: a flush that begins now covers them."""
        return self._position

    @property
    def flush_due(self) -> bool:
        """Whether a flush should be sent, so that the writes need not be kept."""
        return self._bytes > self._limit > 0

    @property
    def pending(self) -> bool:
        """Whether there are writes that no flush has covered."""
        return bool(self._entries) or self.incomplete

    @property
    def incomplete(self) -> bool:
        """Whether some write since the last flush is not kept."""
        return self._unkept > 0

    def add(
        self,
        offset: int,
        length: int,
        data: bytes | memoryview | bytearray | None,
        *,
        durable: bool,
        discarded: bool = False,
    ) -> None:
        """Add a write when it has ended, before it is acknowledged.

        Args:
            offset: First byte.
            length: Bytes.
            data: The bytes, which are copied; None for zeroes, and for a discard.
            durable: It is on stable storage. It is kept only where older writes would overwrite it.
            discarded: It has deallocated the range.
        """
        with self._lock:
            if durable and not self._entries:
                return
            self._position += 1
            if not self._limit:
                self._unkept = self._position
                return
            size, known, copy = _OVERHEAD, True, None
            if data is not None and self._bytes + length > 2 * self._limit:
                if not durable:
                    self._unkept = self._position
                known, discarded = False, False  # older data must not be written over it
            elif data is not None:
                copy, size = bytes(data), _OVERHEAD + length
            self._entries.append((self._position, size, offset, length, copy, known, discarded))
            self._bytes += size

    def drop(self, position: int) -> None:
        """Drop the writes that a flush has covered.

        Args:
            position: `position` when the flush began.
        """
        with self._lock:
            while self._entries and self._entries[0][0] <= position:
                self._bytes -= self._entries.popleft()[1]
            if self._unkept <= position:
                self._unkept = 0

    def latest(self) -> list[Kept]:
        """Return the newest state of what was written, as far as it is kept; no two parts overlap."""
        with self._lock:
            entries = [Kept(*entry[2:]) for entry in self._entries]
        covered = _Ranges()
        parts: list[Kept] = []
        for kept in reversed(entries):
            for start, end in covered.add(kept.offset, kept.offset + kept.length):
                data = kept.data
                if data is not None and end - start < kept.length:
                    data = memoryview(data)[start - kept.offset : end - kept.offset]
                if kept.known:
                    parts.append(Kept(start, end - start, data, discarded=kept.discarded))
        return parts


class _Ranges:
    """A set of bytes, as ranges that do not touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a range; return its parts that were not in the set."""
        first = bisect_left(self._ends, start)
        last = first
        new, at = [], start
        while last < len(self._starts) and self._starts[last] <= end:
            if at < self._starts[last]:
                new.append((at, self._starts[last]))
            at = max(at, self._ends[last])
            last += 1
        if at < end:
            new.append((at, end))
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        return new
