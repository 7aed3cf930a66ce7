"""The circle of entries: how one steps from an entry of the ring to the next.

Knows lengths and where the ring begins anew, not what an entry says.
"""

from collections.abc import Iterator

from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi

SIZE_MASK = 0xFFFFFFFF & ~abi.TCMU_OP_MASK


class Circle:
    """The entries between two bytes of a map.

    Args:
        words: The map up to the end of the ring, as 32-bit words.
        start: First byte of the ring.
        end: First byte after it.
    """

    def __init__(self, words: memoryview, start: int, end: int) -> None:
        self._words = words
        self.start = start
        self.end = end

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
