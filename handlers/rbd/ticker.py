"""Threads that look at all open images of the process from time to time; none runs while no image is open."""

import threading
from collections.abc import Callable

from vscsihba import threads


class Ticker:
    """A thread that calls functions again and again.

    Args:
        name: Name of the thread.
        period: Seconds between two rounds.
    """

    def __init__(self, name: str, period: float) -> None:
        self._name = name
        self._period = period
        self._changed = threading.Condition()
        self._calls: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None]) -> None:
        """Call a function in each round from now on; it must not raise.

        Raises:
            OSError: No thread can be started.
        """
        with self._changed:
            if self._thread is None:
                thread = threads.VitalThread(self._run, self._name)
                threads.start(thread)
                self._thread = thread
            self._calls.append(call)

    def remove(self, call: Callable[[], None]) -> None:
        """Call a function no more; a call of it may be under way."""
        with self._changed:
            self._calls.remove(call)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._calls:
                    self._thread = None
                    return
                self._changed.wait(self._period)
                calls = list(self._calls)
            for call in calls:
                call()
            del calls


DEADLINES = Ticker("rbd-deadlines", 0.25)
"""Ends requests at their time limits; its functions never wait."""

SIZES = Ticker("rbd-sizes", 1.0)
"""Notices images that other clients have resized; its functions may wait for the cluster for a while."""
