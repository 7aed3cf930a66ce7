"""A plain READ or WRITE under way, as small as it can be: one object from the ring to its completion.

It is the `done` of its verb. A task (`task.Task`) takes its place only when an abort names it or it fails.
"""

import time
from collections import deque
from collections.abc import Callable


class Results:
    """The plain commands of one logical unit that have ended, until the serving thread takes them.

    One call takes them all. `posted` is cleared before the queue is read, and read after it was added to, so
    no command is left behind.

    Attributes:
        ended: The commands.
        posted: The serving thread will take them.
        post: Has it do so.
    """

    __slots__ = ("ended", "post", "posted")

    def __init__(self, post: Callable[[], None]) -> None:
        self.ended: deque[PlainCommand] = deque()
        self.posted = False
        self.post = post


class PlainCommand:
    """A plain command that its handler has begun.

    Attributes:
        tag: Names the command to the transport.
        cdb: The command descriptor block.
        views: Its data buffer.
        length: Bytes of that.
        is_write: It is a WRITE.
        started: Time of its arrival, in seconds of CLOCK_MONOTONIC.
        error: Its result, once `done` was called.
        ended: Its result has been taken.
    """

    __slots__ = ("_results", "cdb", "ended", "error", "is_write", "length", "started", "tag", "views")

    def __init__(  # noqa: PLR0917 - without names, since one is made for each command
        self,
        results: Results,
        tag: int,
        cdb: bytes,
        views: list[memoryview],
        length: int,
        is_write: bool,  # noqa: FBT001 - likewise
    ) -> None:
        self._results = results
        self.tag = tag
        self.cdb = cdb
        self.views = views
        self.length = length
        self.is_write = is_write
        self.started = time.monotonic()
        self.error: Exception | None = None
        self.ended = False

    def __call__(self, error: Exception | None) -> None:
        """Take the result, on any thread; see `vscsihba.handlers.base.Done`."""
        self.error = error
        results = self._results
        results.ended.append(self)
        if not results.posted:
            results.posted = True
            results.post()
