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
from vscsihba.handlers.cow.disk import CowDisk
from vscsihba.handlers.cow.format import BASE, DATA, FIRST_CLUSTER, MAP_BLOCK, PER_GROUP, ZERO


def inline_verbs(disks: Sequence[CowDisk], base: Handler) -> InlineVerbs:
    """Return the movers for a disk with these overlays, from the topmost down, on this base."""
    verbs = _InlineCow(disks, base)
    stored = disks[0].overlay.store.inline
    if stored.write is None:
        return InlineVerbs(read=verbs.reader())
    parts = batched(stored.write)
    return InlineVerbs(
        read=verbs.reader(),
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
        self._layers = [(disk.overlay, disk.overlay.store.inline) for disk in disks]
        self._below, self._below_size = base.inline, base.geometry.size
        self._size = disks[0].overlay.cluster_size
        self._group = self._size * PER_GROUP

    def reader(self) -> Mover:
        """Return the read; all its names are local, since it runs once a command."""
        layers, size, group, spread = self._layers, self._size, self._group, self._read_spread
        below, below_size = self._below, self._below_size

        def read(views: Views, offset: int, _flags: int) -> int:
            end = offset + sum(map(len, views))
            first, last = offset // size, (end - 1) // size
            for overlay, stored in layers:
                if end > overlay.header.size:
                    return spread(0, views, offset)
                states = overlay.map.states
                state = states[first]
                if first != last and states.count(state, first, last + 1) != last + 1 - first:
                    return spread(0, views, offset)
                if state == BASE:
                    continue
                # The places of two groups do not adjoin.
                if state != DATA or stored.read is None or offset // group != (end - 1) // group:
                    return spread(0, views, offset)
                place = offset + FIRST_CLUSTER + offset // group * MAP_BLOCK
                done = stored.read(views, place, stored.read_flags)
                if overlay.broken:  # a flush has failed since, perhaps: `disk` knows what is lost
                    raise BlockingIOError
                return done
            if end <= below_size and below.read is not None:
                return below.read(views, offset, below.read_flags)
            return spread(0, views, offset)

        return read

    def writer(self, move: Mover) -> Mover:
        """Return the write that stores bytes with `move`, a write of the topmost overlay's file."""
        overlay, stored = self._layers[0]
        size, group, flags = self._size, self._group, stored.write_flags
        write_new = partial(self._write_new, move)

        def write(views: Views, offset: int, _flags: int) -> int:
            length = sum(map(len, views))
            end = offset + length
            first, last = offset // size, (end - 1) // size
            if end > overlay.header.size or offset // group != (end - 1) // group:
                raise BlockingIOError
            states = overlay.map.states
            if states.count(DATA, first, last + 1) != last + 1 - first:
                return write_new(views, offset, length)
            done = move(views, offset + FIRST_CLUSTER + offset // group * MAP_BLOCK, flags)
            if overlay.broken:
                raise OSError(errno.EIO, "an earlier flush failed")
            return done

        return write

    def _read_spread(self, level: int, views: Views, offset: int) -> int:
        """Read a range from the overlay of a level, and what it has not from those below.

        Raises:
            BlockingIOError: A part of it has to wait, or may be lost.
        """
        buffer = Buffer(views)
        if level == len(self._layers):
            inside = max(0, min(buffer.length, self._below_size - offset))
            if inside:
                _fill(self._below, buffer.take(0, inside), offset, inside)
            buffer.zero(inside)
            return buffer.length
        overlay, stored = self._layers[level]
        inside = max(0, min(buffer.length, overlay.header.size - offset))
        for state, run in overlay.runs(offset, inside):
            parts = buffer.take(run.offset - offset, run.length)
            if state == BASE:
                self._read_spread(level + 1, parts, run.offset)
            elif state == ZERO:
                Buffer(parts).zero()
            elif state == DATA and run.offset // self._group == (run.end - 1) // self._group:
                _fill(stored, parts, overlay.place(run.offset), run.length)
            else:
                raise BlockingIOError
        buffer.zero(inside)
        if overlay.broken:
            raise BlockingIOError
        return buffer.length

    def _write_new(self, move: Mover, views: Views, offset: int, length: int) -> int:
        """Store a range in the topmost overlay, with new clusters; see `CowDisk.write`.

        Raises:
            BlockingIOError: That has to wait; nothing has changed.
            OSError: A part may be stored.
        """
        (overlay, stored), size = self._layers[0], self._size
        if not self._top.allocating.acquire(blocking=False):
            raise BlockingIOError
        try:
            states = overlay.map.states
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
        self._read_spread(0, [room], start)
        return [room]


def _fill(inline: InlineVerbs, views: Views, offset: int, length: int) -> None:
    """Read with an inline verb.

    Raises:
        BlockingIOError: That has to wait.
    """
    if inline.read is None or inline.read(views, offset, inline.read_flags) != length:
        raise BlockingIOError
