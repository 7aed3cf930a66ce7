"""What ends a program that runs in the foreground: a signal, or the failure of all that it serves.

A signal that comes just before the main thread begins to wait on a lock is not noticed
there until the next one (the handler runs, but nothing ends the wait). So signals are
written to a pipe by the interpreter's own handler (signal.set_wakeup_fd), and the pipe
is what the main thread waits on.
"""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from vscsihba.errors import HostError

_FAILURE = b"\0"
"""In the pipe; a signal is there as its number."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal:
    """Waits for what ends the program; made by the main thread, before others are started."""

    def __init__(self) -> None:
        self._failure = ""
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _note)

    def failed(self, text: str) -> None:
        """Note a failure, which may be the last one; any thread may call this."""
        self._failure = text
        with suppress(BlockingIOError):  # then many wait to be read
            os.write(self._writer, _FAILURE)

    def wait(self, over: Callable[[], bool]) -> None:
        """Wait for a signal.

        Args:
            over: Tells, after a failure, that nothing is left to go on with.

        Raises:
            HostError: A failure came first, after which nothing is left.
        """
        while True:
            select.select([self._reader], [], [])
            if os.read(self._reader, 1) != _FAILURE:
                return
            if over():
                raise HostError(self._failure)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the pipe has the signal."""
