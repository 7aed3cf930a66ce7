"""Results of flushes: what was lost before is told by the next flush of an initiator.

A server reports lost writes to one flush. If that is one that the disk sends by itself, to keep fewer writes,
another flush that the server has done meanwhile waits for its result. When one flush tells of lost writes,
all others that have begun before tell of them too, for none of them has covered these writes.
"""

import errno
import threading
from collections.abc import Callable

from vscsihba.errors import FlushError
from vscsihba.handlers.nbd.requests import Kind, Request


class FlushResults:
    """The flushes of one link. All methods may be called on any thread.

    Args:
        name: The export, for messages.
        begin: Begins a request; an ``OSError`` says that the server is away.
    """

    def __init__(self, name: str, begin: Callable[[Request], None]) -> None:
        self._name = name
        self._begin = begin
        self._lock = threading.Lock()
        self._doubt = self._told = ""
        self._begun = self._covers = 0
        self._own = False
        self._held: list[Request] = []

    def note(self, doubt: str) -> None:
        """Have the next flush fail, for this reason; empty: without effect."""
        with self._lock:
            self._doubt = doubt or self._doubt

    def begin_reporting(self, request: Request) -> None:
        """Begin a flush that tells its sender of writes that were lost.

        Raises:
            OSError: The server is away.
        """
        with self._lock:
            self._begun += 1
            request.number = self._begun
        self._begin(request)

    def begin_own(self) -> None:
        """Flush by itself, unless that is under way."""
        with self._lock:
            if self._own:
                return
            self._own = True
        try:
            self._begin(Request(Kind.FLUSH, self._end_own))
        except OSError:  # the server is away: there is another flush when it is back
            self._end_own(None)

    def begin_after(self, write: Request) -> None:
        """Flush after a write that has to be on stable storage, for a server without FUA."""
        try:
            self._begin(Request(Kind.FLUSH, write.done))
        except OSError as error:
            write.done(error)

    def hand_on(self, request: Request) -> None:
        """Hand on the result of a flush that the server has done: an error if writes were lost before."""
        with self._lock:
            if self._own:
                self._held.append(request)
                return
        self._end(request)

    def _end_own(self, error: OSError | None) -> None:
        if isinstance(error, FlushError):  # else the server is lost, and the writes will be sent again
            self.note(f"a flush has failed: {error.strerror}")
        with self._lock:
            self._own = False
            held, self._held = self._held, []
        for request in held:
            self._end(request)

    def _end(self, request: Request) -> None:
        with self._lock:
            if self._doubt:
                self._told, self._doubt, self._covers = self._doubt, "", self._begun
            doubt = self._told if request.number <= self._covers else ""
        request.done(FlushError(errno.EIO, f"{self._name}: {doubt}") if doubt else None)
