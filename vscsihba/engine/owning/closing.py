"""Closing a LUN on a thread of its own: its starter need not wait for storage that does not answer."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Closing:
    """The closing of a LUN on a thread of its own.

    Args:
        wait: Waits for commands and actions under way, without a limit.
        close: Closes ring and storage.
    """

    def __init__(self, wait: Callable[[], None], close: Callable[[], None]) -> None:
        self._wait = wait
        self._close = close
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._left = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Wait, and close; an error is raised by `done` if the starter still waits, and logged if not."""
        try:
            self._wait()
            self._close()
        except Exception as error:  # noqa: BLE001 - raised by `done`, or logged
            self._error = error
        with self._lock:
            self._ended.set()
            if not self._left:
                return
        if self._error is not None:
            log.error("closed late, with an error: %s", self._error)
        else:
            log.warning("the storage has answered; the LUN is released")

    def done(self, patience: float) -> bool:
        """Wait for the end; False if it has not come within `patience` seconds.

        Raises:
            OSError: Ring or storage could not be closed.
        """
        self._ended.wait(patience)
        with self._lock:
            if not self._ended.is_set():
                self._left = True
                return False
        if self._error is not None:
            raise self._error
        return True
