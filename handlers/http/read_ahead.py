"""Reads of a disk: ranges that are fetched when they are asked for, and those fetched before.

The file is cut into chunks. A read that continues an earlier one makes the next chunks be fetched; the
further it goes, the more of them, up to half of the memory. A chunk that cannot be had is no error: the
read that needs it fetches its range itself. All of it belongs to the thread of `Transfers`.
"""

import errno
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from vscsihba.block import Buffer, Views
from vscsihba.handlers.http.fetch import Fetch
from vscsihba.handlers.http.transfers import Transfers
from vscsihba.handlers.http.version import Version

Done = Callable[[OSError | None], None]

CHUNK: Final = 256 << 10
"""Bytes that one request fetches ahead."""
_NEAR: Final = 64 << 10
"""Bytes between the end of one read and the start of the next, if both are of one sequence: the requests of
an initiator need not arrive in order."""
_STREAMS: Final = 16
"""Sequences of reads that are followed at the same time."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A read that waits for a chunk.

    Attributes:
        start: First byte of its part.
        end: The byte after the last one.
        views: Room for them.
        deadline: Moment at which the read fails.
        done: Called when the part is there.
    """

    start: int
    end: int
    views: Views
    deadline: float
    done: Done


@dataclass(slots=True, eq=False)
class _Chunk:
    """Bytes that are fetched ahead.

    Attributes:
        start: First byte.
        end: The byte after the last one.
        content: Room for them.
        ready: They have come.
        fetch: The fetch.
        waiters: Reads that wait for it.
    """

    start: int
    end: int
    content: bytearray
    ready: bool = False
    fetch: Fetch | None = None
    waiters: list[_Waiter] = field(default_factory=list)

    def store(self, at: int, data: bytes) -> None:
        """Take bytes as they come."""
        self.content[at : at + len(data)] = data

    def copy(self, start: int, end: int, views: Views) -> None:
        """Fill views with a part of it."""
        Buffer(views).scatter(memoryview(self.content)[start - self.start : end - self.start])


@dataclass(slots=True, eq=False)
class _Stream:
    """A sequence of reads.

    Attributes:
        next: The byte after the last one that was read.
        window: Bytes that are fetched ahead of it.
    """

    next: int
    window: int = 0


class _Parts:
    """Calls `done` when all parts of a read have ended, with the first error.

    Args:
        done: The function.
    """

    def __init__(self, done: Done) -> None:
        self._done = done
        self._left = 1
        self._error: OSError | None = None

    def another(self) -> Done:
        """Return the function that ends another part."""
        self._left += 1
        return self.end

    def end(self, error: OSError | None = None) -> None:
        """End a part."""
        self._error = self._error or error
        self._left -= 1
        if not self._left:
            self._done(self._error)


