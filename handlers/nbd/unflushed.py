"""Acknowledged writes that no flush has covered yet, kept so that they can be sent again.

A server with a volatile cache may lose them when it dies. It may also tell one of several flushes that are
under way together that it has lost them, and that answer may be lost: so a flush lets them go only when those
beside it have succeeded as well. Knows no connection.
"""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from vscsihba.handlers.nbd.ranges import Ranges
from vscsihba.handlers.nbd.requests import LOST, Export, Kind, Request
from vscsihba.handlers.nbd.slabs import Slab, Slabs

_READ, _WRITE, _FLUSH, _TRIM = Kind.READ, Kind.WRITE, Kind.FLUSH, Kind.TRIM
_CHANGES: Final = (Kind.WRITE, Kind.ZERO, Kind.TRIM)
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
    data: memoryview | None
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
        # Position, size in memory, the fields of a `Kept`, which is made when it is needed, and the slab.
        self._entries: deque[tuple[int, int, int, int, memoryview | None, bool, bool, Slab | None]] = deque()
        self._slabs = Slabs()
        self._bytes = 0
        self._position = 0
        self._unkept = 0
        self._flushing: set[Request] = set()
        # The changes that a flush has covered, and the flushes that were under way when it ended.
        self._flushed: deque[tuple[int, set[Request]]] = deque()

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

    def begin_flush(self, flush: Request) -> None:
        """Note that a flush is sent: it covers the changes until now."""
        with self._lock:
            flush.position = self._position
            self._flushing.add(flush)

    def note(self, ended: Iterable[tuple[Request, int]], export: Export) -> None:
        """Take requests that have ended, before they are acknowledged: keep changes, drop what was flushed.

        A change that is on stable storage is kept only where older ones would overwrite it.

        Args:
            ended: In this order; the number is not 0 if a request has failed, which changes nothing here.
            export: If it has no flush, each change is on stable storage.
        """
        with self._lock:
            for request, number in ended:
                kind = request.kind
                if kind == _FLUSH:
                    self._end_flush(request, number)
                elif number or kind == _READ:
                    continue
                elif export.flush and kind in _CHANGES:
                    durable = request.fua and export.fua
                    if not durable or self._entries:
                        data = request.view if kind == _WRITE else None
                        discarded = kind == _TRIM
                        self._add(request.offset, request.length, data, durable=durable, discarded=discarded)

    def _add(
        self,
        offset: int,
        length: int,
        data: bytes | memoryview | bytearray | None,
        *,
        durable: bool,
        discarded: bool,
    ) -> None:
        """Keep a change; the data is copied, and is None for zeroes."""
        self._position = position = self._position + 1
        if not self._limit:
            self._unkept = position
            return
        size, known, copy, slab = _OVERHEAD, True, None, None
        if data is not None:
            if self._bytes + length <= 2 * self._limit:
                (copy, slab), size = self._slabs.copy(data), _OVERHEAD + length
            else:
                if not durable:
                    self._unkept = position
                known, discarded = False, False  # older data must not be written over it
        self._entries.append((position, size, offset, length, copy, known, discarded, slab))
        self._bytes += size

    def forget_flushes(self) -> None:
        """Note that no flush is under way: those that were are sent again after what is kept."""
        with self._lock:
            self._flushing.clear()
            self._flushed.clear()

    def _end_flush(self, flush: Request, number: int) -> None:
        """Drop changes that a flush has covered, once those that were under way beside it have succeeded.

        One that has failed tells of what was lost; until a lost one is sent again, its result is not known.
        """
        if number in LOST:
            return
        self._flushing.discard(flush)
        if number:
            self._flushed.clear()
            return
        for _, beside in self._flushed:
            beside.discard(flush)
        self._flushed.append((flush.position, self._flushing.copy()))
        while self._flushed and not self._flushed[0][1]:
            self._drop(self._flushed.popleft()[0])

    def _drop(self, position: int) -> None:
        """Drop the changes that a flush has covered, which began at this position."""
        while self._entries and self._entries[0][0] <= position:
            entry = self._entries.popleft()
            self._bytes -= entry[1]
            self._slabs.drop(entry[-1])
        if self._unkept <= position:
            self._unkept = 0

    def latest(self) -> list[Kept]:
        """Return the newest state of what was written, as far as it is kept; no two parts overlap.

        The data is valid until a flush is noted.
        """
        with self._lock:
            entries = [Kept(*entry[2:-1]) for entry in self._entries]
        covered = Ranges()
        parts: list[Kept] = []
        for kept in reversed(entries):
            for start, end in covered.add(kept.offset, kept.offset + kept.length):
                data = kept.data
                if data is not None and end - start < kept.length:
                    data = data[start - kept.offset : end - kept.offset]
                if kept.known:
                    parts.append(Kept(start, end - start, data, discarded=kept.discarded))
        return parts
