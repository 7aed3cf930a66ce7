"""The slots of a cache: the cached blocks, their dirty flags, and the order of eviction.

Contents are in a file that survives the process, and so is the list of dirty slots: whoever
opens the disk after a process was killed finds what that one had acknowledged. Neither
survives the machine, and nothing has to: a flush has put everything below.

A slot is published when its content is in it, and no failure of the two files leaves one
that has another content than the layer below and is not dirty.

Nothing here takes a lock; `handler` does, and it calls the layer below.
"""

import logging
import struct
from collections import OrderedDict, deque
from contextlib import ExitStack
from dataclasses import dataclass

from vscsihba.block import Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore, recall

log = logging.getLogger(__name__)

FAILURES = (OSError, MemoryError)
"""Failures of the storage of a cache; each lets the request go past it."""
_ENTRY = struct.Struct("<Q")
"""Of the list: the block size first, then for each slot its block plus one if it is dirty, or 0."""


@dataclass(slots=True)
class Slot:
    """A cached block.

    Attributes:
        number: Of the slot.
        version: Counts the changes of the content.
    """

    number: int
    version: int = 0


class Slots:
    """Room for some blocks, in the order of their use.

    Args:
        block_size: Bytes of a block.
        count: How many blocks there is room for.
        data: Where their contents are; None for a cache that holds nothing.
        notes: Where the list of dirty slots is; None if there never are any.
        left: Slots that a killed process has left dirty, each with its block.
    """

    def __init__(
        self,
        block_size: int,
        count: int,
        data: TmpfsStore | None,
        notes: TmpfsStore | None,
        left: dict[int, int],
    ) -> None:
        self._block_size = block_size
        self._data = data
        self._notes = notes
        self._clean: OrderedDict[int, Slot] = OrderedDict()
        self._dirty = OrderedDict((block, Slot(number)) for number, block in left.items())
        # Those that are used next are at the end: they have memory already.
        self._free = deque(number for number in reversed(range(count)) if number not in left)
        self._told = False

    def close(self) -> None:
        """Free the slots; dirty ones are kept for the next process."""
        forget = not self._dirty
        with ExitStack() as closing:
            for file in (self._data, self._notes):
                if file is not None:
                    closing.callback(file.close, forget=forget)

    @property
    def has_room(self) -> bool:
        """Return whether another block can be cached: not every slot is dirty."""
        return bool(self._free or self._clean)

    @property
    def all_dirty(self) -> bool:
        """Return whether a dirty block must be written back before another one can be cached."""
        return bool(self._dirty) and not self.has_room

    @property
    def dirty(self) -> list[int]:
        """The dirty blocks, the least recently used first."""
        return list(self._dirty)

    def is_dirty(self, first: int, last: int) -> bool:
        """Return whether one of the blocks from `first` to before `last` is dirty."""
        return any(True for _ in self._within(self._dirty, first, last))

    def find(self, block: int) -> Slot | None:
        """Return the slot of a block, which counts as a use, or None."""
        for held in (self._clean, self._dirty):
            if block in held:
                held.move_to_end(block)
                return held[block]
        return None

    def read(self, slot: Slot, within: int, views: Views) -> None:
        """Copy a part of a slot out.

        Raises:
            OSError, MemoryError: It cannot be read.
        """
        assert self._data is not None  # noqa: S101  # there is a slot, so there is room for it
        self._data.get(slot.number * self._block_size + within, views)

    def hold(self, block: int, data: memoryview) -> bool:
        """Cache a clean block in place of the least recently used clean one.

        Returns:
            False if that was not possible: every slot is dirty, or there is no memory for another one.
        """
        for take in (self._take_free, self._evict):
            number = take()
            if number is not None and self._filled(number, data):
                self._clean[block] = Slot(number)
                return True
        return False

    def hold_dirty(self, block: int, data: memoryview) -> bool:
        """Cache a dirty block in place of the least recently used clean one.

        Returns:
            False if that was not possible, as with `hold`.
        """
        if not self.hold(block, data):
            return False
        try:
            self._note(self._clean[block], block + 1)
        except FAILURES as error:
            self._tell(error)
            self.drop_clean(block, block + 1)
            return False
        self._dirty[block] = self._clean.pop(block)
        return True

    def change(self, slot: Slot, block: int, within: int, data: memoryview) -> None:
        """Change a part of a cached block, which is dirty then.

        Raises:
            OSError, MemoryError: It cannot be changed. One that was clean is not held any more; one that is
                dirty may be changed in part.
        """
        assert self._data is not None  # noqa: S101  # there is a slot, so there is room for it
        slot.version += 1
        try:
            self._data.put(slot.number * self._block_size + within, data)
            if block not in self._dirty:
                self._note(slot, block + 1)
                self._dirty[block] = self._clean.pop(block)
        except FAILURES as error:
            self._tell(error)
            self.drop_clean(block, block + 1)
            raise

    def clean(self, block: int, version: int) -> bool:
        """Mark a dirty block clean, unless it was changed since that `version`.

        Returns:
            False if that could not be noted. It stays dirty and is written below once more, which is no harm.
        """
        slot = self._dirty[block]
        if slot.version != version:
            return True
        try:
            self._note(slot, 0)
        except FAILURES as error:
            self._tell(error)
            return False
        self._clean[block] = self._dirty.pop(block)
        return True

    def drop_clean(self, first: int, last: int) -> None:
        """Drop the clean blocks from `first` to before `last`."""
        for block in self._within(self._clean, first, last):
            self._free.append(self._clean.pop(block).number)

    def drop(self, first: int, last: int) -> None:
        """Drop the blocks from `first` to before `last`, dirty or not.

        Raises:
            OSError, MemoryError: A dirty one cannot be forgotten; it is still there, and so may be others.
        """
        self.drop_clean(first, last)
        for block in self._within(self._dirty, first, last):
            self._note(self._dirty[block], 0)
            self._free.append(self._dirty.pop(block).number)

    def _within(self, held: "OrderedDict[int, Slot]", first: int, last: int) -> list[int]:
        wanted = range(first, last)
        # Whichever is shorter: a terabyte may be unmapped with ten blocks held.
        if len(wanted) < len(held):
            return [block for block in wanted if block in held]
        return [block for block in held if block in wanted]

    def _take_free(self) -> int | None:
        return self._free.pop() if self._free else None

    def _evict(self) -> int | None:
        return self._clean.popitem(last=False)[1].number if self._clean else None

    def _filled(self, number: int, data: memoryview) -> bool:
        """Fill a slot that is not published; one that fails is the last to be tried again."""
        try:
            assert self._data is not None  # noqa: S101  # there is a slot, so there is room for it
            self._data.put(number * self._block_size, data)
        except FAILURES as error:
            self._tell(error)
            self._free.appendleft(number)
            return False
        return True

    def _note(self, slot: Slot, value: int) -> None:
        assert self._notes is not None  # noqa: S101  # without it no slot is made dirty
        self._notes.put((slot.number + 1) * _ENTRY.size, _ENTRY.pack(value))

    def _tell(self, error: OSError | MemoryError) -> None:
        """Say once that the cache holds less than it was asked to."""
        if not self._told:
            self._told = True
            log.warning("the cache has no room, what it cannot hold goes past it: %s", error)


