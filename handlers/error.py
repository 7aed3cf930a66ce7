"""error: requests fail on purpose, to test programs that must cope with it.

Whether one fails is decided here; what a failure looks like to the initiator follows
from its errno, as for every handler.
"""

import errno
import os
import random
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from vscsihba.errors import MediumError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.interceptor import Interceptor, Request, Trigger, Verb, is_triggered
from vscsihba.handlers.options import Count, Probability, Size

_MEDIUM = "medium"


class ErrorHandler(Interceptor):
    """Errors for requests, for tests."""

    name = "error"
    example = 'error:ENOSPC;verbs=["write"];trigger=/tmp/full|/srv/disk.img'
    only_observes = True

    class Options(Handler.Options, kw_only=True):
        """Options of the error filter."""

        error: Annotated[
            str,
            Meta(
                description="Kind of failure: an errno such as ENOSPC, "
                'or "medium" for lost data, reported with its first byte.'
            ),
        ] = "EIO"
        verbs: Annotated[tuple[Verb, ...], Meta(description="Verbs that fail.")] = ("read", "write")
        offset: Annotated[Size, Meta(description="First byte of the failing range.")] = 0
        length: Annotated[
            Size | None, Meta(description="Length of the range; default: up to the end of the disk.")
        ] = None
        probability: Annotated[
            Probability, Meta(description="Probability that a request fails, from 0 to 1.")
        ] = 1.0
        after: Annotated[
            Count, Meta(description="Number of requests that pass before the first failure.")
        ] = 0
        count: Annotated[
            Count | None, Meta(description="Number of requests that fail; default: no limit.")
        ] = None
        trigger: Trigger = ""
        seed: Annotated[int, Meta(description="Seed of the random numbers.")] = 0

        def __post_init__(self) -> None:
            """Refuse an errno that does not exist."""
            if self.error != _MEDIUM and not isinstance(getattr(errno, self.error, None), int):
                raise ValueError(f'{self.error!r} is neither an errno nor "{_MEDIUM}"')

    options: Options

    def __init__(self, options: Options, below: Handler) -> None:
        super().__init__(options, below)
        self._luck = random.Random(options.seed)  # noqa: S311  # tests want the same luck again
        self._lock = threading.Lock()
        self._passed = self._failed = 0

    @property
    def watched(self) -> Collection[Verb]:
        """Those that the options name."""
        return self.options.verbs

    @contextmanager
    def around(self, request: Request) -> Iterator[None]:
        """Fail in place of going down, or go down."""
        if self._concerns(request) and self._fails():
            raise self._failure(request)
        yield

    def _concerns(self, request: Request) -> bool:
        """Return whether the options cover a request: its verb and its range."""
        options = self.options
        if request.verb not in options.verbs:
            return False
        end = self.geometry.size if options.length is None else options.offset + options.length
        whole = request.verb in ("flush", "resize", "crypto_erase")
        return whole or (request.offset < end and request.offset + request.length > options.offset)

    def _fails(self) -> bool:
        """Return whether the next covered request fails, and count it."""
        options = self.options
        if not is_triggered(options.trigger):
            return False
        with self._lock:
            if self._passed < options.after:
                self._passed += 1
                return False
            if options.count is not None and self._failed >= options.count:
                return False
            if self._luck.random() >= options.probability:
                return False
            self._failed += 1
            return True

    def _failure(self, request: Request) -> OSError:
        if self.options.error == _MEDIUM:
            return MediumError(max(request.offset, self.options.offset), f"{request}: lost on purpose")
        number = getattr(errno, self.options.error)
        return OSError(number, f"{request}: {os.strerror(number)} on purpose")
