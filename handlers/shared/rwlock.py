"""A lock that many threads may hold together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RWLock:
    """A read-write lock: any number of threads together, or one alone.

    Who wants to be alone waits for those inside, and keeps newcomers waiting.

    Attributes:
        leave: Releases the lock after `try_enter`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._alone = False
        self._brief = threading.Lock()
        self.leave = self._brief.release  # no function of ours: inline verbs call it

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold the lock together with others."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    def try_enter(self) -> bool:
        """Hold the lock together with others for a moment, if that needs no wait; return whether it is held.

        It costs less than `together`, but only one thread at a time can hold the lock in this way.
        """
        return not self._alone and self._brief.acquire(blocking=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
        try:
            with self._changed:
                while self._inside:
                    self._changed.wait()
            with self._brief:
                yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
