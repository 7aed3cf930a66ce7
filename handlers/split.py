"""split: several disks, one behind the other, as one.

For images that were cut to fit a file system, and for adding room behind a disk that
cannot grow. It knows where each leg begins, not what it is.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate

from vscsihba.block import Buffer, Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.errors import UsageError
from vscsihba.handlers.base import Handler, InlineVerbs, Mover
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.shared.medium_errors import shift_medium_errors


class SplitHandler(Fan):
    """Several disks concatenated."""

    name = "split"
    example = '{"handler": "split", "legs": ["/srv/disk.1", "/srv/disk.2"]}'
    workers = 64

    def check(self) -> None:
        """Check every leg."""
        for leg in self.legs:
            leg.check()

    def open(self) -> None:
        """Open every leg, or none.

        Raises:
            UsageError: Their blocks differ.
        """
        with ExitStack() as opened:
            self._parts: list[Handler] = []
            for leg in self.legs:
                self._parts.append(leg.open())
                opened.callback(leg.close)
            shapes = [part.geometry for part in self._parts]
            blocks = sorted({shape.block_size for shape in shapes})
            if len(blocks) > 1:
                raise UsageError(
                    f"the legs have different block sizes: {blocks}", cure="give them the same block_size"
                )
            self._starts = [0, *accumulate(shape.size for shape in shapes)]
            self._geometry = replace(
                shapes[0],
                size=self._starts[-1],
                physical_block_size=max(shape.physical_block_size for shape in shapes),
            )
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close every leg."""
        self._opened.close()

    @property
    def geometry(self) -> Geometry:
        """The legs in a row."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities that every leg has; a flush is needed if one needs it."""
        legs = [part.capabilities for part in self._parts]
        return Capabilities(
            read_only=any(leg.read_only for leg in legs),
            flush=any(leg.flush for leg in legs),
            unmap=all(leg.unmap for leg in legs),
            unmap_zeroes=all(leg.unmap_zeroes for leg in legs),
            extents=any(leg.extents for leg in legs),
            rotational=any(leg.rotational for leg in legs),
            in_place=all(leg.in_place for leg in legs),
            unmap_granularity=max(leg.unmap_granularity for leg in legs),
        )

    @property
    def place(self) -> str:
        """The places of the legs."""
        return "+".join(part.place for part in self._parts)

    @property
    def identity(self) -> str:
        """The identities of the legs."""
        return "split:" + "+".join(part.identity for part in self._parts)

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the leg that a request lies in; one that crosses a border has none."""
        inline = [part.inline for part in self._parts]
        return InlineVerbs(
            read=self._routed([(verbs.read, verbs.read_flags) for verbs in inline]),
            write=self._routed([(verbs.write, verbs.write_flags) for verbs in inline]),
            write_limit=min(verbs.write_limit for verbs in inline),
        )

    def _routed(self, moves: list[tuple[Mover | None, int]]) -> Mover | None:
        """Return a call that moves bytes of the leg that they are in; None if not every leg has one."""
        if any(move is None for move, _ in moves):
            return None
        starts = self._starts
        legs = [
            (move, flags, at) for (move, flags), at in zip(moves, starts, strict=False) if move is not None
        ]

        def routed(views: Views, offset: int, _flags: int) -> int:
            number = bisect_right(starts, offset)
            length = len(views[0]) if len(views) == 1 else sum(map(len, views))
            if offset + length > starts[number]:
                raise BlockingIOError
            move, flags, start = legs[number - 1]
            return move(views, offset - start, flags)

        return routed

    def read(self, offset: int, views: Views) -> None:
        """Read from each leg concerned."""
        buffer = Buffer(views)
        for part, start, at, length in self._pieces(offset, buffer.length):
            with shift_medium_errors(start):
                part.read(at, buffer.take(start + at - offset, length))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to each leg concerned."""
        buffer = Buffer(views)
        for part, start, at, length in self._pieces(offset, buffer.length):
            with shift_medium_errors(start):
                part.write(at, buffer.take(start + at - offset, length), fua=fua)

    def flush(self) -> None:
        """Flush every leg, all of them even if one fails."""
        with ExitStack() as flushes:
            for part in self._parts:
                flushes.callback(part.flush)

    def unmap(self, offset: int, length: int) -> None:
        """Unmap in each leg concerned."""
        for part, start, at, count in self._pieces(offset, length):
            with shift_medium_errors(start):
                part.unmap(at, count)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes to each leg concerned."""
        for part, start, at, count in self._pieces(offset, length):
            with shift_medium_errors(start):
                part.write_zeroes(at, count, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Ask the first leg concerned; the caller asks on behind what it told."""
        part, start, at, count = next(self._pieces(offset, length))
        with shift_medium_errors(start):
            extents = part.extents(at, count)
        return [
            replace(status, extent=Extent(start + status.extent.offset, status.extent.length))
            for status in extents
        ]

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Handler, int, int, int]]:
        """Cut a range at the borders of the legs: leg, where it begins, offset in it, bytes."""
        end = offset + length
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            start, stop = self._starts[number], min(end, self._starts[number + 1])
            yield self._parts[number], start, offset - start, stop - offset
            offset, number = stop, number + 1
