"""Positions on one ring: stepping from entry to entry, fetching, completing, and the tail.

The fetch position is the first entry not fetched yet, the completion position the oldest open slot. Both
are bytes from the start of the map; only `cmd_head` and `cmd_tail` count from the start of the ring.
Knows the length and the kind of an entry, nothing else of it.
"""

from collections.abc import Iterator

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.barrier import memory_barrier

SIZE_MASK = 0xFFFFFFFF & ~abi.TCMU_OP_MASK

HEAD = abi.CMD_HEAD_OFFSET >> 2
TAIL = abi.CMD_TAIL_OFFSET >> 2
"""Their places in the map, counted in 32-bit words."""
UNKNOWN = -1
"""A tail that the kernel never has: nothing works before `begin_at`."""


class Positions:
    """The entries of a ring, and the positions of its server among them.

    Args:
        words: The map up to the end of the ring, as 32-bit words.
        start: First byte of the ring.
        end: First byte after it.

    Attributes:
        tail: The last tail that was stored or read, `UNKNOWN` before any was.
        fetched: The first entry that was not fetched.
        completed: An entry with no open slot before it.
    """

    __slots__ = ("_words", "completed", "end", "fetched", "start", "tail")

    def __init__(self, words: memoryview, start: int, end: int) -> None:
        self._words = words
        self.start = start
        self.end = end
        self.tail = UNKNOWN
        self.fetched = self.completed = start

    def begin_at(self, tail: int) -> None:
        """Fetch and complete from the kernel's `tail` on."""
        self.tail = tail
        self.fetched = self.completed = self.start + tail

    def step(self, at: int, length: int, stop: int) -> int:
        """Return the position after an entry of `length` bytes, in a run of entries that ends at `stop`.

        Raises:
            RingCorruptError: The length cannot be an entry's.
        """
        after = at + length
        if not length or after > self.end or at < stop < after:
            raise RingCorruptError(f"an entry of {length} bytes at {at} runs beyond {stop} or {self.end}")
        return self.start if after == self.end else after

    def walk(self, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield position, op and the position after it for each entry from `at` up to `stop`.

        Raises:
            RingCorruptError: An entry has a length that no entry has.
        """
        while at != stop:
            len_op = self._words[at >> 2]
            after = self.step(at, len_op & SIZE_MASK, stop)
            yield at, len_op & abi.TCMU_OP_MASK, after
            at = after

    def head(self) -> int:
        """Return the first byte that the kernel has not filled."""
        return self.start + int(self._words[HEAD])

    def pending(self) -> bool:
        """Return whether the ring holds entries that were not fetched yet."""
        return self.start + self._words[HEAD] != self.fetched

    def was_reset(self) -> bool:
        """Return whether the kernel has emptied the ring (tcmu_reset_ring: head = tail = 0).

        Otherwise only the server moves the tail, and while it is 0 the head never goes back. Not
        noticed: a reset with the tail at 0 after which the head has already passed the fetch position.
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
            start = self.step(start, len_op & SIZE_MASK, fetched)
        self.completed = start
        return start

    def after(self, slot: int) -> int:
        """Return the entry after a slot that was fetched."""
        length = self._words[slot >> 2] & SIZE_MASK
        after = slot + length
        if length and after < self.end and not slot < self.fetched < after:
            return after
        return self.step(slot, length, self.fetched)

    def store_tail(self) -> None:
        """Show the kernel every completion up to the completion position."""
        if memory_barrier is not None:
            memory_barrier()
        self._words[TAIL] = self.tail = self.completed - self.start
