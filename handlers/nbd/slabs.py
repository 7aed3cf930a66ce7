"""Memory for copies that are dropped again soon: it is used for the next ones.

Memory that is new to the process costs a page fault for each 4 KiB, which takes several times as long as
copying them. Not for several threads at once.
"""

from typing import Final

SLAB: Final = 1 << 20
"""Bytes of a slab."""
_LARGE: Final = SLAB // 8
"""Bytes from which on a copy has memory of its own."""
_SPARE: Final = 16
"""Slabs without a copy that are kept, at most."""


class Slab:
    """A piece of memory with several copies, one behind the other.

    Attributes:
        memory: The bytes.
        used: Bytes that were given to copies.
        copies: Those that were not dropped.
    """

    __slots__ = ("copies", "memory", "used")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(SLAB))
        self.used = self.copies = 0


class Slabs:
    """Copies, and the slabs that they are in."""

    def __init__(self) -> None:
        self._current = Slab()
        self._spare: list[Slab] = []

    def copy(self, data: bytes | memoryview | bytearray) -> tuple[memoryview, Slab | None]:
        """Copy bytes; return the copy, and its slab for `drop`."""
        length, slab = len(data), self._current
        if length >= _LARGE:
            return memoryview(bytes(data)), None
        if (end := slab.used + length) > SLAB:
            slab = self._current = self._spare.pop() if self._spare else Slab()
            end = length
        view = slab.memory[slab.used : end]
        view[:] = data
        slab.used = end
        slab.copies += 1
        return view, slab

    def drop(self, slab: Slab | None) -> None:
        """Drop a copy: nobody reads it any more."""
        if slab is None:
            return
        slab.copies -= 1
        if not slab.copies:
            slab.used = 0
            if slab is not self._current and len(self._spare) < _SPARE:
                self._spare.append(slab)
