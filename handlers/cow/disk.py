"""A disk made of an overlay and the disk below it: the verbs, once both are open.

What is below is only read. Reading and writing what the overlay holds takes no lock; what
makes room in it does, so that two writes to one cluster do not each bring their own copy of
the rest. This module knows neither files nor options.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from vscsihba.block import Buffer, Extent, ExtentStatus, Views
from vscsihba.errors import MediumError, VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cow.format import BASE, DATA, LOST, ZERO
from vscsihba.handlers.cow.overlay import FLUSH_FAILED, Overlay
from vscsihba.handlers.shared import token_lock

log = logging.getLogger(__name__)

_EXTENTS_AT_ONCE = 1024


class Below(Protocol):
    """The disk below an overlay."""

    @property
    def size(self) -> int:
        """Bytes that it has; it reads as zeroes behind them."""

    def read(self, offset: int, views: Views) -> None:
        """Fill `views`; see `vscsihba.handlers.base.Handler.read`."""

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the allocated extents; see `vscsihba.handlers.base.Handler.extents`."""


class CowDisk:
    """An overlay on another disk.

    Attributes:
        overlay: Where changes go.
        below: Everything else.
        allocating: Held by whoever makes room in the overlay, or changes what is there.
    """

    def __init__(self, overlay: Overlay, below: Below) -> None:
        self.overlay = overlay
        self.below = below
        self.allocating = token_lock.TokenLock()

    @property
    def size(self) -> int:
        """Capacity in bytes."""
        return self.overlay.header.size

    def read(self, offset: int, views: Views) -> None:
        """Read each part from the overlay or from the disk below."""
        buffer = Buffer(views)
        for state, run in self.overlay.runs(offset, buffer.length):
            parts = buffer.take(run.offset - offset, run.length)
            if state == DATA:
                self.overlay.read(run.offset, parts)
                self.overlay.check_kept(run.offset, run.length)
            elif state == BASE:
                self._read_below(run.offset, parts)
            elif state == LOST:
                raise MediumError(run.offset, FLUSH_FAILED)
            else:
                Buffer(parts).zero()

    def write(self, offset: int, views: Views) -> None:
        """Write clusters of the overlay in place; store new clusters for the rest."""
        length = sum(map(len, views))
        if self.overlay.is_all(DATA, offset, length):
            self.overlay.overwrite(offset, views)
            self.overlay.check_kept(offset, length)
            return
        with self.allocating:
            self._write_new(offset, views, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Forget whole clusters, and write zeroes to those that are only partly concerned."""
        with self.allocating:
            self._zero(offset, offset + length)

    def unmap(self, offset: int, length: int) -> None:
        """Make whole clusters zeroes; of those that are only partly concerned, give back storage at most.

        So it never takes storage, and the parts read as zeroes or as what they were.
        """
        size, end = self.overlay.cluster_size, offset + length
        first = -(-offset // size)
        last = self.overlay.header.clusters if end == self.size else end // size
        parts = [(offset, end)] if first > last else [(offset, first * size), (last * size, end)]
        with self.allocating:
            self.overlay.free(first, last)
            for start, stop in parts:
                if start < stop and self.overlay.is_all(DATA, start, stop - start):
                    self.overlay.release(start, stop - start)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the extents of the overlay, and those below it for the rest."""
        return list(islice(self._extents(offset, length), _EXTENTS_AT_ONCE))

    def resize(self, size: int) -> None:
        """Set the size of the disk, whatever the size below."""
        with self.allocating:
            before = self.size
            cluster = self.overlay.cluster_size
            if size > before:
                # Behind the end, the last cluster may have what a larger disk had there, or one below has.
                self._zero_part(before, min(size, -(-before // cluster) * cluster))
            self.overlay.resize(size)
            if size < before:
                try:
                    self.overlay.free(-(-size // cluster), -(-before // cluster))
                except (
                    OSError,
                    MemoryError,
                    VscsihbaError,
                ) as error:  # the disk has its size: that is no harm
                    log.warning("%s: storage behind the end is kept: %r", self.overlay.header.uuid, error)

    def pull(self, below: Overlay, number: int) -> None:
        """Copy a cluster of the overlay directly below, unless this one has its own.

        What the disk reads as stays the same, but it needs that cluster there no more.
        """
        size, state, broken = self.overlay.cluster_size, below.states[number], self.overlay.broken
        with self.allocating:
            if state == BASE or self.overlay.states[number] != BASE:
                return
            below.check_kept(number * size, size)
            if state == DATA:
                room = memoryview(bytearray(size))
                # Behind the end of the overlay below the disk reads as zeroes.
                below.read(number * size, [room[: below.header.size - number * size]])
                below.check_kept(number * size, size)
                self.overlay.overwrite(number * size, [room])
            self.overlay.mark(number, number + 1, state, broken=broken)

    def _extents(self, offset: int, length: int) -> Iterator[ExtentStatus]:
        for state, run in self.overlay.runs(offset, length):
            if state == BASE:
                yield from self._extents_below(run.offset, run.end)
            else:
                yield ExtentStatus(run, allocated=state == DATA, zero=state == ZERO)

    def _extents_below(self, at: int, end: int) -> Iterator[ExtentStatus]:
        inside = min(end, self.below.size)
        while at < inside:
            below = self.below.extents(at, inside - at)
            yield from below
            at = below[-1].extent.end
        if at < end:
            yield ExtentStatus(Extent(at, end - at), allocated=False, zero=True)

    def _read_below(self, offset: int, views: Views) -> None:
        """Read from the disk below; zeroes behind its end."""
        buffer = Buffer(views)
        inside = min(buffer.length, max(0, self.below.size - offset))
        if inside:
            self.below.read(offset, buffer.take(0, inside))
        buffer.zero(inside)

    def _write_new(self, offset: int, views: Views, length: int) -> None:
        """Store a range in the overlay; new clusters are filled from the disk below."""
        size, states, broken = self.overlay.cluster_size, self.overlay.states, self.overlay.broken
        first, last = offset // size, (offset + length - 1) // size
        start = offset if states[first] == DATA else first * size
        end = offset + length if states[last] == DATA else (last + 1) * size
        before, after = self._content(start, offset), self._content(offset + length, end)
        self.overlay.overwrite(start, [*before, *views, *after])
        self.overlay.mark(first, last + 1, DATA, broken=broken)

    def _content(self, start: int, end: int) -> list[memoryview]:
        """Return the content of a part of a cluster; behind the end of the disk, zeroes."""
        if start == end:
            return []
        room = memoryview(bytearray(end - start))
        inside = min(end, self.size) - start
        if inside > 0:
            self.read(start, [room[:inside]])
        return [room]

    def _zero(self, start: int, end: int) -> None:
        size = self.overlay.cluster_size
        first = -(-start // size)
        last = self.overlay.header.clusters if end == self.size else end // size
        if first > last:
            self._zero_part(start, end)
            return
        self._zero_part(start, first * size)
        self._zero_part(max(last * size, start), end)
        self.overlay.free(first, last)

    def _zero_part(self, start: int, end: int) -> None:
        """Zero a part of one cluster, if it is not zeroes already."""
        if start < end and not self.overlay.is_all(ZERO, start, end - start):
            self._write_new(start, [memoryview(bytes(end - start))], end - start)


class BelowHandler:
    """A handler as the disk below an overlay.

    Attributes:
        size: Bytes that it has.
    """

    def __init__(self, handler: Handler) -> None:
        self.size = handler.geometry.size
        self.read = handler.read
        self.extents = handler.extents
