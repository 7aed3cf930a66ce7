"""Taking a LUN over on a thread of its own: storage that does not answer delays no other LUN."""

import threading
from collections.abc import Callable


class Opening:
    """A takeover of a LUN on a thread of its own, whose starter need not wait for the end.

    Args:
        take_over: Takes the LUN over; returns whether that is settled.
        late: Called at the end, on that thread, if the starter no longer waits.
    """

    def __init__(self, take_over: Callable[[], bool], late: Callable[[], None]) -> None:
        self._take_over = take_over
        self._late = late
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._left = False
        self._settled: bool

    def run(self) -> None:
        """Take the LUN over."""
        self._settled = self._take_over()
        with self._lock:
            self._done.set()
        if self._left:
            self._late()

    def result(self, patience: float) -> bool | None:
        """Return the result of `take_over`, None if it has not returned within `patience` seconds."""
        self._done.wait(patience)
        with self._lock:
            self._left = not self._done.is_set()
        return None if self._left else self._settled
