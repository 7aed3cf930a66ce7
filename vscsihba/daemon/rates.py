"""Commands a second of every LUN, from two readings of its counters."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

_COMMANDS: Final = ("reads", "writes", "others", "errors")
_SHORTEST: Final = 0.5
"""Shortest time of a rate in seconds: a shorter one is not meaningful."""


class Rates:
    """The last reading of the counters, by LUN.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[int, int], tuple[float, int, float | None]] = {}

    def begin(self, luns: Iterable[tuple[int, int]]) -> None:
        """Add new LUNs with counters of 0, so that their first reading has a rate too.

        Args:
            luns: The HBA and the number of each.
        """
        now = self._clock()
        with self._lock:
            self._seen |= dict.fromkeys(luns, (now, 0, None))

    def of(self, hba_id: int, lun: int, counters: dict[str, int]) -> float | None:
        """Return the commands a second since the last reading; None without an earlier reading.

        Args:
            hba_id: 0..255.
            lun: Its number.
            counters: The counters of its engine, by name.
        """
        now, count = self._clock(), sum(counters[name] for name in _COMMANDS)
        with self._lock:
            before = self._seen.get((hba_id, lun))
            if before is not None and now - before[0] < _SHORTEST and count >= before[1]:
                return before[2]
            rate = None
            if before is not None and count >= before[1]:
                rate = round((count - before[1]) / (now - before[0]), 1)
            self._seen[hba_id, lun] = now, count, rate
        return rate
