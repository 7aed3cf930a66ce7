"""Handlers with verbs that take as long as the test wants."""

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.engine.rig import Rig
from vscsihba.block import Geometry, Views
from vscsihba.handlers.base import Handler

FLUSH = bytes([0x35]) + bytes(9)


class Slow(Handler):
    """A handler of zeroes whose flush waits for the test, and which raises the errors of the test."""

    name = "slow"
    workers = 4

    def __init__(self) -> None:
        super().__init__(Handler.Options())
        self.gate = threading.Event()
        self.flushing = threading.Event()
        self.fault: Exception | None = None
        self.written = 0

    @property
    def geometry(self) -> Geometry:
        return Geometry(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        if self.fault is not None:
            raise self.fault
        for view in views:
            view[:] = bytes(len(view))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        if self.fault is not None:
            raise self.fault
        self.written += 1

    def flush(self) -> None:
        self.flushing.set()
        assert self.gate.wait(10)


class Held(Slow):
    """A handler in memory; the test chooses the verbs that wait."""

    name = "held"

    def __init__(self, *verbs: str) -> None:
        super().__init__()
        self.verbs = set(verbs)
        self.broken: set[str] = set()
        self.data = bytearray(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        self._wait("read")
        for view in views:
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self._wait("write")
        super().write(offset, views, fua=fua)
        for view in views:
            self.data[offset : offset + len(view)] = view
            offset += len(view)

    def flush(self) -> None:
        self._wait("flush")

    def _wait(self, verb: str) -> None:
        if verb in self.verbs:
            super().flush()
        if verb in self.broken:
            raise OSError(errno.EIO, "lost")


@contextmanager
def slow_rig(handler: Slow | None = None, *, trace: bool = False) -> Iterator[tuple[Rig, Slow]]:
    handler = handler or Slow()
    with Rig(handler=handler, trace=trace) as rig:
        try:
            yield rig, handler
        finally:
            handler.gate.set()
