"""Dirty blocks of a cache on their way to the layer below.

One thread at a time writes them, or an older content might come last. Blocks go in the order of the disk,
those that adjoin in one write.
"""

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from vscsihba.handlers.base import Handler
from vscsihba.handlers.cache.lines import Line, Lines
from vscsihba.handlers.cache.masks import mask, runs
from vscsihba.handlers.shared.token_lock import TokenLock

_AT_ONCE = 1 << 20
_MAKE_ROOM = 64
"""Lines to write back at once when there is no room: 4 MiB at most."""

Part = tuple[Line, int, int]
"""Adjacent dirty blocks: their line, the first of them in it, and the one after the last."""


class WriteBack:
    """Writes dirty blocks to the layer below.

    Args:
        lines: The blocks.
        lock: Held by whoever uses `lines`.
        below: The layer below.

    Attributes:
        alone: Held by whoever writes back or drops dirty blocks.
    """

    def __init__(self, lines: Lines, lock: TokenLock, below: Handler) -> None:
        self.alone = threading.Lock()
        self._lines = lines
        self._lock = lock
        self._below = below

    def flush(self) -> None:
        """Write every dirty block to the layer below, and flush that.

        Raises:
            OSError: Something did not get there, and is kept.
        """
        with self.alone:
            with self._lock:
                dirty = [(line, line.dirty) for line in self._lines.dirty.values()]
            self.write(dirty, flush=True)

    def force(self, first: int, last: int) -> None:
        """Put the blocks from `first` to before `last` on the stable storage of the layer below.

        Raises:
            OSError: Something did not get there, and is kept.
        """
        with self.alone:
            dirty = self.dirty(first, last)
            # The others had to make room, and went below without being forced on.
            count = sum(blocks.bit_count() for _, blocks in dirty)
            self.write(dirty, fua=True, flush=count < last - first)

    def make_room(self, number: int) -> bool:
        """Write the least recently used dirty blocks back, unless another thread has done so.

        Args:
            number: Of the line that needs room.

        Returns:
            False if they stay dirty.

        Raises:
            OSError: They did not get below.
        """
        with self.alone:
            with self._lock:
                lines = self._lines
                has_room = len(lines.clean) > (number in lines.clean)
                oldest = () if has_room else islice(lines.dirty.values(), _MAKE_ROOM)
                dirty = [(line, line.dirty) for line in oldest]
            return self.write(dirty)

    def dirty(self, first: int, last: int) -> list[tuple[Line, int]]:
        """Return the lines with dirty blocks from `first` to before `last`, with these blocks."""
        with self._lock:
            found = [(line, line.dirty & blocks) for line, blocks in self._lines.within(first, last)]
        return [(line, blocks) for line, blocks in found if blocks]

    def write(self, dirty: Iterable[tuple[Line, int]], *, fua: bool = False, flush: bool = False) -> bool:
        """Write dirty blocks to the layer below; to be called by the holder of `alone`.

        They are clean once that has succeeded, with `flush` the flush too.

        Args:
            dirty: Lines, and which of their blocks.
            fua: Put them on stable storage.
            flush: Flush the layer below after them.

        Returns:
            False if they are below and stay dirty, for that could not be noted.

        Raises:
            OSError: Something did not get below; all of them stay dirty.
        """
        lines = sorted(dirty, key=lambda part: part[0].number)
        for start, parts in self._merged(lines):
            self._below.write(start, [self._read(part) for part in parts], fua=fua)
        if flush:
            self._below.flush()
        with self._lock:
            noted = [self._lines.mark_clean(line, blocks) for line, blocks in lines]
        return all(noted)

    def _merged(self, lines: Iterable[tuple[Line, int]]) -> Iterator[tuple[int, list[Part]]]:
        """Yield the byte offset and the parts of each write."""
        shape = self._lines.shape
        start, end, parts = 0, -1, list[Part]()
        for line, blocks in lines:
            for first, last in runs(blocks):
                at = line.number * shape.blocks + first
                if parts and (at != end or (end - start) * shape.block_size >= _AT_ONCE):
                    yield start * shape.block_size, parts
                    parts = []
                if not parts:
                    start = at
                parts.append((line, first, last))
                end = at + last - first
        if parts:
            yield start * shape.block_size, parts

    def _read(self, part: Part) -> memoryview:
        """Read the content of dirty blocks, and note that what is read is on its way."""
        line, first, last = part
        shape = self._lines.shape
        start = line.number * shape.line_size
        end = min(last * shape.block_size, self._below.geometry.size - start)
        content = memoryview(bytearray(end - first * shape.block_size))
        with self._lock:
            self._lines.read(line, first * shape.block_size, [content])
            line.written_back |= mask(first, last)
        return content
