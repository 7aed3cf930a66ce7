"""Inline verbs of a cache: requests that need nothing of the layer below, or only its inline write.

They take the lock only if it is free, and hold it while they copy. Whatever would have to wait (for a
block that is not held, for room, for a change below) is left to `handler`, and so is every failure.
"""

from functools import partial
from queue import Empty

from vscsihba.block import Buffer, Views
from vscsihba.handlers.base import BatchedWrite, InlineVerbs, Mover, batched, note_batched
from vscsihba.handlers.cache.lines import Lines
from vscsihba.handlers.cache.masks import cut, pieces, touched
from vscsihba.handlers.cache.traffic import Traffic
from vscsihba.handlers.shared.token_lock import TokenLock

WRITE_LIMIT = 1 << 20
"""Bytes: a tenth of a millisecond, as for a file."""


class InlineCache:
    """The inline verbs of a cache.

    Args:
        lines: The blocks.
        traffic: Requests to the layer below.
        lock: Of both.
        below: The inline verbs of the layer below.
    """

    def __init__(self, lines: Lines, traffic: Traffic, lock: TokenLock, below: InlineVerbs) -> None:
        self._lines = lines
        self._traffic = traffic
        self._lock = lock
        self._below = below
        self._line_size, self._block_size = lines.shape.line_size, lines.shape.block_size

    def verbs(self, *, write_back: bool, read_only: bool) -> InlineVerbs:
        """Return the verbs of a cache that writes back, or through."""
        read = self._reader()
        if read_only or read is None:
            return InlineVerbs(read=read)
        if write_back:
            return InlineVerbs(read=read, write=self._write_back, write_limit=WRITE_LIMIT)
        if self._below.write is None:
            return InlineVerbs(read=read)
        parts = batched(self._below.write)
        through = note_batched(
            partial(self._write_through, self._below.write),
            BatchedWrite(
                partial(self._write_through, parts.first), partial(self._write_through, parts.rest), parts.end
            ),
        )
        return InlineVerbs(read=read, write=through, write_limit=min(WRITE_LIMIT, self._below.write_limit))

    def _reader(self) -> Mover | None:
        """Return the read of blocks that are held; all its names are local, since it runs once a command."""
        lines, line_size, block_size = self._lines, self._line_size, self._block_size
        if lines.data is None:
            return None
        by_number, dirty, clean = lines.by_number, lines.dirty, lines.clean
        get_some, take, release = lines.data.get_some, self._lock.take, self._lock.release

        def read(views: Views, offset: int, _flags: int) -> int:
            length = len(views[0]) if len(views) == 1 else sum(map(len, views))
            number, within = divmod(offset, line_size)
            try:
                take(False)  # noqa: FBT003 - without a wait
            except Empty:
                raise BlockingIOError from None
            try:
                if within + length > line_size:
                    return read_lines(views, offset, length)
                line = by_number.get(number)
                if line is None:
                    raise BlockingIOError
                wanted = (1 << -(-(within + length) // block_size)) - (1 << within // block_size)  # `touched`
                if wanted & ~line.held:
                    raise BlockingIOError
                (dirty if line.dirty else clean).move_to_end(number)
                return get_some(line.at + within, views)
            finally:
                release()

        def read_lines(views: Views, offset: int, length: int) -> int:
            buffer, done = Buffer(views), 0
            for number, within, at, count in pieces(offset, length, line_size):
                line = by_number.get(number)
                if line is None or touched(within, count, block_size) & ~line.held:
                    raise BlockingIOError
                (dirty if line.dirty else clean).move_to_end(number)
                done += get_some(line.at + within, buffer.take(at, count))
            return done

        return read

    def _write_back(self, views: Views, offset: int, _flags: int) -> int:
        """Store bytes in blocks, which are dirty then, up to the first line that has to wait."""
        buffer, size = Buffer(views), self._block_size
        length, done = buffer.length, 0
        if not self._lock.acquire(blocking=False):
            raise BlockingIOError
        try:
            first, last = offset // size, -(-(offset + length) // size)
            if self._traffic.is_changing(first, last):
                raise BlockingIOError
            self._traffic.spoil(first, last)
            for number, within, at, count in pieces(offset, length, self._line_size):
                line = self._lines.by_number.get(number)
                lacking = cut(within, count, size) & ~(line.held if line is not None else 0)
                part = views if count == length else buffer.take(at, count)
                if lacking or not self._lines.write(number, touched(within, count, size), within, part):
                    break
                done += count
        finally:
            self._lock.release()
        if not done:
            raise BlockingIOError
        return done

    def _write_through(self, write: Mover, views: Views, offset: int, _flags: int) -> int:
        """Store bytes in the layer below, then in those of their blocks that are held."""
        length, size = sum(map(len, views)), self._block_size
        first, last = offset // size, -(-(offset + length) // size)
        if not self._lock.acquire(blocking=False):
            raise BlockingIOError
        try:
            if self._traffic.is_changing(first, last):
                raise BlockingIOError
            self._traffic.spoil(first, last)
            done = 0
            try:
                done = write(views, offset, self._below.write_flags)
            finally:
                if done != length:
                    self._lines.drop_clean(first, last)
            if done == length:
                self._lines.refresh(offset, views)
        finally:
            self._lock.release()
        return done
