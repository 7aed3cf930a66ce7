"""Threads for the verbs that may block, a few for each logical unit.

A unit has threads of its own, so that one whose storage hangs holds up nobody else.
They are started when first needed and die with the process: nothing waits for a thread
whose verb never returns.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from vscsihba.engine.mailbox import Mailbox

T = TypeVar("T")
Done = Callable[[T | None, Exception | None], None]


class Workers(Generic[T]):
    """At most `limit` threads that run jobs and post what came of them.

    Args:
        name: Shown as the threads' name.
        limit: How many jobs may run at once.
        mailbox: Where results are posted; its owner runs the `done` callbacks.
    """

    def __init__(self, name: str, limit: int, mailbox: Mailbox) -> None:
        self._name = name
        self._limit = limit
        self._mailbox = mailbox
        self._jobs: SimpleQueue[tuple[Callable[[], T], Done[T]] | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Run `job` on a thread, then `done(result, None)` or `done(None, error)` by the mailbox.

        Called by the mailbox's thread only.
        """
        self._busy += 1
        self._jobs.put((job, done))
        if self._threads < min(self._busy, self._limit):
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = None, None
            try:
                result = job()
            except Exception as failure:  # noqa: BLE001 - carried to the barrier, which judges it
                error = failure
            self._mailbox.post(self._delivery(done, result, error))
            del item, job, done, result, error  # a waiting thread must not keep views of a ring alive

    def _delivery(self, done: Done[T], result: T | None, error: Exception | None) -> Callable[[], None]:
        def deliver() -> None:
            self._busy -= 1
            done(result, error)

        return deliver

    def close(self) -> None:
        """End the threads once they are idle; jobs that were submitted still run."""
        for _ in range(self._threads):
            self._jobs.put(None)
