"""Threads for verbs that may block, a few for each logical unit.

Each unit has threads of its own, so that hanging storage delays no other unit. They are started when first
needed and end with the process: nothing waits for a thread whose verb never returns.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from vscsihba import threads
from vscsihba.engine.serving.call_queue import Calls
from vscsihba.errors import NotBegunError

log = logging.getLogger(__name__)

T = TypeVar("T")
Done = Callable[[T | None, Exception | None], None]


class Workers(Generic[T]):
    """At most `limit` threads that run jobs.

    Args:
        name: Prefix of the threads' names.
        limit: Greatest number of jobs that run at the same time.
        calls: Takes the results; the serving thread runs the `done` callbacks.

    Attributes:
        busy: Jobs of `submit` whose `done` was not called yet.
    """

    def __init__(self, name: str, limit: int, calls: Calls) -> None:
        self._name = name
        self._limit = limit
        self._calls = calls
        self._jobs: SimpleQueue[tuple[Callable[[], T], Done[T]] | None] = SimpleQueue()
        self._threads = 0
        self._occupied = 0  # jobs that wait or run
        self._lock = threading.Lock()  # of `_occupied`
        self.busy = 0

    def submit(self, job: Callable[[], T], done: Done[T]) -> None:
        """Run `job` on a thread, then `done(result, None)` or `done(None, error)` on the serving thread.

        For the serving thread only. If no thread can be started, `done` gets a `NotBegunError`.
        """
        try:
            self.run(job, partial(self._post, done))
        except NotBegunError as refusal:
            self._post(done, None, refusal)
        self.busy += 1

    def run(self, job: Callable[[], T], ended: Done[T]) -> None:
        """Run `job` on a thread, which then calls `ended(result, None)` or `ended(None, error)`.

        For the serving thread only. If the machine has no room for another thread, the existing threads do
        the job.

        Raises:
            NotBegunError: There are none; the job is not begun.
        """
        if self._threads < min(self._occupied + 1, self._limit):
            try:
                self._start()
            except (OSError, MemoryError) as error:
                log.warning("%s: %s", self._name, error)
                if not self._threads:
                    raise NotBegunError(f"{self._name}: {error}") from error
        self._occupy(1)
        # Last: a job that could not be submitted never runs, for its buffer may be used again by then.
        self._jobs.put((job, ended))

    def _occupy(self, jobs: int) -> None:
        with self._lock:
            self._occupied += jobs

    def _start(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        threads.start(threading.Thread(target=self._work, name=name, daemon=True))
        self._threads += 1

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, ended = item
            result, error = None, None
            try:
                result = job()
            except Exception as failure:  # noqa: BLE001 - passed to `ended`, which judges it
                error = failure
            except SystemExit:  # would end the thread silently
                error = RuntimeError("a job has called sys.exit")
            self._occupy(-1)
            ended(result, error)
            del item, job, ended, result, error  # an idle thread must not keep views of a ring alive

    def _post(self, done: Done[T], result: T | None, error: Exception | None) -> None:
        self._calls.post(partial(self._deliver, done, result, error))

    def _deliver(self, done: Done[T], result: T | None, error: Exception | None) -> None:
        self.busy -= 1
        done(result, error)

    def close(self) -> None:
        """End the threads after the jobs that were submitted."""
        for _ in range(self._threads):
            self._jobs.put(None)
