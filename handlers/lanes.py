"""Lanes: threads that run requests which may hang, so that who asked need not.

They are daemons: a request that never returns keeps neither its caller nor the process.
"""

import errno
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Outcome(Generic[T]):
    """What will come of a request."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._result: list[T] = []

    def run(self) -> None:
        """Do it, in the calling thread."""
        try:
            self._result.append(self._job())
        except BaseException as error:  # noqa: BLE001  # whatever it is, whoever asked must not wait
            self._error = error
        self._done.set()

    def get(self, timeout: float | None) -> T:
        """Wait for the result.

        Raises:
            TimeoutError: It has not come after `timeout` seconds (None: wait for ever).
            BaseException: What the request raised.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:.1f} seconds")
        if self._error is not None:
            raise self._error
        return self._result[0]


class Lanes:
    """Threads, started when they are needed, `limit` of them at most."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._busy = 0
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[Outcome[Any] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, job: Callable[[], T]) -> Outcome[T]:
        """Let a thread run `job`.

        Raises:
            OSError: The lanes are closed.
        """
        outcome = Outcome(job)
        with self._lock:
            if self._closed:
                raise OSError(errno.ENODEV, "it is not used any more")
            self._busy += 1
            if len(self._threads) < min(self._busy, self._limit):
                name = f"{self._name}-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
            self._jobs.put(outcome)
        return outcome

    def close(self) -> None:
        """Take no more; the threads end when what they were given has ended."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended, `timeout` seconds at most; return whether it has."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (outcome := self._jobs.get()) is not None:
            outcome.run()
            with self._lock:
                self._busy -= 1
            del outcome  # a waiting thread must not keep the memory of a request alive
