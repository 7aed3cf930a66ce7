"""A lock for the thread that serves the ring: it makes no system call while it is free.

`threading.Lock` reads the clock whenever it is taken, even if it is free (CPython 3.11,
``PyThread_acquire_lock_timed``). Where the clock needs a system call (User-Mode Linux, a clock source that
the vDSO cannot read), that takes as long as a write of 4 KiB.
"""

from functools import partial
from queue import Empty, SimpleQueue


class TokenLock:
    """A mutual exclusion lock, held by the thread that has taken its only token out of a queue.

    Taking an item that is there is atomic, and needs no wait. As with `threading.Lock`, threads that wait
    for it take it in any order.

    Attributes (no functions of ours, for code that runs once a command):
        take: Takes the lock, and waits until it is free; ``take(False)`` raises `queue.Empty` instead.
        release: Releases the lock; the caller must hold it.
        locked: Returns whether the lock is held.
    """

    __slots__ = ("locked", "release", "take")

    def __init__(self) -> None:
        tokens: SimpleQueue[None] = SimpleQueue()
        self.take, self.release = tokens.get, partial(tokens.put, None)
        self.locked = tokens.empty
        self.release()

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002 - as threading.Lock has it
        """Take the lock; return whether that was possible, which is always so if it may wait."""
        try:
            self.take(blocking)
        except Empty:
            return False
        return True

    def __enter__(self) -> None:
        """Take the lock; wait until it is free."""
        self.take()

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.release()
