"""The requests of one image that are under way: each ends once, at its time limit at the latest.

librados ends its own operations after a time, but a request may consist of several, and may wait for a
lock. So each request has a deadline of its own here. A change that has passed it may still happen later, so
until librbd has ended it, newer changes are refused: a late write never follows a newer one.

A client that another one has blocked stays blocked: every later request fails at once.
"""

import errno
import logging
import threading
import time

from vscsihba.handlers.base import Done

log = logging.getLogger(__name__)


class Request:
    """A request under way.

    Attributes:
        done: Takes its result, once.
        changes: It may change the image.
        deadline: Time of the monotonic clock at which it fails.
    """

    __slots__ = ("changes", "deadline", "done")

    def __init__(self, done: Done, *, changes: bool, deadline: float) -> None:
        self.done = done
        self.changes = changes
        self.deadline = deadline


class Requests:
    """The requests of one image; any thread may call it.

    Args:
        spec: The image, for messages.
        timeout: Seconds that a request may take.
    """

    def __init__(self, spec: str, timeout: float) -> None:
        self._spec = spec
        self._timeout = timeout
        self._lock = threading.Lock()
        self._open: dict[Request, None] = {}  # in the order of their deadlines
        self._late: set[Request] = set()
        self._blocked: OSError | None = None

    def begin(self, done: Done, *, changes: bool) -> Request:
        """Note a request that is about to be sent.

        Raises:
            OSError: It must not be sent: an older change is late, or this client is blocked.
        """
        request = Request(done, changes=changes, deadline=time.monotonic() + self._timeout)
        with self._lock:
            if self._blocked is not None:
                raise OSError(self._blocked.errno, self._blocked.strerror)
            if changes and self._late:
                raise OSError(
                    errno.ETIMEDOUT, f"rbd {self._spec}: the cluster has not ended an older request yet"
                )
            self._open[request] = None
        return request

    def take(self, request: Request) -> bool:
        """Return whether the caller must call `Request.done` with the result; False after the deadline."""
        with self._lock:
            if request in self._open:
                del self._open[request]
                return True
            self._late.discard(request)
            relieved = request.changes and not self._late
        if relieved:
            log.warning("rbd %s: the cluster has ended the last late request", self._spec)
        return False

    def end(self, request: Request, error: OSError | None) -> None:
        """End a request with its result, unless it has passed its deadline."""
        if error is not None and error.errno == errno.ESHUTDOWN:
            self.block(error)
        if self.take(request):
            request.done(error)

    def block(self, error: OSError) -> None:
        """Refuse all requests from now on: another client has taken over the image."""
        with self._lock:
            first, self._blocked = self._blocked is None, self._blocked or error
        if first:
            log.error("%s", error.strerror)

    def expire(self) -> None:
        """End the requests that have passed their deadline."""
        now = time.monotonic()
        expired: list[Request] = []
        with self._lock:
            for request in self._open:
                if request.deadline > now:
                    break
                expired.append(request)
            for request in expired:
                del self._open[request]
                if request.changes:
                    self._late.add(request)
        for request in expired:
            request.done(
                OSError(errno.ETIMEDOUT, f"rbd {self._spec}: no answer within {self._timeout:g} seconds")
            )
