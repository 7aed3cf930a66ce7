"""A lock on byte ranges: changes that overlap happen one after the other, in the order in which they came."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from vscsihba.handlers.shared import token_lock

Held = tuple[int, int, object]
"""A range from its first byte to before its last one, and whose it is."""


class RangeLock:
    """Let changes of ranges in together if they do not overlap.

    Args:
        lock: Guards the list of ranges; its owner may hold it to enter and leave without a lock of their own.
    """

    def __init__(self, lock: token_lock.TokenLock | None = None) -> None:
        self._lock = lock or token_lock.TokenLock()
        self._changed = threading.Condition(self._lock)  # type: ignore[arg-type]  # it needs no more
        self._queue: list[Held] = []
        self._waiting = 0

    @contextmanager
    def held(self, offset: int, length: int) -> Iterator[None]:
        """Wait until no range that came before overlaps, and keep later ones that do out meanwhile."""
        mine = (offset, offset + length, object())
        with self._changed:
            self._queue.append(mine)
            while self._must_wait(mine):
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
        try:
            yield
        finally:
            self.leave(mine)

    def try_hold(self, offset: int, length: int) -> Callable[[], None] | None:
        """Hold a range at once; return a function that releases it, on any thread, None if one must wait."""
        held = self.try_enter(offset, length)
        return None if held is None else partial(self.leave, held)

    def try_enter(self, offset: int, length: int) -> Held | None:
        """Hold a range at once, and return what `leave` takes, on any thread; None if one must wait."""
        with self._lock:
            return self.enter_locked(offset, length)

    def enter_locked(self, offset: int, length: int) -> Held | None:
        """Do as `try_enter`; the caller holds the lock."""
        mine = (offset, offset + length, object())
        queue = self._queue
        queue.append(mine)
        if len(queue) > 1 and self._must_wait(mine):
            queue.remove(mine)
            return None
        return mine

    def leave(self, held: Held) -> None:
        """Release a range."""
        with self._lock:
            self.leave_locked(held)

    def leave_locked(self, held: Held) -> None:
        """Do as `leave`; the caller holds the lock."""
        self._queue.remove(held)
        if self._waiting:
            self._changed.notify_all()

    def _must_wait(self, mine: Held) -> bool:
        first, end, _ = mine
        for other in self._queue:
            if other is mine:
                return False
            if other[0] < end and first < other[1]:
                return True
        raise AssertionError("a range that waits is in the queue")
