"""The events of all raw LUNs of an HBA, behind one descriptor, until the caller takes them.

Knows the sources of events and the threads that wait for them, not what an event means.
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
    """A source of events."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when `collect` is worth a call."""

    def collect(self) -> list[Event]:
        """Return the events since the last call.

        Raises:
            TransportError: No more events will come.
        """


class Inbox:
    """A queue of events; a thread that waits for them also collects them. Any thread may call any method.

    Attributes:
        ended: No more events will come.
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
        """Return a descriptor that is readable while there may be an event, and always after the end."""
        return self._epoll.fileno()

    def add(self, source: Source) -> None:
        """Collect events from `source` from now on."""
        self._sources[source.fileno()] = source
        self._epoll.register(source, select.EPOLLIN)
        self._collect(source)  # an earlier notification does not come again

    def remove(self, source: Source) -> None:
        """Collect no more events from `source`; a second call has no effect."""
        if self._sources.pop(source.fileno(), None) is not None:
            self._epoll.unregister(source)

    def put(self, *events: Event) -> None:
        """Add events, and wake the threads that wait."""
        with self._lock:
            self._events.extend(events)
            if events:
                self._ring()

    def take(self) -> Event | None:
        """Return the oldest event in the queue, None if it is empty."""
        with self._lock:
            event = self._events.popleft() if self._events else None
            if not self._events and not self.ended:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
        return event

    def wait(self, seconds: float | None = None) -> None:
        """Wait for up to `seconds` until a source has events, and collect them."""
        with self._entered() as open_:
            for fd, _ in self._epoll.poll(seconds) if open_ else ():
                if source := self._sources.get(fd):
                    self._collect(source)

    def end(self) -> None:
        """Note that no more events will come, and wake all threads."""
        with self._lock:
            self.ended = True
            self._ring()

    def close(self) -> None:
        """End, and close the descriptors once no thread waits on them; a second call has no effect."""
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
        """Make `close` wait while the context is entered; False if it is closed already."""
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
