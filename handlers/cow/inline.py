"""Inline verbs of a disk made of overlays on a base.

A request that is all in one place goes there by one call; one that is spread takes a call for each run of
clusters. New clusters are stored inline too, if the rest of their content can be read inline. Whatever has
to wait, for a lock or for a page that is not cached, goes to a thread and `disk`, and so does every failure.
"""

import errno
from collections.abc import Sequence
from functools import partial

from vscsihba.block import Buffer, Views
from vscsihba.handlers.base import BatchedWrite, Handler, InlineVerbs, Mover, batched, note_batched
from vscsihba.handlers.cow.cluster_map import ClusterMap
from vscsihba.handlers.cow.disk import CowDisk
from vscsihba.handlers.cow.format import BASE, DATA, FIRST_CLUSTER, MAP_BLOCK, PER_GROUP, ZERO


def inline_verbs(disks: Sequence[CowDisk], base: Handler) -> InlineVerbs:
    """Return the movers for a disk with these overlays, from the topmost down, on this base."""
    verbs = _InlineCow(disks, base)
    stored = disks[0].overlay.store.inline
    if stored.write is None:
        return InlineVerbs(read=verbs.read)
    parts = batched(stored.write)
    return InlineVerbs(
        read=verbs.read,
        write=note_batched(
            verbs.writer(stored.write),
            BatchedWrite(verbs.writer(parts.first), verbs.writer(parts.rest), parts.end),
        ),
        write_limit=stored.write_limit,
    )


