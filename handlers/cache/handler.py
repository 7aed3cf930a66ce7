"""cache: keeps blocks of a slow disk at hand.

*write-through* keeps what was read, and lets writes go below at once. *write-back* answers
a write when the cache has it, and a flush when everything is below and flushed there; so
it is honest, and only what lies between two flushes gets faster.

The cache is never needed: what its storage cannot hold, because it is full or fails, is read
and written below.

This module decides what is fetched, kept and written past the cache; `lines` holds the blocks,
`write_back` brings dirty ones below, `traffic` knows what is under way there.
"""

import errno
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, Geometry, Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cache.dirty_list import Shape, check_waiting
from vscsihba.handlers.cache.inline import InlineCache
from vscsihba.handlers.cache.lines import FAILURES, Line, clean_lines, dirty_lines, no_lines
from vscsihba.handlers.cache.masks import Piece, cut, mask, pieces, runs, touched
from vscsihba.handlers.cache.traffic import Span, Traffic
from vscsihba.handlers.cache.write_back import WriteBack
from vscsihba.handlers.filter import Filter, Transform
from vscsihba.handlers.options import Size
from vscsihba.handlers.shared import token_lock

log = logging.getLogger(__name__)

_GAP = 64 << 10
"""Bytes between two missing ranges that are read with them: one request is quicker than two."""