class Reader:
    """Reads of one version of a file.

    Args:
        transfers: Fetches ranges.
        version: The version.
        timeout: Seconds after which a read fails.
        memory: Bytes for what is fetched ahead.
    """

    def __init__(self, transfers: Transfers, version: Version, timeout: float, memory: int) -> None:
        self._transfers = transfers
        self._version = version
        self._timeout = timeout
        self._most = memory // CHUNK
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()  # those first that are dropped first
        self._streams: list[_Stream] = []

    def read(self, offset: int, views: Views, done: Done) -> None:
        """Fill views with the bytes from `offset` on, then call `done`."""
        parts = _Parts(done)
        try:
            end = offset + sum(map(len, views))
            self._begin_parts(offset, end, Buffer(views), parts)
            if self._most:
                self._go_ahead(offset, end)
        except Exception as error:  # a read that is forgotten would hang
            number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EIO
            parts.end(OSError(number, f"internal error: {type(error).__name__}"))
            raise
        parts.end()

    def _begin_parts(self, offset: int, end: int, buffer: Buffer, parts: _Parts) -> None:
        """Begin to fill the buffer of a read with what is there and what has to be fetched."""
        deadline = time.monotonic() + self._timeout
        for start, stop, chunk in list(self._cover(offset, end)):
            room = buffer.take(start - offset, stop - start)
            if chunk is None:
                self._fetch(_Waiter(start, stop, room, deadline, parts.another()))
            elif chunk.ready:
                chunk.copy(start, stop, room)
                self._used(chunk, stop)
            else:
                chunk.waiters.append(_Waiter(start, stop, room, deadline, parts.another()))
                if chunk.fetch is not None:
                    self._transfers.hurry(chunk.fetch)

    def _cover(self, start: int, end: int) -> Iterator[tuple[int, int, _Chunk | None]]:
        """Cut a range into parts of chunks that are there, and ranges between them."""
        at = start
        for number in range(start // CHUNK, -(-end // CHUNK)) if self._chunks else ():
            chunk = self._chunks.get(number)
            if chunk is None or chunk.start >= end:
                continue
            first, stop = max(start, chunk.start), min(end, chunk.end)
            if at < first:
                yield at, first, None
            yield first, stop, chunk
            at = stop
        if at < end:
            yield at, end, None

    def _fetch(self, part: _Waiter) -> None:
        """Fetch a part into the views of the read."""
        buffer = Buffer(part.views)

        def store(at: int, data: bytes) -> None:
            buffer.scatter(data, at)

        self._transfers.begin(
            Fetch(
                part.start,
                part.end,
                self._version,
                store=store,
                done=part.done,
                deadline=part.deadline,
            )
        )

    def _go_ahead(self, offset: int, end: int) -> None:
        """Fetch ahead of a read that continues an earlier one."""
        stream = next((each for each in self._streams if abs(offset - each.next) <= _NEAR), None)
        if stream is None:
            self._streams.insert(0, _Stream(end))
            del self._streams[_STREAMS:]
            return
        self._streams.remove(stream)
        self._streams.insert(0, stream)
        if end <= stream.next:
            return
        stream.next = end
        stream.window = min(max(CHUNK, stream.window * 2), max(1, self._most // 2) * CHUNK)
        stop = min(end + stream.window, self._version.size)
        for number in range(end // CHUNK, -(-stop // CHUNK)):
            start, last = max(number * CHUNK, end), min((number + 1) * CHUNK, self._version.size)
            if number not in self._chunks and start < last and not self._begin(number, start, last):
                return

    def _begin(self, number: int, start: int, end: int) -> bool:
        """Fetch a chunk; return False if there is no memory for it."""
        if len(self._chunks) >= self._most:
            oldest = next((each for each, chunk in self._chunks.items() if chunk.ready), None)
            if oldest is None:
                return False
            del self._chunks[oldest]
        try:
            chunk = _Chunk(start, end, bytearray(end - start))
        except MemoryError:
            return False
        chunk.fetch = Fetch(
            start,
            end,
            self._version,
            store=chunk.store,
            done=partial(self._chunk_done, number, chunk),
            deadline=time.monotonic() + self._timeout,
            urgent=False,
        )
        self._chunks[number] = chunk
        self._transfers.begin(chunk.fetch)
        return True

    def _chunk_done(self, number: int, chunk: _Chunk, error: OSError | None) -> None:
        """Serve the reads that wait for a chunk."""
        chunk.ready = error is None
        if error is not None:
            del self._chunks[number]
        waiters, chunk.waiters, chunk.fetch = chunk.waiters, [], None
        for waiter in waiters:
            if error is not None:
                self._fetch(waiter)
                continue
            chunk.copy(waiter.start, waiter.end, waiter.views)
            self._used(chunk, waiter.end)
            waiter.done(None)

    def _used(self, chunk: _Chunk, end: int) -> None:
        """Let a chunk be dropped before others once its end was read."""
        if end == chunk.end and (number := chunk.start // CHUNK) in self._chunks:
            self._chunks.move_to_end(number, last=False)
