"""Sets of bytes, as few ranges as possible."""

from bisect import bisect_left


class Ranges:
    """A set of bytes, as ranges that do not touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._starts)

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a range; return its parts that were not in the set."""
        first = bisect_left(self._ends, start)
        last = first
        new, at = [], start
        while last < len(self._starts) and self._starts[last] <= end:
            if at < self._starts[last]:
                new.append((at, self._starts[last]))
            at = max(at, self._ends[last])
            last += 1
        if at < end:
            new.append((at, end))
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        return new
