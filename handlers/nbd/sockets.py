"""Waiting for the sockets of several connections, on one descriptor.

Knows neither requests nor what becomes of a connection that has ended.
"""

import select
import threading
from collections.abc import Callable
from typing import Final

from vscsihba.handlers.nbd.connection import Connection
from vscsihba.handlers.nbd.negotiation import text_of

_INPUT: Final = int(select.EPOLLIN)

Ended = Callable[[Connection, str], None]
"""Told of a connection that has ended, and why; it is not waited for any more."""


class Sockets:
    """The sockets of the connections of one link. All methods may be called on any thread.

    Args:
        ended: Told of connections that have ended, by `serve`.
    """

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._by_fd: dict[int, Connection] = {}
        self._alone: Connection | None = None

    def fileno(self) -> int:
        """Return the descriptor; readable: `serve` has work."""
        return self._epoll.fileno()

    def add(self, connection: Connection) -> None:
        """Wait for a connection."""
        with self._lock:
            self._by_fd[connection.fd] = connection
            self._epoll.register(connection.fd, connection.events)
            self._note_alone()

    def remove(self, connection: Connection) -> None:
        """Wait for a connection no longer; without effect if it is not waited for."""
        with self._lock:
            if self._by_fd.get(connection.fd) is connection:
                del self._by_fd[connection.fd]
                self._epoll.unregister(connection.fd)
                self._note_alone()

    def _note_alone(self) -> None:
        """Note whether there is one connection only, which needs no question which one has work."""
        self._alone = next(iter(self._by_fd.values())) if len(self._by_fd) == 1 else None

    def update(self, connection: Connection) -> None:
        """Wait for the events that a connection wants now."""
        with self._lock:
            if self._by_fd.get(connection.fd) is connection:
                events = connection.events
                connection.waits_for_output = bool(events & select.POLLOUT)
                self._epoll.modify(connection.fd, events)

    def serve(self) -> None:
        """Serve the connections that have work, without blocking."""
        alone = self._alone
        if alone is not None and not alone.waits_for_output:
            self._notify(alone, _INPUT)
            return
        for fd, events in self._epoll.poll(0):
            if (connection := self._by_fd.get(fd)) is not None:
                self._notify(connection, events)

    def _notify(self, connection: Connection, events: int) -> None:
        try:
            connection.notify(events)
            if connection.waits_for_output:
                self.update(connection)
        except OSError as error:
            self.remove(connection)
            self._ended(connection, text_of(error))

    def close(self) -> None:
        """Close the descriptor."""
        self._epoll.close()