class CacheHandler(Transform):
    """A cache in memory for a slow disk."""

    name = "cache"
    example = "cache:size=256MiB|/dev/sdb"
    workers = 64

    class Options(Handler.Options, kw_only=True):
        """Options of the cache filter."""

        size: Annotated[Size, Meta(description="Capacity of the cache in memory, such as 256MiB.")]
        mode: Annotated[
            Literal["write-through", "write-back"],
            Meta(description="When a write completes: in the layer below, or in the cache."),
        ] = "write-through"
        block_size: Annotated[
            Literal[4096, 8192, 16384, 32768, 65536, 131072, 262144],
            Meta(description="Unit of caching in bytes."),
        ] = 4096

        def __post_init__(self) -> None:
            """Refuse a cache that is smaller than a block."""
            if self.size < self.block_size:
                raise ValueError("the cache is smaller than one of its blocks")

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._block = options.block_size
        self._back = options.mode == "write-back"
        self._lock = token_lock.TokenLock()
        self._traffic = Traffic(self._lock)

    def open(self) -> None:
        """Allocate the slots, and take over dirty blocks that a killed process had acknowledged.

        Raises:
            UsageError: Such writes are waiting, and would be lost with these options.
            HostError: Such writes are waiting for another medium than this one.
            InUseError: The disk has a cache in another process.
        """
        disk, about = self.next.identity, hashlib.sha256(self.next.place.encode()).hexdigest().encode()
        # A cache has the identity of what it caches, so one on another needs a name of its own.
        key = f"{_caches(self.next)} {disk}"
        name = f"cache-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        back = self._back and not self.next.capabilities.read_only
        count = self.options.size // self._block
        shape = Shape.of(self._block, count)
        try:
            waiting = check_waiting(name, about=about, block_size=self._block if back else None)
        except (UsageError, HostError) as error:
            raise type(error)(f"{disk}: {error.message}", cure=error.cure) from error
        try:
            if self._back:
                self._lines = dirty_lines(name, shape, count, about=about)
            else:
                # What is only read may be in several caches at once.
                self._lines = clean_lines(f"cache-{uuid.uuid4()}", shape, count)
        except OSError as error:
            if waiting:
                raise
            log.warning("%s has no cache, requests go past it: %s", disk, error)
            self._lines = no_lines(self._block)
        self._write_back = WriteBack(self._lines, self._lock, self.next)

    def close(self) -> None:
        """Write the dirty blocks back.

        Raises:
            OSError: Something did not get below; it is kept for the next one to open the disk.
        """
        try:
            if self._lines.dirty:
                self.flush()
        finally:
            self._lines.close()

    @property
    def geometry(self) -> Geometry:
        """The shape of the layer below."""
        return self.next.geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the layer below; dirty blocks are lost without a flush."""
        below = self.next.capabilities
        return replace(
            below,
            extents=False,
            crypto_erase=False,
            atomic_write=0,
            flush=below.flush or (self._back and not below.read_only),
        )

    @property
    def identity(self) -> str:
        """The identity of the layer below: it is the same medium."""
        return self.next.identity

    @property
    def inline(self) -> InlineVerbs:
        """Reads of blocks that are held, and writes that the cache or the layer below takes at once."""
        cache = InlineCache(self._lines, self._traffic, self._lock, self.next.inline)
        return cache.verbs(write_back=self._back, read_only=self.next.capabilities.read_only)

    def read(self, offset: int, views: Views) -> None:
        """Return blocks that are cached, fetch the rest."""
        buffer = Buffer(views)
        with ExitStack() as fetching:
            with self._lock:
                missing = self._read_held(offset, buffer)
                fetches = [(near, self._begin_fetch(near, fetching)) for near in self._near(missing)]
            for near, fetch in fetches:
                self._fetch(near, fetch, offset, buffer)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to the layer below or into the cache, as the mode says."""
        buffer = Buffer(views)
        first, last = self._blocks(offset, buffer.length)
        if not self._back:
            self._write_through(first, last, offset, views, fua=fua)
            return
        for piece in pieces(offset, buffer.length, self._lines.shape.line_size):
            self._keep(piece, buffer.take(piece.at, piece.length))
        if fua:
            self._write_back.force(first, last)

    def flush(self) -> None:
        """Write every dirty block to the layer below, and flush that.

        Raises:
            OSError: Something did not get there, and is kept.
        """
        self._write_back.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Forget whole blocks and unmap them below; parts of blocks are written as zeroes."""
        self._in_whole_blocks(offset, length, self.next.unmap)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Forget whole blocks and zero them below; parts of blocks are written as zeroes."""
        self._in_whole_blocks(
            offset, length, partial(self.next.write_zeroes, may_unmap=may_unmap, fua=fua), fua=fua
        )

    def resize(self, size: int) -> None:
        """Resize the layer below."""
        self.flush()
        smaller, larger = sorted((size, self.geometry.size))
        # The last block may be cut short by the old end or by the new one.
        with self._past_the_cache(smaller // self._block, -(-larger // self._block)):
            self.next.resize(size)

    def _in_whole_blocks(
        self, offset: int, length: int, below: Callable[[int, int], None], *, fua: bool = False
    ) -> None:
        """Call `below` for the whole blocks of a range, and write zeroes to the rest of it."""
        end, size = offset + length, self._block
        first, last = (
            -(-offset // size),
            self._blocks(offset, length)[1] if end == self.geometry.size else end // size,
        )
        if first >= last:
            self._zero(offset, end, fua=fua)
            return
        self._zero(offset, first * size, fua=fua)
        inner = min(last * size, end)
        with self._write_back.alone, self._changing_below(first, last):
            below(first * size, inner - first * size)
        self._zero(inner, end, fua=fua)

    def _zero(self, start: int, end: int, *, fua: bool) -> None:
        if start < end:
            self.write(start, [memoryview(bytes(end - start))], fua=fua)

    def _blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first block that a range touches, and the one after the last."""
        return offset // self._block, -(-(offset + length) // self._block)

    def _read_held(self, offset: int, buffer: Buffer) -> list[tuple[int, int]]:
        """Read the cached part of a request; return the runs of blocks that have to be fetched.

        Raises:
            OSError, MemoryError: A block is only here, and cannot be read.
        """
        missing: list[tuple[int, int]] = []
        shape = self._lines.shape
        for piece in pieces(offset, buffer.length, shape.line_size):
            line = self._lines.by_number.get(piece.number)
            lacking = touched(piece.within, piece.length, shape.block_size)
            if line is not None and lacking & line.held:
                self._lines.touch(line)
                for first, last in runs(lacking & line.held):
                    self._read_run(line, first, last, piece, buffer)
                lacking &= ~line.held
            start = piece.number * shape.blocks
            for first, last in runs(lacking):
                if missing and missing[-1][1] == start + first:
                    missing[-1] = (missing[-1][0], start + last)
                else:
                    missing.append((start + first, start + last))
        return missing

    def _read_run(self, line: Line, first: int, last: int, piece: Piece, buffer: Buffer) -> None:
        """Read adjacent blocks of a line; clean ones that cannot be read are not held any more."""
        start = max(first * self._block, piece.within)
        end = min(last * self._block, piece.within + piece.length)
        try:
            self._lines.read(line, start, buffer.take(piece.at + start - piece.within, end - start))
        except FAILURES:
            if last - first > 1:
                for block in range(first, last):
                    self._read_run(line, block, block + 1, piece, buffer)
                return
            if line.dirty & mask(first, last):
                raise
            at = line.number * self._lines.shape.blocks
            self._lines.drop_clean(at + first, at + last)

    def _near(self, missing: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """Group runs of blocks that are fetched by one read."""
        groups: list[list[tuple[int, int]]] = []
        for run in missing:
            if groups and (run[0] - groups[-1][-1][1]) * self._block <= _GAP:
                groups[-1].append(run)
            else:
                groups.append([run])
        return groups

    def _begin_fetch(self, near: list[tuple[int, int]], fetching: ExitStack) -> Span:
        """Begin a fetch, with the lock held; it ends with the context `fetching`."""
        fetch = self._traffic.begin_fetch(near[0][0], near[-1][1])
        fetching.callback(self._end_fetch, fetch)
        return fetch

    def _end_fetch(self, fetch: Span) -> None:
        with self._lock:
            self._traffic.end_fetch(fetch)

    def _fetch(self, near: list[tuple[int, int]], fetch: Span, offset: int, buffer: Buffer) -> bool:
        """Read runs of blocks from the layer below, and cache them unless they are changed meanwhile.

        Args:
            near: The runs.
            fetch: The fetch, which has begun.
            offset: First byte of a request on the disk.
            buffer: The request's, which gets its part of the blocks.

        Returns:
            False if they could not be cached.
        """
        size = self._block
        start, end = fetch.first * size, min(fetch.last * size, self.geometry.size)
        views, at = list[memoryview](), start
        for first, last in near:
            wanted = max(first * size, offset), min(last * size, offset + buffer.length)
            if wanted[0] < wanted[1]:
                views += [*_room(wanted[0] - at), *buffer.take(wanted[0] - offset, wanted[1] - wanted[0])]
                at = wanted[1]
        content = Buffer([*views, *_room(end - at)])
        self.next.read(start, content.views)
        kept = True
        with self._lock:
            for first, last in near if not fetch.stale else ():
                run = first * size, min(last * size, end)
                for number, within, at, count in pieces(run[0], run[1] - run[0], self._lines.shape.line_size):
                    part = content.take(run[0] - start + at, count)
                    kept = self._lines.hold(number, touched(within, count, size), part) and kept
        return kept

    def _write_through(self, first: int, last: int, offset: int, views: Views, *, fua: bool) -> None:
        with self._lock:
            change = self._traffic.begin_change(first, last)
        change_failed = True
        try:
            self.next.write(offset, views, fua=fua)
            change_failed = False
        finally:
            with self._lock:
                if change_failed or change.stale:
                    self._lines.drop_clean(first, last)
                else:
                    self._lines.refresh(offset, views)
                self._traffic.end_change(change)

    def _keep(self, piece: Piece, views: Views) -> None:
        """Write into a line of the cache; blocks that are written in part are fetched before."""
        number, size = piece.number, self._block
        start = number * self._lines.shape.blocks
        offset = start * size + piece.within
        first, last = self._blocks(offset, piece.length)
        blocks = touched(piece.within, piece.length, size)
        while True:
            with ExitStack() as fetching:
                with self._lock:
                    self._traffic.wait(first, last)
                    lacking = self._lacking(piece)
                    if not lacking:
                        self._traffic.spoil(first, last)
                        try:
                            if self._lines.write(number, blocks, piece.within, views):
                                return
                        except FAILURES:
                            break
                    full = self._lines.needs_room(number, blocks)
                    near = [(start + first_, start + last_) for first_, last_ in runs(lacking)]
                    fetch = self._begin_fetch(near, fetching) if lacking and not full else None
                if fetch is not None:
                    if not self._fetch(near, fetch, 0, Buffer()):
                        break
                elif not (full and self._write_back.make_room(number)):
                    break
        with self._past_the_cache(first, last):
            self.next.write(offset, views)

    def _lacking(self, piece: Piece) -> int:
        """Return the blocks of a line that a write changes in part and that are not held."""
        line = self._lines.by_number.get(piece.number)
        lacking = cut(piece.within, piece.length, self._block) & ~(line.held if line is not None else 0)
        end = piece.within + piece.length
        last = end // self._block
        if lacking and piece.within <= last * self._block:
            start = piece.number * self._lines.shape.line_size
            if start + end == self.geometry.size:  # the last block of the disk is whole, though it is short
                lacking &= ~(1 << last)
        return lacking

    @contextmanager
    def _changing_below(self, first: int, last: int) -> Iterator[None]:
        """Drop blocks when the change below has succeeded, and cache none that is read before."""
        with self._lock:
            change = self._begin_below(first, last)
        try:
            yield
            with self._lock:
                self._lines.drop(first, last)
        finally:
            self._end_below(change)

    @contextmanager
    def _past_the_cache(self, first: int, last: int) -> Iterator[None]:
        """Change blocks of the layer below, write dirty ones back before, and cache none read meanwhile.

        Raises:
            OSError: One that is dirty could not be written back; nothing has changed.
        """
        with self._write_back.alone:
            while True:
                with self._lock:
                    if not self._lines.is_dirty(first, last):
                        change = self._begin_below(first, last)
                        break
                if not self._write_back.write(self._write_back.dirty(first, last)):
                    raise OSError(errno.EIO, "the list of dirty blocks cannot be changed")
            try:
                yield
            finally:
                self._end_below(change)

    def _begin_below(self, first: int, last: int) -> Span:
        self._lines.drop_clean(first, last)
        return self._traffic.begin_change(first, last)

    def _end_below(self, change: Span) -> None:
        with self._lock:
            self._traffic.end_change(change)


def _room(length: int) -> list[memoryview]:
    """Return room for bytes that nobody has asked for."""
    return [memoryview(bytearray(length))] if length else []


def _caches(handler: Handler) -> int:
    """Return how many caches there are in a stack, from `handler` down."""
    below = handler.next if isinstance(handler, Filter) else None
    return isinstance(handler, CacheHandler) + (_caches(below) if below is not None else 0)
