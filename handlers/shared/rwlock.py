"""A lock that many threads may hold together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RWLock:
    """A read-write lock: any number of threads together, or one alone.

    Who wants to be alone waits for those inside, and keeps newcomers waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._alone = False

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
            self.leave()

    def try_enter(self) -> bool:
        """Take the lock together with others, if that needs no wait; return whether it is held."""
        with self._lock:
            if self._alone:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """Release the lock."""
        with self._lock:
            self._inside -= 1
            if self._alone and not self._inside:
                self._changed.notify_all()

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
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
