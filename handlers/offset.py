"""offset: a window into the layer below, such as one partition of an image.

It moves every byte by the same distance; where a partition is, `partitions` knows.
"""

from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.errors import UsageError
from vscsihba.handlers.asynchronous import moved
from vscsihba.handlers.base import AsyncVerbs, Handler, InlineVerbs, Mover
from vscsihba.handlers.filter import Transform
from vscsihba.handlers.options import Ordinal, Size
from vscsihba.handlers.shared.medium_errors import shift_medium_errors
from vscsihba.handlers.shared.partitions import Partition, find_partition


class OffsetHandler(Transform):
    """A range of another disk."""

    name = "offset"
    example = "offset:1MiB|/srv/disk.img"
    workers = 64
    never_blocks = True

    class Options(Handler.Options, kw_only=True):
        """Options of the offset filter."""

        offset: Annotated[Size, Meta(description="Start of the window on the layer below, such as 1MiB.")] = 0
        length: Annotated[
            Size | None, Meta(description="Length of the window; default: up to the end of the layer below.")
        ] = None
        partition: Annotated[
            Ordinal | None,
            Meta(
                description="Number of a partition (MBR or GPT, as in Linux), instead of offset and length."
            ),
        ] = None

        def __post_init__(self) -> None:
            """Refuse more than one description of the window."""
            if self.partition is not None and (self.offset or self.length is not None):
                raise ValueError('say "partition", or "offset" and "length"')

    options: Options

    def open(self) -> None:
        """Fit the window into the layer below.

        Raises:
            UsageError: It does not fit, or cuts a block in two, or there is no such partition.
        """
        below = self.next.geometry
        window = self._window()
        start, length = window.start, window.length
        self._start = start
        if start + length > below.size or length <= 0:
            raise UsageError(
                f"a window of {length} bytes at {start} does not fit into the {below.size} of the layer below"
            )
        if start % below.block_size:
            raise UsageError(
                f"offset {start} is not a multiple of the block size {below.block_size}", cure="round it"
            )
        self._geometry = replace(below, size=length)

    def _window(self) -> Partition:
        wanted = self.options
        if wanted.partition is not None:
            return find_partition(self.next, wanted.partition)
        rest = self.next.geometry.size - wanted.offset
        return Partition(wanted.offset, rest if wanted.length is None else wanted.length)

    @property
    def geometry(self) -> Geometry:
        """The blocks of the layer below, fewer of them."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the layer below for a part of itself; its key belongs to all of it."""
        return replace(self.next.capabilities, crypto_erase=False)

    @property
    def identity(self) -> str:
        """The place of the window in the medium below."""
        return f"offset:{self._start}+{self._geometry.size}:{self.next.identity}"

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the layer below, at the offset of the window."""
        below = self.next.inline
        return replace(below, read=self._moved(below.read), write=self._moved(below.write))

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The asynchronous verbs of the layer below, at the offset of the window."""
        below = self.next.asynchronous
        return moved(below, self._start) if below is not None and self._start else below

    def read(self, offset: int, views: Views) -> None:
        """Read from the window."""
        with shift_medium_errors(-self._start):
            self.next.read(self._start + offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to the window."""
        with shift_medium_errors(-self._start):
            self.next.write(self._start + offset, views, fua=fua)

    def flush(self) -> None:
        """Flush the layer below, which cannot be done for a part of it."""
        self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Unmap in the window."""
        with shift_medium_errors(-self._start):
            self.next.unmap(self._start + offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Write zeroes to the window."""
        with shift_medium_errors(-self._start):
            self.next.write_zeroes(self._start + offset, length, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the extents of the window, relative to its start."""
        with shift_medium_errors(-self._start):
            extents = self.next.extents(self._start + offset, length)
        return [
            replace(status, extent=Extent(status.extent.offset - self._start, status.extent.length))
            for status in extents
        ]

    def _moved(self, move: Mover | None) -> Mover | None:
        if move is None or self._start == 0:
            return move
        start = self._start

        def moved(views: Views, offset: int, flags: int) -> int:
            return move(views, start + offset, flags)

        return moved
