"""A lock that many threads may hold together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty

from vscsihba.handlers.shared import token_lock


class RWLock:
    """A read-write lock: any number of threads together, or one alone.

    Who wants to be alone waits for those inside, and keeps newcomers waiting.

    Attributes:
        leave: Releases the lock after `enter_briefly`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._alone = False
        self._brief = token_lock.TokenLock()
        self._take = self._brief.take
        self.leave = self._brief.release

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

    def enter_briefly(self) -> None:
        """Hold the lock together with others for a moment.

        It costs less than `together`, but only one thread at a time can hold the lock in this way.

        Raises:
            BlockingIOError: That needs a wait.
        """
        if self._alone:
            raise BlockingIOError
        try:
            self._take(False)  # noqa: FBT003 - without a wait
        except Empty:
            raise BlockingIOError from None

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
