"""cache: keeps blocks of a slow disk at hand.

*write-through* keeps what was read, and lets writes go below at once. *write-back* answers
a write when the cache has it, and a flush when everything is below and flushed there; so
it is honest, and only what lies between two flushes gets faster.

The cache is never needed: what its storage cannot hold, because it is full or fails, is read
and written below.

This module decides what is fetched and written back when; `slots` holds the blocks.
The layer below is slow, so nothing waits for it under the lock: a fetch whose blocks were
written meanwhile is stale, and not kept.
"""

import errno
import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta

from vscsihba.block import Buffer, Capabilities, Geometry, Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cache.slots import FAILURES, check_waiting, clean_slots, dirty_slots, no_slots
from vscsihba.handlers.filter import Filter, Transform
from vscsihba.handlers.options import Size

log = logging.getLogger(__name__)

_AT_ONCE = 1 << 20
_MAKE_ROOM = 64
"""Blocks to write back at once when all are dirty."""


@dataclass(slots=True, eq=False)
class _Under:
    """Blocks that are being read from, or written to, the layer below."""

    first: int
    last: int
    stale: bool = False

    def meets(self, first: int, last: int) -> bool:
        return self.first < last and first < self.last


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
        self._lock = threading.Lock()
        self._changed_below = threading.Condition(self._lock)
        self._writing_back = threading.Lock()
        self._fetches: list[_Under] = []
        self._writes: list[_Under] = []

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
        try:
            waiting = check_waiting(name, about=about, block_size=self._block if back else None)
        except (UsageError, HostError) as error:
            raise type(error)(f"{disk}: {error.message}", cure=error.cure) from error
        try:
            if self._back:
                self._slots = dirty_slots(name, self._block, count, about=about)
            else:
                # What is only read may be in several caches at once.
                self._slots = clean_slots(f"cache-{uuid.uuid4()}", self._block, count)
        except OSError as error:
            if waiting:
                raise
            log.warning("%s has no cache, requests go past it: %s", disk, error)
            self._slots = no_slots(self._block)

    def close(self) -> None:
        """Write the dirty blocks back.

        Raises:
            OSError: Something did not get below; it is kept for the next one to open the disk.
        """
        try:
            if self._dirty():
                self.flush()
        finally:
            self._slots.close()

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
        """Reads of a single block that is held."""

        def read(views: Views, offset: int, _flags: int) -> int:
            length = sum(map(len, views))
            block, within = divmod(offset, self._block)
            if within + length > self._block or not self._lock.acquire(blocking=False):
                raise BlockingIOError
            try:
                slot = self._slots.find(block)
                if slot is None:
                    raise BlockingIOError
                self._slots.read(slot, within, views)
            finally:
                self._lock.release()
            return length

        return InlineVerbs(read=read)

    def read(self, offset: int, views: Views) -> None:
        """Return blocks that are cached, fetch the rest."""
        buffer = Buffer(views)
        missing: list[tuple[int, int]] = []
        with self._lock:
            for block, within, at, count in self._pieces(offset, buffer.length):
                if self._read_held(block, within, buffer.take(at, count)):
                    continue
                if missing and missing[-1][1] == block:
                    missing[-1] = (missing[-1][0], block + 1)
                else:
                    missing.append((block, block + 1))
        for first, last in missing:
            content, _ = self._fetch(first, last)
            start = max(offset, first * self._block)
            buffer.scatter(content[start - first * self._block :], start - offset)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to the layer below or into the cache, as the mode says."""
        length = sum(map(len, views))
        first, last = self._blocks(offset, length)
        if not self._back:
            with self._changing_below(first, last):
                self.next.write(offset, views, fua=fua)
            return
        buffer = Buffer(views)
        for block, within, at, count in self._pieces(offset, length):
            self._keep(block, within, buffer.gather(at, count))
        if fua:
            with self._writing_back:
                dirty = [block for block in self._dirty() if first <= block < last]
                # The others had to make room, and went below without being forced on.
                self._write_back(dirty, fua=True, flush=len(dirty) < last - first)

    def flush(self) -> None:
        """Write every dirty block to the layer below, and flush that.

        Raises:
            OSError: Something did not get there, and is kept.
        """
        with self._writing_back:
            self._write_back(self._dirty(), flush=True)

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
        with self._writing_back, self._changing_below(first, last):
            below(first * size, inner - first * size)
        self._zero(inner, end, fua=fua)

    def _zero(self, start: int, end: int, *, fua: bool) -> None:
        if start < end:
            self.write(start, [memoryview(bytes(end - start))], fua=fua)

    def _blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first block that a range touches, and the one after the last."""
        return offset // self._block, -(-(offset + length) // self._block)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a range at the borders of blocks: block, byte in it, byte in the request, bytes."""
        at = 0
        while at < length:
            block, within = divmod(offset + at, self._block)
            count = min(self._block - within, length - at)
            yield block, within, at, count
            at += count

    def _length(self, block: int) -> int:
        """Bytes of a block; the last one of the disk may be cut short."""
        return min(self._block, self.geometry.size - block * self._block)

    def _read_held(self, block: int, within: int, views: Views) -> bool:
        """Read a part of a cached block; return False if it has to be read from the layer below.

        Raises:
            OSError, MemoryError: It is only here, and cannot be read.
        """
        slot = self._slots.find(block)
        if slot is None:
            return False
        try:
            self._slots.read(slot, within, views)
        except FAILURES:
            if self._slots.is_dirty(block, block + 1):
                raise
            self._slots.drop_clean(block, block + 1)
            return False
        return True

    def _fetch(self, first: int, last: int) -> tuple[memoryview, bool]:
        """Read blocks from the layer below, and cache them unless a write changes them meanwhile.

        Returns:
            Their content, and whether there was room for them.
        """
        start, size, room = first * self._block, self._block, True
        content = memoryview(bytearray(min(last * size, self.geometry.size) - start))
        with self._lock:
            fetch = _Under(first, last, stale=any(write.meets(first, last) for write in self._writes))
            self._fetches.append(fetch)
        try:
            self.next.read(start, [content])
            with self._lock:
                for block in range(first, last) if not fetch.stale else ():
                    if self._slots.find(block) is None:
                        room = self._slots.hold(block, content[block * size - start :][:size]) and room
        finally:
            with self._lock:
                self._fetches.remove(fetch)
        return content, room

    def _keep(self, block: int, within: int, data: bytes) -> None:
        """Write a part of a block into the cache; the rest of the block is read from the layer below."""
        whole = len(data) == self._length(block)
        while True:
            with self._lock:
                while self._writes and any(write.meets(block, block + 1) for write in self._writes):
                    self._changed_below.wait()
                kept = self._kept(block, within, memoryview(data), whole=whole)
                if kept:
                    return
                full = self._slots.all_dirty
            if kept is None and full:
                if not self._make_room():
                    break
            elif kept is False or not self._fetch(block, block + 1)[1]:
                break
        with self._past_the_cache(block, block + 1):
            self.next.write(block * self._block + within, [memoryview(data)])

    def _kept(self, block: int, within: int, data: memoryview, *, whole: bool) -> bool | None:
        """Change a block in the cache.

        Returns:
            Whether that was done; None if room has to be made first, or the block fetched.
        """
        self._spoil_fetches(block, block + 1)
        slot = self._slots.find(block)
        if slot is not None:
            try:
                self._slots.change(slot, block, within, data)
            except FAILURES:
                return False
            return True
        if not whole or self._slots.all_dirty:
            return None
        return self._slots.hold_dirty(block, data)

    def _make_room(self) -> bool:
        """Write some blocks back if all are dirty; return False if that makes no room."""
        with self._writing_back:
            with self._lock:
                blocks = [] if self._slots.has_room else self._slots.dirty[:_MAKE_ROOM]
            return self._write_back(blocks)

    def _write_back(self, blocks: list[int], *, fua: bool = False, flush: bool = False) -> bool:
        """Write dirty blocks to the layer below; one thread at a time, or an older content might come last.

        They are clean once that has succeeded, with `flush` the flush too.

        Returns:
            False if they are below and stay dirty, for that could not be noted.
        """
        versions: dict[int, int] = {}
        for run in _runs(blocks, _AT_ONCE // self._block):
            content = memoryview(bytearray(sum(map(self._length, run))))
            with self._lock:
                for number, block in enumerate(run):
                    slot = self._slots.find(block)
                    assert slot is not None  # noqa: S101  # who drops a dirty block has the lock for writing back
                    self._slots.read(slot, 0, [content[number * self._block :][: self._length(block)]])
                    versions[block] = slot.version
            self.next.write(run[0] * self._block, [content], fua=fua)
        if flush:
            self.next.flush()
        with self._lock:
            noted = [self._slots.clean(block, version) for block, version in versions.items()]
        return all(noted)

    def _dirty(self) -> list[int]:
        with self._lock:
            return self._slots.dirty

    @contextmanager
    def _changing_below(self, first: int, last: int) -> Iterator[None]:
        """Drop blocks when the change below has succeeded, and cache none that is read before."""
        with self._lock:
            write = self._begin_below(first, last)
        try:
            yield
            with self._lock:
                self._slots.drop(first, last)
        finally:
            self._end_below(write)

    @contextmanager
    def _past_the_cache(self, first: int, last: int) -> Iterator[None]:
        """Change blocks of the layer below, write dirty ones back before, and cache none read meanwhile.

        Raises:
            OSError: One that is dirty could not be written back; nothing has changed.
        """
        with self._writing_back:
            while True:
                with self._lock:
                    if not self._slots.is_dirty(first, last):
                        write = self._begin_below(first, last)
                        break
                    dirty = [block for block in self._slots.dirty if first <= block < last]
                if not self._write_back(dirty):
                    raise OSError(errno.EIO, "the list of dirty blocks cannot be changed")
            try:
                yield
            finally:
                self._end_below(write)

    def _begin_below(self, first: int, last: int) -> _Under:
        write = _Under(first, last)
        self._writes.append(write)
        self._spoil_fetches(first, last)
        self._slots.drop_clean(first, last)
        return write

    def _end_below(self, write: _Under) -> None:
        with self._lock:
            self._writes.remove(write)
            self._changed_below.notify_all()

    def _spoil_fetches(self, first: int, last: int) -> None:
        for fetch in self._fetches:
            fetch.stale = fetch.stale or fetch.meets(first, last)


def _caches(handler: Handler) -> int:
    """Return how many caches there are in a stack, from `handler` down."""
    below = handler.next if isinstance(handler, Filter) else None
    return isinstance(handler, CacheHandler) + (_caches(below) if below is not None else 0)


def _runs(blocks: list[int], most: int) -> Iterator[list[int]]:
    """Group blocks that adjoin, `most` at once."""
    run: list[int] = []
    for block in sorted(blocks):
        if run and (block != run[-1] + 1 or len(run) == most):
            yield run
            run = []
        run.append(block)
    if run:
        yield run
