"""rate: at most so many bytes and requests a second.

Requests queue up as before one slow disk; a pause is saved up for a burst. For a delay
that each request has to itself, see `delay`.
"""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from vscsihba.handlers.base import Handler
from vscsihba.handlers.interceptor import Interceptor, Request, Verb
from vscsihba.handlers.options import Positive, Seconds, Size


class Bucket:
    """A token bucket that may go into debt: `take` returns the time to wait.

    Args:
        per_second: Tokens that flow in.
        capacity: Tokens that it can save up.
    """

    def __init__(self, per_second: float, capacity: float) -> None:
        self._per_second = per_second
        self._capacity = self._tokens = capacity
        self._then = time.monotonic()
        self._lock = threading.Lock()

    def take(self, tokens: float) -> float:
        """Take `tokens` now; return the seconds until they are paid for."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._capacity, self._tokens + (now - self._then) * self._per_second)
            self._then = now
            self._tokens -= tokens
            return max(0.0, -self._tokens / self._per_second)


class RateHandler(Interceptor):
    """Limits of bytes and requests a second."""

    name = "rate"
    example = "rate:10MiB|/srv/disk.img"

    class Options(Handler.Options, kw_only=True):
        """Options of the rate filter."""

        bytes_per_second: Annotated[
            Size | None, Meta(description="Limit of bytes a second, such as 10MiB.")
        ] = None
        requests_per_second: Annotated[Positive | None, Meta(description="Limit of requests a second.")] = (
            None
        )
        burst: Annotated[
            Seconds, Meta(description="Burst in seconds: unused share that may be used at once.")
        ] = 0.1
        verbs: Annotated[tuple[Verb, ...], Meta(description="Verbs that share the limit.")] = (
            "read",
            "write",
        )

        def __post_init__(self) -> None:
            """Refuse options without a limit, and a limit of 0."""
            if self.bytes_per_second is None and self.requests_per_second is None:
                raise ValueError('say "bytes_per_second", "requests_per_second" or both')
            if self.bytes_per_second == 0:
                raise ValueError("at 0 bytes a second nothing would ever end")

    options: Options

    def open(self) -> None:
        """Start with full buckets."""
        wanted = self.options
        self._bytes = _bucket(wanted.bytes_per_second, wanted.burst)
        self._requests = _bucket(wanted.requests_per_second, wanted.burst)

    @property
    def watched(self) -> Collection[Verb]:
        """Those that the options name."""
        return self.options.verbs

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Wait for the request's turn, then let it go down."""
        if request.verb in self.options.verbs:
            wait = 0.0
            if self._bytes is not None:
                wait = self._bytes.take(request.length)
            if self._requests is not None:
                wait = max(wait, self._requests.take(1))
            if wait:
                time.sleep(wait)
        yield


def _bucket(per_second: float | None, burst: float) -> Bucket | None:
    return None if per_second is None else Bucket(per_second, per_second * burst)
