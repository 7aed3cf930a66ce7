"""AbandonablePool: threads that run requests which may hang, so that their callers never do.

They are daemons: a request that never returns keeps neither its caller nor the process. Any failure of a
request, also one that no contract names, reaches the caller as an ``OSError``.
"""

import errno
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Future(Generic[T]):
    """The result of a request, once it is there."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._pending = threading.Lock()  # held until it is done; much cheaper than an Event
        self._pending.acquire()
        self._error: BaseException | None = None
        self._result: list[T] = []

    def run(self) -> None:
        """Run the request in the calling thread."""
        try:
            self._result.append(self._job())
        except BaseException as error:  # noqa: BLE001  # its caller must not wait for ever
            self._error = error
        self._pending.release()
        del self  # or the error and this frame, with the views of the request, would keep each other

    @property
    def is_done(self) -> bool:
        """Whether it has ended, one way or the other."""
        return not self._pending.locked()

    def result(self, timeout: float | None) -> T:
        """Wait for the result.

        Raises:
            TimeoutError: It has not come after `timeout` seconds (None: wait for ever).
            OSError: The request failed: its own OSError, or one made of any other exception
                (ENOMEM for a MemoryError, else EIO).
            BaseException: The request raised it, and it is no Exception.
        """
        if not self._pending.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:.1f} seconds")
        self._pending.release()
        error = self._error
        if error is None:
            return self._result[0]
        try:
            if isinstance(error, OSError) or not isinstance(error, Exception):
                raise error
            number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EIO
            raise OSError(number, f"{type(error).__name__}: {error}") from error
        finally:
            del error, self  # as in `run`


def attempt(job: Callable[[], T]) -> T:
    """Run a request in the calling thread, and turn any failure into an ``OSError``.

    Raises:
        OSError: As `Future.result`.
    """
    future = Future(job)
    future.run()
    try:
        return future.result(None)
    finally:
        del future  # as in `Future.run`


class AbandonablePool:
    """Threads, started when they are needed, `limit` of them at most."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._busy = self._started = self._running = 0
        self._jobs: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._ended = threading.Event()
        self._last: Callable[[], None] | None = None

    @property
    def under_way(self) -> int:
        """The number of requests that have not ended."""
        return self._busy

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Let a thread run `job`.

        Raises:
            OSError: The pool is closed, or no thread can be started.
        """
        future = Future(job)
        with self._lock:
            if self._closed:
                raise OSError(errno.ENODEV, "it is not used any more")
            if self._running < min(self._busy + 1, self._limit):
                self._start()
            self._busy += 1
            self._jobs.put(future)
        return future

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Take no more requests; the threads end when those that they have are done.

        Args:
            last: Called once by the last thread to end, or now if there is none.
        """
        with self._lock:
            if self._closed:
                return
            self._closed, self._last = True, last
            for _ in range(self._running):
                self._jobs.put(None)
            idle = not self._running
        if idle:
            self._end()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended after `close`, `timeout` seconds at most; return whether it has."""
        return self._ended.wait(timeout)

    def _start(self) -> None:
        """Start another thread; where that fails, the running ones have to do."""
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if not self._running:
                raise OSError(errno.EAGAIN, f"no thread can be started: {error}") from error
            return
        self._started += 1
        self._running += 1

    def _work(self) -> None:
        while (future := self._jobs.get()) is not None:
            future.run()
            with self._lock:
                self._busy -= 1
            del future  # a waiting thread must not keep the memory of a request alive
        with self._lock:
            self._running -= 1
            is_last = not self._running
        if is_last:
            self._end()

    def _end(self) -> None:
        try:
            if self._last is not None:
                self._last()
        finally:
            self._ended.set()
