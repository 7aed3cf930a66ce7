"""Threads that a process cannot do without: they survive transient errors, and their death ends the process.

A process whose serving or watching thread is dead still holds its locks and its sockets, so that no other
process takes over, and its disks hang. A process that ends at once loses them, and another takes over.

Knows no disk, ring or engine.
"""

import errno
import logging
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from vscsihba.errors import HostError

log = logging.getLogger(__name__)

TRANSIENT: Final = (HostError, OSError, MemoryError)
"""Errors of a machine that has too little of something for a moment: descriptors, processes, memory."""

PAUSE: Final = 1.0
"""Seconds before another try after a transient error."""

EXIT_CODE: Final = 70
"""Of a process that a dead thread has ended (EX_SOFTWARE of sysexits.h)."""

_STDERR: Final = 2
_LONGEST: Final = 4096
"""Bytes that a pipe takes at once or not at all (PIPE_BUF)."""

Died = Callable[[str, BaseException], None]
"""Called on a thread that dies, with the thread's name and the error."""


def end_process(name: str, error: BaseException) -> NoReturn:
    """End this process at once, without undoing anything, after a line and a traceback on standard error.

    Nothing is waited for longer than a second: the log may be written to a disk that this process serves.

    Args:
        name: Of the thread that has died.
        error: The reason.
    """
    try:
        trace = "".join(traceback.format_exception(error))
        text = (
            f"thread {name} has died ({type(error).__name__}: {error}); process {os.getpid()} ends\n{trace}"
        )
        if select.select([], [_STDERR], [], 1.0)[1]:
            os.write(_STDERR, text.encode(errors="replace")[:_LONGEST])
    finally:
        os._exit(EXIT_CODE)


class VitalThread(threading.Thread):
    """A daemon thread that tells of its death: by default its process ends with it.

    Args:
        target: The thread's work; the thread may end by returning.
        name: Of the thread.
        died: Called with the exception that has ended it.
    """

    def __init__(self, target: Callable[[], None], name: str, *, died: Died = end_process) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._died = died

    def run(self) -> None:
        """Do the work."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - a barrier: whatever has ended it, it is dead
            self._died(self.name, error)


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        OSError: EAGAIN: the machine has no room for another one (CPython raises RuntimeError).
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"thread {thread.name} cannot be started: {error}") from error


def repeat(step: Callable[[], bool], what: str, *, pause: float = PAUSE) -> None:
    """Call `step` until it returns False; after a transient error call it again, after a pause.

    Args:
        step: One round of a thread's work.
        what: Names the work in the log.
        pause: Seconds.
    """
    while True:
        try:
            if not step():
                return
        except TRANSIENT as error:
            with suppress(MemoryError):
                log.error("%s: %s; trying again", what, str(error) or type(error).__name__)  # noqa: TRY400
            time.sleep(pause)
