"""A LUN is taken over on a thread of its own, so that storage which does not answer holds up no other LUN."""

import threading
from collections.abc import Callable


class Opening:
    """The taking over of a LUN, on a thread of its own, whose starter need not wait for its end.

    Args:
        take_over: Does it.
        late: Called, on that thread, if the starter has not waited.
    """

    def __init__(self, take_over: Callable[[], bool], late: Callable[[], None]) -> None:
        self._take_over = take_over
        self._late = late
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._left = False
        self._settled = True

    def run(self) -> None:
        """Take over."""
        self._settled = self._take_over()
        with self._lock:
            self._done.set()
        if self._left:
            self._late()

    def result(self, patience: float) -> bool | None:
        """Return what `take_over` has returned, None if it has not within `patience` seconds."""
        self._done.wait(patience)
        with self._lock:
            self._left = not self._done.is_set()
        return None if self._left else self._settled
