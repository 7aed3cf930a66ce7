"""The lines of a cache: which blocks it holds, which of them are dirty, and what is evicted next.

A line is a run of adjacent blocks of the disk, aligned to its own length. It has an extent of the cache's
file, in which each of its blocks has a fixed place, so blocks that adjoin on the disk adjoin in the file,
and one system call moves them. Any of the blocks may be held: the file is sparse, and a block that is not
held needs no memory.

A block is published when its content is in the file, and no failure of the two files leaves one that has
another content than the layer below and is not dirty.

Nothing here takes a lock; `handler` does, and it calls the layer below.
"""

import logging
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass

from vscsihba.block import Buffer, Views
from vscsihba.handlers.cache.dirty_list import DirtyList, Shape, check_waiting
from vscsihba.handlers.cache.masks import mask, pieces, runs, touched
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore

log = logging.getLogger(__name__)

FAILURES = (OSError, MemoryError)
"""Failures of the storage of a cache; each lets the request go past it."""


@dataclass(slots=True, eq=False)
class Line:
    """A line, with masks of its blocks (`masks`).

    Attributes:
        number: Of the line on the disk.
        extent: Number of its extent in the file.
        at: Byte offset of that extent.
        memory: Blocks that may take memory.
        held: Blocks that are held.
        dirty: Held blocks whose content is not below yet.
        written_back: Dirty blocks that are being written below, and were not changed since.
    """

    number: int
    extent: int
    at: int
    memory: int
    held: int = 0
    dirty: int = 0
    written_back: int = 0


