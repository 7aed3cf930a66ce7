"""A gate that many may pass together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RWLock:
    """Let any number of threads in together, or one by itself.

    Who wants to be alone waits for those inside, and keeps newcomers waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside with others."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            self.leave()

    def try_enter(self) -> bool:
        """Be inside with others, without waiting; return whether that is so. `leave` has to follow."""
        with self._changed:
            if self._alone:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """Be inside no more."""
        with self._changed:
            self._inside -= 1
            if not self._inside:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one inside."""
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
