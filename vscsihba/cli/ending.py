"""What ends a program that runs in the foreground: a signal, or a failure told by a thread.

A signal that comes just before the main thread begins to wait on a lock is not noticed
there until the next one (the handler runs, but nothing ends the wait). So signals are
written to a pipe by the interpreter's own handler (signal.set_wakeup_fd), and the pipe
is what the main thread waits on.
"""

import os
import select
import signal
from collections import deque
from types import FrameType

from vscsihba.errors import HostError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Waits for what ends the program; made by the main thread, before others are started."""

    def __init__(self) -> None:
        self._failures: deque[str] = deque()
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _note)

    def failed(self, text: str) -> None:
        """Have the program end with an error; any thread may call this."""
        self._failures.append(text)
        os.write(self._writer, b"\0")

    def wait(self) -> None:
        """Wait for a signal.

        Raises:
            HostError: A failure came first.
        """
        select.select([self._reader], [], [])
        os.read(self._reader, 1)
        if self._failures:
            raise HostError(self._failures.popleft())


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the pipe has the signal."""