class _InlineCow:
    """The inline verbs of overlays that lie on each other, all with one cluster size.

    Args:
        disks: From the topmost down.
        base: The disk below the lowest overlay.
    """

    def __init__(self, disks: Sequence[CowDisk], base: Handler) -> None:
        self._top = disks[0]
        self._layers = [(disk.overlay, disk.overlay.map, disk.overlay.store.inline) for disk in disks]
        self._below, self._below_size = base.inline, base.geometry.size
        self._size = disks[0].overlay.cluster_size
        self._group = self._size * PER_GROUP
        self.read = self._reader()

    def _reader(self) -> Mover:
        """Return the read; all its names are local, since it runs once a command."""
        size, group, read_parts, read_end = self._size, self._group, self._read_parts, self._read_end
        layers = [(overlay, map_, of.read or _refuse, of.read_flags) for overlay, map_, of in self._layers]
        below, below_flags = self._below.read or _refuse, self._below.read_flags
        below_size = self._below_size

        def read(views: Views, offset: int, _flags: int) -> int:
            end = offset + (len(views[0]) if len(views) == 1 else sum(map(len, views)))
            first, last = offset // size, (end - 1) // size
            for overlay, map_, move, move_flags in layers:
                if end > overlay.header.size:
                    return read_end(views, offset, overlay.header.size)
                states = map_.states
                state = states[first]
                if first != last and (
                    states.count(state, first, last + 1) != last + 1 - first
                    or offset // group != (end - 1) // group  # the places of two groups do not adjoin
                ):
                    return read_parts(map_, views, offset)
                if state == DATA:
                    done = move(views, offset + FIRST_CLUSTER + offset // group * MAP_BLOCK, move_flags)
                    if overlay.broken:  # a flush has failed since, perhaps: `disk` knows what is lost
                        raise BlockingIOError
                    return done
                if state != BASE:
                    return _zero(views, state)
            if end > below_size:
                return read_end(views, offset, below_size)
            return below(views, offset, below_flags)

        return read

    def writer(self, move: Mover) -> Mover:
        """Return the write that stores bytes with `move`, a write of the topmost overlay's file."""
        overlay, map_, stored = self._layers[0]
        size, group, flags = self._size, self._group, stored.write_flags
        write_new = partial(self._write_new, move)

        def write(views: Views, offset: int, _flags: int) -> int:
            length = len(views[0]) if len(views) == 1 else sum(map(len, views))
            end = offset + length
            first, last = offset // size, (end - 1) // size
            if end > overlay.header.size or (first != last and offset // group != (end - 1) // group):
                raise BlockingIOError
            states = map_.states
            if states.count(DATA, first, last + 1) != last + 1 - first:
                return write_new(views, offset, length)
            done = move(views, offset + FIRST_CLUSTER + offset // group * MAP_BLOCK, flags)
            if overlay.broken:
                raise OSError(errno.EIO, "an earlier flush failed")
            return done

        return write

    def _read_parts(self, map_: ClusterMap, views: Views, offset: int) -> int:
        """Read a range in parts, each with one state in an overlay and in one group.

        Raises:
            BlockingIOError: A part has to wait, or may be lost.
        """
        read, size = self.read, self._size
        if len(views) == 1:
            view, count = views[0], size - offset % size
            if len(view) <= count + size:  # two clusters, as most commands that touch several
                if read([view[:count]], offset, 0) != count:
                    raise BlockingIOError
                return count + read([view[count:]], offset + count, 0)
        buffer, group, at = Buffer(views), self._group, offset
        end = offset + buffer.length
        last = -(-end // size)
        while at < end:
            number = at // size
            stop = map_.end_of_run(map_.states[number], number, last, lost=True) * size
            stop = min(stop, end, (at // group + 1) * group)
            _fill(read, buffer.take(at - offset, stop - at), at, stop - at)
            at = stop
        return buffer.length

    def _read_end(self, views: Views, offset: int, border: int) -> int:
        """Read a range that passes the end of an overlay or of the base: behind that are zeroes.

        Raises:
            BlockingIOError: A part has to wait, or may be lost.
        """
        buffer, inside = Buffer(views), border - offset
        if inside > 0:
            _fill(self.read, buffer.take(0, inside), offset, inside)
        buffer.zero(max(0, inside))
        return buffer.length

    def _write_new(self, move: Mover, views: Views, offset: int, length: int) -> int:
        """Store a range in the topmost overlay, with new clusters; see `CowDisk.write`.

        Raises:
            BlockingIOError: That has to wait; nothing has changed.
            OSError: A part may be stored.
        """
        (overlay, map_, stored), size = self._layers[0], self._size
        if not self._top.allocating.acquire(blocking=False):
            raise BlockingIOError
        try:
            states = map_.states
            first, last = offset // size, (offset + length - 1) // size
            start = offset if states[first] == DATA else first * size
            end = offset + length if states[last] == DATA else (last + 1) * size
            if end > overlay.header.size or end - start > stored.write_limit:
                raise BlockingIOError
            content = [*self._content(start, offset), *views, *self._content(offset + length, end)]

            def store() -> None:
                if move(content, overlay.place(start), stored.write_flags) != end - start:
                    raise OSError(errno.EIO, "only a part was stored")

            overlay.try_mark(first, last + 1, DATA, store)
        finally:
            self._top.allocating.release()
        return length

    def _content(self, start: int, end: int) -> list[memoryview]:
        """Return the content of a part of a cluster."""
        if start == end:
            return []
        room = memoryview(bytearray(end - start))
        _fill(self.read, [room], start, end - start)
        return [room]


def _fill(read: Mover, views: Views, offset: int, length: int) -> None:
    """Fill views with an inline read that has no flags of its own.

    Raises:
        BlockingIOError: That has to wait.
    """
    if read(views, offset, 0) != length:
        raise BlockingIOError


def _zero(views: Views, state: int) -> int:
    """Fill views with zeroes if that is what their clusters have; return their length.

    Raises:
        BlockingIOError: The clusters may be lost.
    """
    if state != ZERO:
        raise BlockingIOError
    buffer = Buffer(views)
    buffer.zero()
    return buffer.length


def _refuse(_views: Views, _offset: int, _flags: int) -> int:
    """Stand in for an inline read that a layer does not have."""
    raise BlockingIOError
