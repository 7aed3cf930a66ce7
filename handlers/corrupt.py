"""corrupt: a disk that returns or stores wrong data on purpose, to test programs that should notice.

It flips bits of what is read, stores only the head of a write, loses a write or puts it
in the wrong place, and reports success each time. The range and the luck are chosen by
options; everything else goes down untouched.
"""

import random
import threading
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Buffer, Views
from vscsihba.handlers.base import Handler
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.options import Probability, Size

_SECTOR = 512
"""Bytes that a disk stores whole or not at all."""


class CorruptHandler(PassThrough):
    """A disk that returns or stores wrong data."""

    name = "corrupt"
    example = "corrupt:flip=0.001|/srv/disk.img"
    workers = 64

    class Options(Handler.Options, kw_only=True):
        """Options of the corrupt filter."""

        flip: Annotated[
            Probability, Meta(description="Probability that a read has a wrong bit, from 0 to 1.")
        ] = 0.0
        torn: Annotated[
            Probability,
            Meta(description="Probability that only the first sectors of a write are stored, from 0 to 1."),
        ] = 0.0
        lost: Annotated[Probability, Meta(description="Probability that a write is lost, from 0 to 1.")] = 0.0
        misplaced: Annotated[
            Probability,
            Meta(description="Probability that a write goes to another place in the range, from 0 to 1."),
        ] = 0.0
        offset: Annotated[Size, Meta(description="First byte of the affected range.")] = 0
        length: Annotated[
            Size | None, Meta(description="Length of the range; default: up to the end of the disk.")
        ] = None
        seed: Annotated[int, Meta(description="Seed of the random numbers.")] = 0

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._luck = random.Random(options.seed)  # noqa: S311  # tests want the same luck again
        self._lock = threading.Lock()

    def read(self, offset: int, views: Views) -> None:
        """Read, then flip a bit with the probability `flip`."""
        self.next.read(offset, views)
        start, end = self._within(offset, sum(map(len, views)))
        if start < end and self._happens(self.options.flip):
            at, bit = self._choose(start, end), self._choose(0, 8)
            (view,) = Buffer(views).take(at - offset, 1)
            view[0] ^= 1 << bit

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write all of the data, or a part, or nothing, or to a wrong place."""
        length = sum(map(len, views))
        start, end = self._within(offset, length)
        if start < end and self._happens(self.options.lost):
            return
        if start < end and self._happens(self.options.torn):
            views = Buffer(views).take(0, self._choose(0, -(-length // _SECTOR)) * _SECTOR)
        if start < end and self._happens(self.options.misplaced):
            offset = self._elsewhere(length)
        if views:
            self.next.write(offset, views, fua=fua)

    def _range(self) -> tuple[int, int]:
        start, length, size = self.options.offset, self.options.length, self.geometry.size
        return min(start, size), size if length is None else min(start + length, size)

    def _within(self, offset: int, length: int) -> tuple[int, int]:
        """Cut a request down to the corrupted range: first byte, byte after the last."""
        start, end = self._range()
        return max(start, offset), min(end, offset + length)

    def _elsewhere(self, length: int) -> int:
        """Choose the place of a misplaced write: a block that leaves it inside the range."""
        start, end = self._range()
        block = self.geometry.block_size
        start = min(start, self.geometry.size - length)
        return start + self._choose(0, max(1, (end - start - length) // block + 1)) * block

    def _happens(self, probability: float) -> bool:
        with self._lock:
            return self._luck.random() < probability

    def _choose(self, start: int, end: int) -> int:
        with self._lock:
            return self._luck.randrange(start, end)
