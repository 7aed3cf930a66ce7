"""The slots of a cache: which blocks of a disk it holds, which of them are dirty, which one goes next.

Contents are in a file that survives the process, and so is the list of dirty slots: whoever
opens the disk after a process was killed finds what that one had acknowledged. Neither
survives the machine, and nothing has to: a flush has put everything below.

Nothing here locks; `cache` sees to that, and to the layer below.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass

from vscsihba.block import Views
from vscsihba.handlers.surviving import Surviving, recall

_ENTRY = struct.Struct("<Q")
"""Of the list: the block size first, then for each slot its block plus one if it is dirty, or 0."""


def waiting(name: str) -> tuple[int, dict[int, int]]:
    """Return what a killed process left under a name: the block size, and the block of each dirty slot."""
    size, *blocks = [value for (value,) in _ENTRY.iter_unpack(recall(f"{name}.dirty"))] or [0]
    return size, {number: block - 1 for number, block in enumerate(blocks) if block}


@dataclass(slots=True)
class Slot:
    """A block that is held.

    Attributes:
        number: Of the slot.
        version: Counts the changes of the content.
    """

    number: int
    version: int = 0


class Slots:
    """Room for some blocks, in the order of their use.

    Args:
        name: The same for the same disk; what a killed process left under it is taken over.
        block_size: Bytes of a block.
        count: How many blocks there is room for.

    Raises:
        InUseError: Another disk has a cache of this name.
        OSError: There is no place for the file.
    """

    def __init__(self, name: str, block_size: int, count: int) -> None:
        self._block_size = block_size
        _, left = waiting(name)
        self._clean: OrderedDict[int, Slot] = OrderedDict()
        self._dirty = OrderedDict((block, Slot(number)) for number, block in left.items())
        self._free = [number for number in reversed(range(count)) if number not in left]
        self._list = Surviving(f"{name}.dirty")
        self._list.put(0, _ENTRY.pack(block_size))
        self._data = Surviving(f"{name}.data")

    def close(self) -> None:
        """Give the room back; what is dirty is kept for the next process."""
        self._data.close(forget=not self._dirty)
        self._list.close(forget=not self._dirty)

    @property
    def has_room(self) -> bool:
        """Tell whether `make` can return a slot."""
        return bool(self._free or self._clean)

    @property
    def dirty(self) -> list[int]:
        """The blocks that the layer below does not have, those first that were not used longest."""
        return list(self._dirty)

    def find(self, block: int) -> Slot | None:
        """Return the slot of a block, which counts as a use, or None."""
        for held in (self._clean, self._dirty):
            if block in held:
                held.move_to_end(block)
                return held[block]
        return None

    def make(self, block: int) -> Slot | None:
        """Return a clean slot for a block that is not held, in place of the one that was not used longest.

        Returns:
            None if every slot is dirty.
        """
        if not self._free:
            if not self._clean:
                return None
            self._free.append(self._clean.popitem(last=False)[1].number)
        slot = self._clean[block] = Slot(self._free.pop())
        return slot

    def drop(self, first: int, last: int) -> None:
        """Forget the blocks from `first` to before `last`, dirty or not."""
        wanted = range(first, last)
        for held in (self._clean, self._dirty):
            # Whichever is shorter: a terabyte may be unmapped with ten blocks held.
            blocks = wanted if len(wanted) < len(held) else [block for block in held if block in wanted]
            for block in blocks:
                slot = held.pop(block, None)
                if slot is not None:
                    self._note(slot, 0)
                    self._free.append(slot.number)

    def read(self, slot: Slot, within: int, views: Views) -> None:
        """Copy a part of a slot out."""
        self._data.get(slot.number * self._block_size + within, views)

    def fill(self, slot: Slot, data: memoryview) -> None:
        """Set the content of a slot to what the layer below has."""
        self._data.put(slot.number * self._block_size, data)

    def change(self, slot: Slot, block: int, within: int, data: memoryview) -> None:
        """Change a part of a slot, which is dirty then."""
        self._data.put(slot.number * self._block_size + within, data)
        slot.version += 1
        if block not in self._dirty:
            self._note(slot, block + 1)
            self._dirty[block] = self._clean.pop(block)

    def clean(self, block: int, version: int) -> None:
        """Note that the layer below has a block, unless it was changed since that `version`."""
        slot = self._dirty.get(block)
        if slot is not None and slot.version == version:
            self._note(slot, 0)
            self._clean[block] = self._dirty.pop(block)

    def _note(self, slot: Slot, value: int) -> None:
        self._list.put((slot.number + 1) * _ENTRY.size, _ENTRY.pack(value))
