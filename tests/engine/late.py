"""Handler in memory with asynchronous verbs that the test ends, with or without an error."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.engine.rig import Rig
from tests.polling import wait_until
from vscsihba.block import Capabilities, Geometry, Views
from vscsihba.handlers.base import AsyncVerbs, Done, Handler


class Late(Handler):
    """A disk in memory; requests wait in `waiting` until the test ends them.

    Attributes:
        waiting: Requests that have begun: the verb, and the function that does it and calls `done`.
        refusal: Raised by asynchronous verbs in place of beginning.
        synchronous: Verbs that were called on worker threads, in order.
    """

    name = "late"
    workers = 4

    def __init__(self, size: int = 1 << 20) -> None:
        super().__init__(Handler.Options())
        self.data = bytearray(size)
        self.waiting: deque[tuple[str, Callable[[OSError | None], None]]] = deque()
        self.refusal: BaseException | None = None
        self.synchronous: list[str] = []
        self.pollable: Source | None = None

    @property
    def geometry(self) -> Geometry:
        return Geometry(len(self.data))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(flush=True)

    @property
    def asynchronous(self) -> AsyncVerbs:
        return AsyncVerbs(
            read=self.begin_read, write=self.begin_write, flush=self.begin_flush, pollable=self.pollable
        )

    def begin_read(self, offset: int, views: Views, done: Done) -> None:
        self._begin("read", lambda: self._read(offset, views), done)

    def begin_write(self, offset: int, views: Views, _fua: bool, done: Done) -> None:
        self._begin("write", lambda: self._write(offset, views), done)

    def begin_flush(self, done: Done) -> None:
        self._begin("flush", lambda: None, done)

    def _begin(self, verb: str, work: Callable[[], None], done: Done) -> None:
        if self.refusal is not None:
            raise self.refusal

        def end(error: OSError | None) -> None:
            if error is None:
                work()
            done(error)

        self.waiting.append((verb, end))

    def end(self, number: int = 0, error: OSError | None = None) -> str:
        """End one of the waiting requests on this thread; return its verb."""
        verb, end = self.waiting[number]
        del self.waiting[number]
        end(error)
        return verb

    def read(self, offset: int, views: Views) -> None:
        self.synchronous.append("read")
        self._read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.synchronous.append("write")
        self._write(offset, views)

    def _read(self, offset: int, views: Views) -> None:
        for view in views:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def _write(self, offset: int, views: Views) -> None:
        for view in views:
            self.data[offset : offset + len(view)] = view
            offset += len(view)


class Source:
    """A pollable that ends the requests of `Late` which the test has allowed, on the pump's thread.

    Attributes:
        attached: Whether somebody waits on it.
        corked: Whether more verbs are expected.
        threads: Threads that have served it.
        fault: Raised by `serve`.
    """

    def __init__(self, handler: Late) -> None:
        self._handler = handler
        self._event = os.eventfd(0, os.EFD_NONBLOCK)
        self._allowed = 0
        self.attached = self.corked = False
        self.threads: set[str] = set()
        self.fault: Exception | None = None

    def fileno(self) -> int:
        return self._event

    def attach(self) -> None:
        self.attached = True

    def detach(self) -> None:
        self.attached = False

    def cork(self) -> None:
        self.corked = True

    def uncork(self) -> None:
        self.corked = False

    def allow(self, count: int) -> None:
        """Let the first `count` waiting requests end together."""
        self._allowed = count
        os.eventfd_write(self._event, 1)

    def serve(self) -> None:
        self.threads.add(threading.current_thread().name)
        os.eventfd_read(self._event)
        if self.fault is not None:
            raise self.fault
        for _ in range(self._allowed):
            self._handler.end()

    def close(self) -> None:
        os.close(self._event)


@contextmanager
def late_rig(handler: Late | None = None) -> Iterator[tuple[Rig, Late]]:
    """Serve a `Late`; at the end, all of its requests are ended."""
    handler = handler or Late()
    with Rig(handler=handler) as rig:
        try:
            yield rig, handler
        finally:
            while handler.waiting:
                handler.end()


def begun(handler: Late, count: int) -> None:
    """Wait until so many requests of a handler wait."""
    wait_until(lambda: len(handler.waiting) == count)
