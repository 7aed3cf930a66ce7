"""Flushes of a disk, one at a time: what arrives meanwhile shares the next one.

A flush that has succeeded clears the write log up to the place where it began. If the log cannot be cleared,
the flush fails, and the next one tries again: a log with older changes would be repeated over newer ones
that it does not have. After a flush that has lost data none succeeds any more, until the disk is opened
anew (fsync(2): the kernel reports lost pages once).
"""

import errno
import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final

from vscsihba.errors import FlushError
from vscsihba.handlers.base import Done
from vscsihba.handlers.qemu.write_log import WriteLog

log = logging.getLogger(__name__)

Flushed = Callable[[OSError | None, int], None]
"""Takes the result of a flush, and the generation in which it was made."""
Later = SimpleQueue[Callable[[], None] | None]
"""Calls for the thread of a disk that begins what an answer of the link asks for."""

_NOTHING_LOST: Final = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT),
        *(
            errno.ETIMEDOUT,
            errno.ENOTCONN,
            errno.ECONNREFUSED,
            errno.ECONNRESET,
            errno.EPIPE,
            errno.ESHUTDOWN,
        ),
    )
)
"""Errors after which the writes are still in the log: there is no room, or the daemon cannot be reached."""


class Generation:
    """The life of one daemon after the other, and the lock for the write log.

    Attributes:
        number: Of the daemon that lives, or is awaited.
        lock: Held while the number changes, and while the log does.
    """

    def __init__(self) -> None:
        self.number = 0
        self.lock = threading.Lock()


class Flushes:
    """The flushes of one disk. All of it runs on one thread.

    Args:
        flush: Begins a flush; its answer may come on any thread.
        write_log: The log, if there is one.
        generation: Life of the daemon.
        later: Takes calls for the thread.
        name: The image, for messages.
    """

    def __init__(
        self,
        flush: Callable[[Done], None],
        write_log: WriteLog | None,
        generation: Generation,
        later: Later,
        name: str,
    ) -> None:
        self._flush = flush
        self._log = write_log
        self._generation = generation
        self._later = later
        self._name = name
        self._waiting: list[Flushed] = []
        self._running = False
        self._lost = False

    def add(self, done: Flushed) -> None:
        """Call `done` with the result of a flush that begins now, or when the one under way has ended."""
        self._waiting.append(done)
        self.add_unless_running()

    def add_unless_running(self) -> None:
        """Begin a flush unless one is under way."""
        if not self._running:
            self._start()

    def _start(self) -> None:
        self._running = True
        batch, self._waiting = self._waiting, []
        with self._generation.lock:
            number = self._generation.number
            end = self._log.end if self._log is not None else 0
        ended = partial(self._end, batch, number, end)
        try:
            self._flush(lambda error: self._later.put(partial(ended, error)))
        except OSError as error:
            ended(error)

    def _end(self, batch: list[Flushed], number: int, end: int, error: OSError | None) -> None:
        """Take the result of a flush."""
        error = self._judged(error)
        if error is None:
            try:
                cleared = self._clear(number, end)
            except OSError as failed:
                error = failed
            else:
                if not cleared:
                    self._waiting = batch + self._waiting
                    self._start()
                    return
        for done in batch:
            done(error, number)
        self._running = False
        if self._waiting:
            self._start()

    def _clear(self, number: int, end: int) -> bool:
        """Clear the log up to the beginning of a flush; return False if its daemon has died meanwhile.

        Raises:
            OSError: It cannot be cleared.
        """
        with self._generation.lock:
            if number != self._generation.number:
                return False
            if self._log is not None:
                try:
                    self._log.drop(end)
                except OSError as error:
                    reason = error.strerror or error
                    text = f"{self._name}: the write log {self._log.path} cannot be cleared: {reason}"
                    log.error("%s", text)  # noqa: TRY400 - the trace says nothing
                    raise OSError(errno.EIO, text) from error
            return True

    def _judged(self, error: OSError | None) -> OSError | None:
        """Return the error of a flush as it is reported."""
        if error is not None and error.errno not in _NOTHING_LOST:
            self._lost = True
            return FlushError(error.errno or errno.EIO, f"{self._name}: {error.strerror or error}")
        if self._lost:
            return FlushError(errno.EIO, f"{self._name}: an earlier flush failed, bytes may be lost")
        return error
