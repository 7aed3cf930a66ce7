"""The two positions on one ring, and the tail that the kernel sees.

Where the next entry is fetched, and where the next answer goes: the oldest open slot.
Both are kept as bytes from the start of the map; only `cmd_head` and `cmd_tail` count
from the start of the ring. Knows entries by their length and kind only.
"""

from vscsihba.tcmu import abi
from vscsihba.tcmu.barrier import memory_barrier
from vscsihba.tcmu.circle import SIZE_MASK, Circle

HEAD = abi.CMD_HEAD_OFFSET >> 2
TAIL = abi.CMD_TAIL_OFFSET >> 2
"""Their places in the map, counted in 32-bit words."""
UNKNOWN = -1
"""A tail that the kernel never has: nothing works before `begin_at`."""


class Positions:
    """Where a server stands on its ring.

    Args:
        words: The map up to the end of the ring, as 32-bit words.
        circle: Its entries.

    Attributes:
        tail: The last tail that was stored or read, `UNKNOWN` before any was.
        fetched: The first entry that was not fetched.
        completed: An entry with no open slot before it.
    """

    __slots__ = ("_circle", "_words", "completed", "fetched", "tail")

    def __init__(self, words: memoryview, circle: Circle) -> None:
        self._words = words
        self._circle = circle
        self.tail = UNKNOWN
        self.fetched = self.completed = circle.start

    def begin_at(self, tail: int) -> None:
        """Fetch and answer from `tail` on, which is where the kernel's is."""
        self.tail = tail
        self.fetched = self.completed = self._circle.start + tail

    def head(self) -> int:
        """Return the first byte that the kernel has not filled."""
        return self._circle.start + int(self._words[HEAD])

    def pending(self) -> bool:
        """Tell whether entries wait that were not fetched yet."""
        return self._circle.start + self._words[HEAD] != self.fetched

    def was_reset(self) -> bool:
        """Tell whether the kernel has emptied the ring (tcmu_reset_ring: head = tail = 0).

        Only we move the tail otherwise, and while it is 0 the head never goes back. Not seen: a
        reset with the tail at 0 after which the head has already passed what was fetched before.
        """
        tail = self._words[TAIL]
        return tail != self.tail or (not tail and self.head() < self.fetched)

    def oldest_slot(self) -> int:
        """Move the completion position to the oldest open command slot and return it."""
        words, fetched, start = self._words, self.fetched, self.completed
        while start != fetched:
            len_op = words[start >> 2]
            if len_op & abi.TCMU_OP_MASK == abi.TCMU_OP_CMD:
                break
            start = self._circle.step(start, len_op & SIZE_MASK, fetched)
        self.completed = start
        return start

    def after(self, slot: int) -> int:
        """Return the entry after a slot that was fetched."""
        return self._circle.step(slot, self._words[slot >> 2] & SIZE_MASK, self.fetched)

    def advanced(self) -> bool:
        """Tell whether there are answers that the kernel has not been shown."""
        return self.oldest_slot() - self._circle.start != self.tail

    def store_tail(self) -> None:
        """Show the kernel every answer up to the completion position."""
        memory_barrier()
        self._words[TAIL] = self.tail = self.completed - self._circle.start
