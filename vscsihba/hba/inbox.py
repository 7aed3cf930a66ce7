"""What waits for the caller, from all raw LUNs of an HBA, behind one descriptor.

Knows who brings events and who waits for them, not what an event is about.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from vscsihba.errors import TransportError
from vscsihba.hba.task import Event


class Source(Protocol):
    """Brings events."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when `collect` is worth a call."""

    def collect(self) -> list[Event]:
        """Return what has come since the last call.

        Raises:
            TransportError: Nothing will come any more.
        """


class Inbox:
    """A queue of events that is filled by whoever waits for it; any thread may do anything.

    Attributes:
        ended: No event will come any more.
    """

    def __init__(self) -> None:
        self.ended = False
        self._events: deque[Event] = deque()
        self._sources: dict[int, Source] = {}
        self._lock = threading.Lock()
        self._left = threading.Condition()
        self._inside = 0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, select.EPOLLIN)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be an event, and for ever after the end."""
        return self._epoll.fileno()

    def add(self, source: Source) -> None:
        """Take events from `source` too."""
        self._sources[source.fileno()] = source
        self._epoll.register(source, select.EPOLLIN)
        self._collect(source)  # what was notified before is not notified again

    def remove(self, source: Source) -> None:
        """Take no more events from `source`; twice is harmless."""
        if self._sources.pop(source.fileno(), None) is not None:
            self._epoll.unregister(source)

    def put(self, *events: Event) -> None:
        """Add events and wake whoever waits."""
        with self._lock:
            self._events.extend(events)
            if events:
                self._ring()

    def take(self) -> Event | None:
        """Return the oldest event that is there already, None if there is none."""
        with self._lock:
            event = self._events.popleft() if self._events else None
            if not self._events and not self.ended:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
        return event

    def wait(self, seconds: float | None = None) -> None:
        """Wait until something may have come, `seconds` at most, and collect it."""
        with self._entered() as open_:
            for fd, _ in self._epoll.poll(seconds) if open_ else ():
                if source := self._sources.get(fd):
                    self._collect(source)

    def end(self) -> None:
        """Wake everybody for good: nothing will come any more."""
        with self._lock:
            self.ended = True
            self._ring()

    def close(self) -> None:
        """End, and close the descriptors once nobody waits on them; twice is harmless."""
        self.end()
        with self._left:
            self._left.wait_for(lambda: not self._inside)
            self._epoll.close()
        with self._lock:
            if self._bell >= 0:
                os.close(self._bell)
            self._bell = -1

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def _collect(self, source: Source) -> None:
        try:
            self.put(*source.collect())
        except TransportError as error:
            self.remove(source)
            self.put(error)

    @contextmanager
    def _entered(self) -> Iterator[bool]:
        """Keep `close` waiting; False when it has closed already."""
        with self._left:
            if self._epoll.closed:
                yield False
                return
            self._inside += 1
        try:
            yield True
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify_all()
