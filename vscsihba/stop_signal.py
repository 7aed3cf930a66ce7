"""Signals that end a program in the foreground, and failures after which it cannot go on.

A signal that arrives just before the main thread begins to wait on a lock is not noticed until the next one:
the handler runs, but nothing ends the wait. So the interpreter writes signals into a pipe
(signal.set_wakeup_fd), and the main thread waits on that pipe.

Knows nothing of what the program does.
"""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

from vscsihba.errors import HostError

_FAILURE: Final = b"\0"
"""A failure in the pipe; a signal is its number there."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal:
    """Waits for a signal that ends the program; created by the main thread before it starts others."""

    def __init__(self) -> None:
        self._failure = ""
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _note)

    def failed(self, text: str) -> None:
        """Note a failure, which may be the last one; any thread may call this."""
        self._failure = text
        with suppress(BlockingIOError):  # the pipe is full of unread failures
            os.write(self._writer, _FAILURE)

    def arrives_within(self, seconds: float | None) -> bool:
        """Wait up to `seconds`, without a limit if None; return whether a signal has arrived by then."""
        pipe = select.poll()
        pipe.register(self._reader, select.POLLIN)
        return bool(pipe.poll(None if seconds is None else seconds * 1000))

    def wait(self, over: Callable[[], bool]) -> None:
        """Wait for a signal.

        Args:
            over: Called after a failure; returns whether nothing is left to serve.

        Raises:
            HostError: The last failure, after which nothing is left.
        """
        while True:
            self.arrives_within(None)
            if os.read(self._reader, 1) != _FAILURE:
                return
            if over():
                raise HostError(self._failure)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal is read from the pipe."""
