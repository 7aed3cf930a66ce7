"""Vital threads: they survive transient errors, and their death ends the process.

A process whose serving or watching thread is dead would still hold its locks and its sockets: no other
process would take over, and its disks would hang. If the process ends at once, another one takes over.

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
"""Errors of a machine that is short of descriptors, processes or memory for a moment."""

PAUSE: Final = 1.0
"""Seconds before another try after a transient error."""

EXIT_CODE: Final = 70
"""Exit code of a process that a dead thread has ended (EX_SOFTWARE of sysexits.h)."""

_STDERR: Final = 2
_LONGEST: Final = 4096
"""Bytes that a write to a pipe stores at once or not at all (PIPE_BUF)."""

Died = Callable[[str, BaseException], None]
"""Called on a dying thread with its name and the error."""


def end_process(name: str, error: BaseException) -> NoReturn:
    """End this process at once, without cleaning up, after a line and a traceback on standard error.

    Waits for the log for a second at most: it may be written to a disk that this process serves.

    Args:
        name: Name of the dead thread.
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
    """A daemon thread that reports its death: by default its process ends with it.

    Args:
        target: The thread's work; the thread may end by returning.
        name: Name of the thread.
        died: Called with the exception that has ended it.
    """

    def __init__(self, target: Callable[[], None], name: str, *, died: Died = end_process) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._died = died

    def run(self) -> None:
        """Do the work."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - a barrier: any exception ends the thread
            self._died(self.name, error)


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        OSError: EAGAIN: the machine cannot start another thread (CPython raises RuntimeError).
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"thread {thread.name} cannot be started: {error}") from error


def repeat(step: Callable[[], bool], what: str, *, pause: float = PAUSE) -> None:
    """Call `step` until it returns False; after a transient error call it again, after a pause.

    Args:
        step: One round of a thread's work.
        what: Name of the work in the log.
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