class Lines:
    """Room for some blocks, in lines, in the order of their use.

    Args:
        shape: Of blocks and lines.
        count: Blocks that there is room for.
        data: The file with their contents; None for a cache that holds nothing.
        dirty_list: The list of dirty blocks; None if there never are any.

    Attributes:
        shape: Of blocks and lines.
        data: The file with the contents.
        by_number: The lines with held blocks.
        dirty: Those with dirty blocks, the least recently used first.
        clean: All others, likewise.
    """

    def __init__(
        self, shape: Shape, count: int, data: TmpfsStore | None, dirty_list: DirtyList | None
    ) -> None:
        self.shape = shape
        self.data = data
        self.by_number: dict[int, Line] = {}
        self.dirty: OrderedDict[int, Line] = OrderedDict()
        self.clean: OrderedDict[int, Line] = OrderedDict()
        self._count = count
        self._dirty_list = dirty_list
        self._used = 0
        self._extents = 0
        self._spare: list[tuple[int, int]] = []
        self._told = False
        if data is not None and dirty_list is not None:
            self._take_over(data, dirty_list.take_left())

    def _take_over(self, data: TmpfsStore, left: dict[int, tuple[int, int]]) -> None:
        """Hold the dirty blocks that a killed process has left, and free the memory of its other blocks."""
        size, end = self.shape.block_size, 0
        for extent, (number, dirty) in sorted(left.items()):
            line = Line(number, extent, extent * self.shape.line_size, dirty, dirty, dirty)
            self.by_number[number] = self.dirty[number] = line
            self._used += dirty.bit_count()
            self._spare += [(free, 0) for free in range(self._extents, extent)]
            self._extents = extent + 1
            for first, last in runs(dirty):
                data.free(end, line.at + first * size - end)
                end = line.at + last * size
        data.cut(end)

    def close(self) -> None:
        """Free the blocks; dirty ones are kept for the next process."""
        forget = not self.dirty
        with ExitStack() as closing:
            for file in (self.data, self._dirty_list):
                if file is not None:
                    closing.callback(file.close, forget=forget)

    def touch(self, line: Line) -> None:
        """Count a use of a line."""
        (self.dirty if line.dirty else self.clean).move_to_end(line.number)

    def read(self, line: Line, within: int, views: Views) -> None:
        """Fill `views` from held blocks of a line, from byte `within` of it on.

        Raises:
            OSError, MemoryError: They cannot be read.
        """
        assert self.data is not None  # noqa: S101  # there is a line, so there is room for it
        self.data.get(line.at + within, views)

    def hold(self, number: int, blocks: int, content: Views) -> bool:
        """Hold clean blocks of a line, in place of the least recently used clean ones.

        Args:
            number: Of the line.
            blocks: Adjacent ones; those that are held already stay as they are.
            content: Of all of them; the last block of the disk may be cut short.

        Returns:
            False if that was not possible: too many others are dirty, or there is no memory.
        """
        line = self.by_number.get(number)
        missing = blocks if line is None else blocks & ~line.held
        size, buffer = self.shape.block_size, Buffer(content)
        start = ((blocks & -blocks).bit_length() - 1) * size
        for first, last in runs(missing):
            at = first * size - start
            part = buffer.take(at, min((last - first) * size, buffer.length - at))
            line = self._with_memory(number, mask(first, last))
            if line is None:
                return False
            try:
                self._fill(line, first * size, part)
            except FAILURES as error:
                self._tell(error)
                self._forget(line, mask(first, last))
                return False
            line.held |= mask(first, last)
            self._publish(line)
        return True

    def write(self, number: int, blocks: int, within: int, views: Views) -> bool:
        """Store bytes in blocks of a line, which are dirty then.

        Args:
            number: Of the line.
            blocks: Those that `views` touch; one that is touched in part is held.
            within: First byte in the line.
            views: The bytes.

        Returns:
            False if there is no room before dirty blocks have been written back; nothing has changed.

        Raises:
            OSError, MemoryError: They cannot be stored. Blocks that were clean are not held any more; dirty
                ones may be changed in part.
        """
        line = self._with_memory(number, blocks)
        if line is None:
            return False
        line.written_back &= ~blocks
        clean = blocks & ~line.dirty
        try:
            if line.held & blocks:
                self._put(line, within, views)
            else:
                self._fill(line, within, views)
            if clean:
                self._list(line, line.dirty | blocks)
        except FAILURES as error:
            self._tell(error)
            self._forget(line, clean)
            raise
        if clean:
            line.held |= blocks
            line.dirty |= blocks
        self._publish(line)
        return True

    def refresh(self, offset: int, views: Views) -> None:
        """Store bytes that are below now in those of their blocks that are held; none of these is dirty.

        Args:
            offset: First byte on the disk.
            views: The bytes.
        """
        buffer, size = Buffer(views), self.shape.block_size
        for number, within, at, count in pieces(offset, buffer.length, self.shape.line_size):
            line = self.by_number.get(number)
            held = line.held & touched(within, count, size) if line is not None else 0
            if line is None or not held:
                continue
            try:
                if count == buffer.length and held == touched(within, count, size):
                    self._put(line, within, views)
                    return
                for first, last in runs(held):
                    start, end = max(within, first * size), min(within + count, last * size)
                    self._put(line, start, buffer.take(at + start - within, end - start))
            except FAILURES as error:
                self._tell(error)
                self._forget(line, held)

    def mark_clean(self, line: Line, blocks: int) -> bool:
        """Mark dirty blocks clean, except those that were changed since they were read to be written back.

        Returns:
            False if that could not be listed. They stay dirty and are written below once more, which is no
            harm.
        """
        blocks &= line.written_back
        if not blocks:
            return True
        try:
            self._list(line, line.dirty & ~blocks)
        except FAILURES as error:
            self._tell(error)
            return False
        line.dirty &= ~blocks
        self._publish(line)
        return True

    def is_dirty(self, first: int, last: int) -> bool:
        """Return whether one of the blocks from `first` to before `last` is dirty."""
        return any(line.dirty & blocks for line, blocks in self.within(first, last))

    def drop_clean(self, first: int, last: int) -> None:
        """Drop the clean blocks from `first` to before `last`."""
        for line, blocks in self.within(first, last):
            self._forget(line, blocks & ~line.dirty)

    def drop(self, first: int, last: int) -> None:
        """Drop the blocks from `first` to before `last`, dirty or not.

        Raises:
            OSError, MemoryError: Dirty ones cannot be forgotten; they are still there, and so may be others.
        """
        for line, blocks in self.within(first, last):
            if line.dirty & blocks:
                self._list(line, line.dirty & ~blocks)
                line.dirty &= ~blocks
                self._publish(line)
            self._forget(line, blocks)

    def within(self, first: int, last: int) -> list[tuple[Line, int]]:
        """Return each line with held blocks from `first` to before `last`, with these blocks."""
        per_line = self.shape.blocks
        numbers = range(first // per_line, -(-last // per_line))
        # Whichever is shorter: a terabyte may be unmapped with ten lines held.
        if len(numbers) < len(self.by_number):
            lines = [self.by_number[number] for number in numbers if number in self.by_number]
        else:
            lines = [line for line in self.by_number.values() if line.number in numbers]
        found = []
        for line in lines:
            start = line.number * per_line
            found.append((line, mask(max(0, first - start), min(per_line, last - start)) & line.held))
        return [(line, blocks) for line, blocks in found if blocks]

    def needs_room(self, number: int, blocks: int) -> bool:
        """Return whether dirty blocks have to be written back before blocks of a line can be held."""
        line = self.by_number.get(number)
        missing = (blocks & ~line.memory if line is not None else blocks).bit_count()
        is_full = self._used + missing > self._count and len(self.clean) <= (number in self.clean)
        return is_full and bool(self.dirty)

    def _with_memory(self, number: int, blocks: int) -> Line | None:
        """Return a line in which blocks may take memory, None if too many others are dirty."""
        line = self.by_number.get(number)
        if line is not None and not blocks & ~line.memory:
            return line
        self.clean.pop(number, None)  # else it might be evicted for itself
        if line is None:
            line = self._new_line(number, blocks)
        wanted = (blocks & ~line.memory).bit_count()
        while self._used + wanted > self._count and self.clean:
            self._evict()
        has_room = self._used + wanted <= self._count
        if has_room:
            self._used += wanted
            line.memory |= blocks
        if line.held:
            self._publish(line)
        elif not has_room:
            self._release(line)
        return line if has_room else None

    def _new_line(self, number: int, blocks: int) -> Line:
        """Return a line that is not published; where all memory is used, with that of one that it evicts."""
        extent, memory = self._extents, 0
        if self._spare:
            extent, memory = self._spare.pop()
        elif self.clean and self._used + blocks.bit_count() > self._count:
            victim = self._unpublish()
            extent, memory = victim.extent, victim.memory
        else:
            self._extents += 1
        if memory & ~blocks:
            memory = self._freed(extent, memory)
        return Line(number, extent, extent * self.shape.line_size, memory)

    def _publish(self, line: Line) -> None:
        """Let a line be found, as the most recently used one."""
        number = line.number
        self.by_number[number] = line
        to, other = (self.dirty, self.clean) if line.dirty else (self.clean, self.dirty)
        other.pop(number, None)
        to[number] = line
        to.move_to_end(number)

    def _unpublish(self) -> Line:
        """Return the least recently used clean line, which nobody finds from now on."""
        number, line = self.clean.popitem(last=False)
        del self.by_number[number]
        return line

    def _evict(self) -> int:
        """Evict the least recently used clean line; return the number of blocks whose memory that frees."""
        used = self._used
        self._release(self._unpublish())
        return used - self._used

    def _forget(self, line: Line, blocks: int) -> None:
        """Hold clean blocks of a line no longer."""
        line.held &= ~blocks
        if not line.held:
            self.clean.pop(line.number, None)
            self.by_number.pop(line.number, None)
            self._release(line)

    def _release(self, line: Line) -> None:
        """Give back the extent of a line that nobody finds."""
        self._spare.append((line.extent, self._freed(line.extent, line.memory)))

    def _freed(self, extent: int, memory: int) -> int:
        """Free the memory of an extent; return the blocks that still take some."""
        try:
            if memory:
                assert self.data is not None  # noqa: S101  # there is a line, so there is room for it
                self.data.free(extent * self.shape.line_size, self.shape.line_size)
        except FAILURES as error:
            self._tell(error)
            return memory
        self._used -= memory.bit_count()
        return 0

    def _fill(self, line: Line, within: int, content: Views) -> None:
        """Fill blocks that are not held, if need be with the memory of those that are used least.

        Raises:
            OSError, MemoryError: There is none.
        """
        try:
            self._put(line, within, content)
        except FAILURES:
            self.clean.pop(line.number, None)
            missing = -(-sum(map(len, content)) // self.shape.block_size)
            while missing > 0 and self.clean:
                missing -= self._evict()
            if line.held:
                self._publish(line)
            self._put(line, within, content)

    def _put(self, line: Line, within: int, views: Views) -> None:
        assert self.data is not None  # noqa: S101  # there is a line, so there is room for it
        self.data.put_views(line.at + within, views)

    def _list(self, line: Line, dirty: int) -> None:
        assert self._dirty_list is not None  # noqa: S101  # without it no block is made dirty
        self._dirty_list.put(line.extent, line.number, dirty)

    def _tell(self, error: OSError | MemoryError) -> None:
        """Say once that the cache holds less than it was asked to."""
        if not self._told:
            self._told = True
            log.warning("the cache has no room, what it cannot hold goes past it: %s", error)


def clean_lines(name: str, shape: Shape, count: int) -> Lines:
    """Return lines that are never dirty.

    Args:
        name: Unique for ever.
        shape: Of blocks and lines.
        count: Blocks that there is room for.

    Raises:
        OSError: There is no place for the file.
    """
    return Lines(shape, count, TmpfsStore(f"{name}.data"), None)


def dirty_lines(name: str, shape: Shape, count: int, *, about: bytes) -> Lines:
    """Return lines that may be dirty, with those that a killed process has left.

    Args:
        name: The same for the same disk.
        shape: Of blocks and lines.
        count: Blocks that there is room for.
        about: Names the medium that has the disk.

    Raises:
        InUseError: Another disk has a cache of this name.
        HostError: Another medium has writes waiting under this name.
        UsageError: Writes are waiting in blocks of another size.
        OSError: There is no place for the files.
    """
    with ExitStack() as failing:
        note = TmpfsStore(f"{name}.dirty", about=about)
        failing.callback(note.close, forget=False)
        waiting = check_waiting(name, about=about, block_size=shape.block_size)
        if not waiting and note.about not in (None, about):  # of another medium, which waits for nothing
            note.close(forget=True)
            failing.pop_all()
            return dirty_lines(name, shape, count, about=about)
        data = TmpfsStore(f"{name}.data", about=about)
        failing.callback(data.close, forget=False)
        dirty_list = DirtyList(note, shape)
        lines = Lines(dirty_list.shape, count, data, dirty_list)
        failing.pop_all()
    return lines


def no_lines(block_size: int) -> Lines:
    """Return no lines: every request goes past the cache."""
    return Lines(Shape(block_size, 1), 0, None, None)