def clean_slots(name: str, block_size: int, count: int) -> Slots:
    """Return slots that are never dirty.

    Args:
        name: Unique for ever.
        block_size: Bytes of a block.
        count: How many blocks there is room for.

    Raises:
        OSError: There is no place for the file.
    """
    return Slots(block_size, count, TmpfsStore(f"{name}.data"), None, {})


def dirty_slots(name: str, block_size: int, count: int, *, about: bytes) -> Slots:
    """Return slots that may be dirty, with those that a killed process has left.

    Args:
        name: The same for the same disk.
        block_size: Bytes of a block.
        count: How many blocks there is room for.
        about: Names the medium that has the disk.

    Raises:
        InUseError: Another disk has a cache of this name.
        HostError: Another medium has writes waiting under this name.
        UsageError: Writes are waiting in blocks of another size.
        OSError: There is no place for the files.
    """
    with ExitStack() as failing:
        notes = TmpfsStore(f"{name}.dirty", about=about)
        failing.callback(notes.close, forget=False)
        size, left = _decode(notes.content())
        if left:
            check_waiting(name, about=about, block_size=block_size)
        elif notes.about not in (None, about):  # of another medium, and nothing waits for that one
            notes.close(forget=True)
            failing.pop_all()
            return dirty_slots(name, block_size, count, about=about)
        data = TmpfsStore(f"{name}.data", about=about)
        failing.callback(data.close, forget=False)
        if size != block_size:
            notes.put(0, _ENTRY.pack(block_size))
        failing.pop_all()
    return Slots(block_size, count, data, notes, left)


def no_slots(block_size: int) -> Slots:
    """Return no slots: every request goes past the cache."""
    return Slots(block_size, 0, None, None, {})


def check_waiting(name: str, *, about: bytes, block_size: int | None) -> bool:
    """Return whether a killed process has left dirty slots under a name; refuse options that would lose them.

    Args:
        name: The same for the same disk.
        about: Names the medium that has the disk.
        block_size: Of the cache that would write them below; None if none would.

    Raises:
        HostError: They are for another medium.
        UsageError: They would be lost.
    """
    waiting = recall(f"{name}.dirty")
    if waiting is None:
        return False
    size, left = _decode(waiting.content)
    if not left:
        return False
    if waiting.about is not None and waiting.about != about:
        raise HostError(
            f"writes are waiting in {waiting.path} for another medium that this one has taken the place of",
            cure=f"bring that one back; to give those writes up, remove {waiting.path}",
        )
    if size != block_size:
        raise UsageError(
            "writes are waiting in its cache",
            cure=f'open it once for writing with "mode": "write-back" and "block_size": {size}',
        )
    return True


def _decode(content: bytes) -> tuple[int, dict[int, int]]:
    """Return the block size, and the block of each dirty slot, of a list."""
    whole = len(content) // _ENTRY.size * _ENTRY.size
    size, *blocks = [value for (value,) in _ENTRY.iter_unpack(content[:whole])] or [0]
    return size, {number: block - 1 for number, block in enumerate(blocks) if block}
