"""The link to an export: connections that are replaced when the server is lost, and the requests on them.

A request that is under way when a connection is lost is sent again on the next one. Writes that were
acknowledged and not flushed are sent again first, from copies (`unflushed`): a server that has died may have
lost them. If they are not all there, the next flush fails.

A request fails after the time limit. A server that does not answer is disconnected before that, so that no
view is used any more. A thread of the link watches the limits, and another one connects; while nobody
else does (`attach`), the former also finishes requests.
"""

import contextlib
import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from vscsihba import threads
from vscsihba.errors import FlushError, VscsihbaError
from vscsihba.handlers.nbd.address import Address
from vscsihba.handlers.nbd.connecting import ATTEMPT, Connector, LinkOptions, check_same
from vscsihba.handlers.nbd.connection import Connection
from vscsihba.handlers.nbd.flush_results import FlushResults
from vscsihba.handlers.nbd.negotiation import text_of
from vscsihba.handlers.nbd.requests import LOST, Completed, Export, Kind, Request
from vscsihba.handlers.nbd.sockets import Sockets
from vscsihba.handlers.nbd.unflushed import UnflushedWrites

__all__ = ["Link", "LinkOptions", "Lost"]

log = logging.getLogger(__name__)

_FLUSH: Final = Kind.FLUSH
_PLAIN: Final = (Kind.READ, Kind.WRITE)
_CHANGES: Final = (Kind.WRITE, Kind.ZERO, Kind.TRIM)
_TICK: Final = 1.0
"""Seconds between two looks at the time limits, at most."""
_PAUSES: Final = (0.05, 1.0)
"""Seconds between two attempts to connect: at first, at most."""
_SHORT_LIFE: Final = 1.0
"""Seconds; if a connection is lost sooner, the next one is made later."""
_DELAYS: Final = (0.02, 0.5)
"""Seconds before that: at first, at most."""
_BRIEF: Final = 0.001
_PARTING: Final = 0.5
"""Seconds that a server has, at most, to answer the requests on connections that are given up."""
_SPREAD: Final = 64 << 10
"""Bytes of requests in a row on one connection; then it is the next one's turn."""

Lost = Callable[[str], None]
"""Told, on any thread, why the connections were lost."""


class Link:
    """Connections to one export. All methods may be called on any thread, unless they say otherwise.

    Args:
        address: The export.
        options: Settings.
        lost: Told of lost connections, for instance to start the server again.
    """

    def __init__(self, address: Address, options: LinkOptions, lost: Lost | None = None) -> None:
        self._address = address
        self._options = options
        self._timeout = options.timeout
        self._told = lost
        self._unflushed = UnflushedWrites(options.unflushed)
        self._lock = threading.Lock()
        self._completed: Completed = deque()
        self._connections: list[Connection] = []
        self._unsent: list[Connection] = []
        self._dying: list[Connection] = []
        self._under_way: dict[Request, Connection] = {}
        self._waiting: deque[Request] = deque()
        self._turn = self._in_turn = 0
        self._connected = self._delay = 0.0
        self._down_since: float | None = None
        self._reason = ""
        self._flushes = FlushResults(address.name, self.begin)
        self._ticking = self._attached = self._reconnecting = self._corked = False
        self._intended = False
        self._closed = threading.Event()
        self._connector = Connector(address, options, self._completed, self._closed)
        self._threads: list[threading.Thread] = []
        self.export: Export

    def open(self) -> None:
        """Connect.

        Raises:
            UnknownExportError: The server has no such export.
            OSError: The server cannot be reached.
        """
        self._connections, self.export = self._connector.connect()
        self._connected = time.monotonic()
        self._sockets = Sockets(self._lose)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for connection in self._connections:
            self._sockets.add(connection)
        keeper = threads.VitalThread(self._keep, "nbd")
        try:
            threads.start(keeper)
        except OSError:
            for connection in self._connections:
                connection.leave()
            self._sockets.close()
            os.close(self._wake)
            raise
        self._threads.append(keeper)

    @property
    def has_unflushed(self) -> bool:
        """Whether acknowledged writes are kept, since no flush has covered them."""
        return self._unflushed.pending

    def close(self) -> None:
        """Take leave of the server; no request may be under way."""
        with self._lock:
            self._closed.set()
            connections, self._connections = [*self._connections, *self._dying], []
        os.eventfd_write(self._wake, 1)
        for thread in self._threads[:1]:
            thread.join(
                ATTEMPT
            )  # the keeper: it may have begun to connect just now, which adds another thread
        for thread in self._threads:
            thread.join(ATTEMPT)
        for connection in connections:
            self._sockets.remove(connection)
            connection.leave()
        if not any(thread.is_alive() for thread in self._threads):  # else one still uses them
            self._sockets.close()
            os.close(self._wake)

    def adopt(self, size: int) -> None:
        """Take over the size that the export has now.

        Raises:
            OSError: EOPNOTSUPP: the export has another size; or the server cannot be reached.
        """
        connections, export = self._connector.connect(most=1)
        for connection in connections:
            connection.leave()
        if export.size != size:
            raise OSError(
                errno.EOPNOTSUPP,
                f"{self._address.name} has {export.size} bytes; its size can be changed on the server only",
            )
        with self.replaced_on_purpose():
            with self._lock:
                self.export = export
                old = self._connections[:1]
            for connection in old:
                self._lose(connection, "the size has changed")

    @contextlib.contextmanager
    def replaced_on_purpose(self) -> Iterator[None]:
        """Return a context in which connections end because the caller wants it, which is no warning."""
        self._intended = True
        try:
            yield
        finally:
            self._intended = self._down_since is not None  # until there are new ones

    # Requests.

    def begin(self, request: Request) -> None:
        """Begin a request; `Request.done` gets its result.

        Raises:
            OSError: ENOTCONN: the server has been away for longer than the time limit.
        """
        now, down = time.monotonic(), self._down_since
        if down is not None and now - down > self._timeout:
            raise OSError(errno.ENOTCONN, f"{self._address.name}: no connection: {self._reason}")
        request.expires = now + self._timeout
        self._send(request)

    def begin_flush(self, request: Request) -> None:
        """Begin a flush; it fails if writes were lost and no flush has told of that yet.

        Raises:
            OSError: As `begin`.
        """
        self._flushes.begin_reporting(request)

    def _send(self, request: Request) -> None:
        """Send a request on a connection, or let it wait for one, or for `uncork`."""
        with self._lock:
            connections = self._connections
            connection = connections[0] if len(connections) == 1 else self._choose(request.length)
            if connection is None:
                self._waiting.append(request)
            else:
                self._under_way[request] = connection
                if request.kind == _FLUSH:
                    self._unflushed.begin_flush(request)
                connection.queue(request)
                if self._corked:
                    if connection not in self._unsent:
                        self._unsent.append(connection)
                    connection = None
            idle, self._ticking = not self._ticking, True
        if idle:
            os.eventfd_write(self._wake, 1)
        if connection is not None:
            self._push(connection)

    def _choose(self, length: int) -> Connection | None:
        """Return the connection whose turn it is, for a request of `length` bytes; None if there is none.

        Requests that are begun together are sent together, on one connection, unless they are large.
        """
        connections = self._connections
        if not connections:
            return None
        self._in_turn += length
        if self._in_turn > _SPREAD or not self._corked:
            self._turn, self._in_turn = self._turn + 1, 0
        return connections[self._turn % len(connections)]

    def _push(self, connection: Connection) -> None:
        """Send the requests that were queued on a connection."""
        try:
            if not connection.send():
                self._sockets.update(connection)
        except OSError as error:
            self._lose(connection, text_of(error))
            return
        if self._completed:  # some have ended without a wake-up by the socket
            os.eventfd_write(self._wake, 1)

    def _drain(self) -> None:
        """Hand on the results of requests that have ended."""
        while self._completed:
            ended = self._take_ended()
            # They are under way meanwhile: `_reconnect_once` waits for them, or it would repeat too little.
            self._unflushed.note(ended, self.export)
            self._end(ended)
            if self._unflushed.flush_due:
                self._flushes.begin_own()
            for request, number in ended:
                if number in LOST:
                    self._send_again(request)
                elif number or request.fua or request.kind not in _PLAIN:
                    self._finish(request, number)
                else:
                    request.done(None)

    def _take_ended(self) -> list[tuple[Request, int]]:
        completed, ended = self._completed, list[tuple[Request, int]]()
        try:  # without `contextlib.suppress`, which takes longer than the rest
            for _ in range(len(completed)):
                ended.append(completed.popleft())
        except IndexError:  # another thread has taken some, too
            pass
        return ended

    def _end(self, ended: list[tuple[Request, int]]) -> None:
        """Note that requests are not under way any more, and whether their connections are lost."""
        under_way, lost = self._under_way, list[Connection]()
        with self._lock:
            for request, number in ended:
                connection = under_way.pop(request, None)
                if number in LOST and connection is not None:
                    lost.append(connection)
        for connection in lost:
            self._lose(connection, os.strerror(errno.ENOTCONN))

    def _send_again(self, request: Request) -> None:
        if time.monotonic() >= request.expires or self._closed.is_set():
            request.done(self._expired())
        else:
            request.forget_answer()
            self._send(request)

    def _expired(self) -> OSError:
        text = f"{self._address.name}: not answered within {self._options.timeout:g} s"
        return TimeoutError(errno.ETIMEDOUT, f"{text}: {self._reason}" if self._reason else text)

    def _finish(self, request: Request, number: int) -> None:
        """Hand on the result of a request that the server has answered."""
        if number:
            kind = FlushError if request.kind is Kind.FLUSH else OSError
            text = f"{self._address.name}: {request.kind.name.lower()}: {os.strerror(number)}"
            request.done(kind(number, text))
            return
        if request.reports:
            self._flushes.hand_on(request)
            return
        if request.kind in _CHANGES and self.export.flush and request.fua and not self.export.fua:
            self._flushes.begin_after(request)
            return
        request.done(None)

    # Pollable.

    def fileno(self) -> int:
        """Return the descriptor; see `vscsihba.handlers.base.Pollable`."""
        return self._sockets.fileno()

    def attach(self) -> None:
        """Leave it to the caller to call `serve`."""
        self._attached = True
        os.eventfd_write(self._wake, 1)

    def detach(self) -> None:
        """Do without calls of `serve`."""
        self._attached = False
        os.eventfd_write(self._wake, 1)

    def cork(self) -> None:
        """Hold requests back, to send them together; see `vscsihba.handlers.base.Pollable`."""
        self._corked = True

    def uncork(self) -> None:
        """Send the requests that were held back."""
        with self._lock:
            self._corked = False
            unsent, self._unsent = self._unsent, []
        for connection in unsent:
            self._push(connection)

    def serve(self) -> None:
        """Do the work that is due, without blocking."""
        self._sockets.serve()
        self._drain()

    # The thread of the link.

    def _keep(self) -> None:
        threads.repeat(self._keep_step, "nbd")

    def _keep_step(self) -> bool:
        """Wait for work or for the next look at the time limits; False at the end of the link."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._attached:
            poll.register(self._sockets.fileno(), select.POLLIN)
        tick = min(_TICK, self._options.timeout / 4) if self._ticking else None
        for fd, _ in poll.poll(None if tick is None else tick * 1000):
            if fd == self._wake:
                os.eventfd_read(self._wake)
        if self._closed.is_set():
            return False
        if not self._attached:
            self.serve()
        self._drain()
        self._bury()
        if self._ticking:
            self._expire()
        return True

    def _lose(self, connection: Connection, reason: str) -> None:
        """Note that the server is lost: all connections end, and new ones are made."""
        with self._lock:
            if connection not in self._connections:
                return
            self._dying += self._connections
            self._connections = []
            now = self._down_since = time.monotonic()
            self._reason = reason
            first, most = _DELAYS
            short, delay = now - self._connected < _SHORT_LIFE, self._delay
            self._delay = min(most, max(first, 2 * delay)) if short else 0.0
        self._report("%s: connection lost: %s", self._address.name, reason)
        if self._told is not None:
            self._told(reason)
        os.eventfd_write(self._wake, 1)

    def _report(self, text: str, *values: object) -> None:
        log.log(logging.DEBUG if self._intended else logging.WARNING, text, *values)

    def _bury(self) -> None:
        """End lost connections, so that their requests end, and have new ones made."""
        with self._lock:
            dying, self._dying = self._dying, []
            down = self._down_since is not None and not self._reconnecting
        for connection in dying:
            self._sockets.remove(connection)
        _part(dying)
        for connection in dying:
            connection.kill()
        self._drain()
        if down and not self._dying:
            self._reconnecting = True
            thread = threads.VitalThread(self._reconnect, "nbd-connect")
            try:
                threads.start(thread)
            except OSError:
                self._reconnecting = False
                raise
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]

    def _expire(self) -> None:
        """End the requests whose time is over; a server that has not answered them is disconnected first."""
        now = time.monotonic()
        with self._lock:
            expired = [request for request in self._waiting if now >= request.expires]
            for request in expired:
                self._waiting.remove(request)
            hanging = [self._under_way[each] for each in self._under_way if now >= each.expires]
            self._ticking = bool(self._waiting or self._under_way)
        for request in expired:
            request.done(self._expired())
        for connection in hanging:
            self._lose(connection, f"no answer within {self._options.timeout:g} s")
        if hanging:
            self._bury()

    # Connecting.

    def _reconnect(self) -> None:
        """Connect until it succeeds or the link is closed."""
        pause, most = _PAUSES
        try:
            self._closed.wait(self._delay)
            while not self._closed.is_set():
                try:
                    self._reconnect_once()
                except (OSError, VscsihbaError) as error:
                    self._reason = text_of(error).removeprefix(f"{self._address.name}: ")
                else:
                    break
                self._closed.wait(pause)
                pause = min(most, 2 * pause)
        finally:
            self._reconnecting = False
            if not self._closed.is_set():
                os.eventfd_write(self._wake, 1)

    def _reconnect_once(self) -> None:
        connections, export = self._connector.connect()
        try:
            check_same(self.export, export)
            while self._under_way and not self._closed.wait(_BRIEF):
                pass  # results of lost connections are being handed on just now
            self._flushes.note(self._connector.repeat(connections[0], export, self._unflushed))
        except BaseException:
            for connection in connections:
                connection.leave()
            raise
        with self._lock:
            if self._closed.is_set():
                for connection in connections:
                    connection.leave()
                return
            for connection in connections:
                self._sockets.add(connection)
            now = self._connected = time.monotonic()
            away = now - (self._down_since or 0)
            self._down_since, self._reason = None, ""
            self._connections = connections
            waiting, self._waiting = self._waiting, deque()
        self._report("%s: connected again after %.1f s", self._address.name, away)
        self._intended = False
        for request in waiting:
            self._send_again(request)


def _part(connections: list[Connection]) -> None:
    """Take leave of the server, and give it time to answer: what it executes later may undo newer writes."""
    until = time.monotonic() + _PARTING
    poll, parting = select.poll(), dict[int, Connection]()
    for connection in connections:
        if not connection.over and connection.part():
            parting[connection.fd] = connection
            poll.register(connection.fd, select.POLLIN)
    while parting and (left := until - time.monotonic()) > 0:
        for fd, events in poll.poll(left * 1000):
            try:
                parting[fd].notify(events)
            except OSError:  # the server has closed it
                poll.unregister(fd)
                del parting[fd]
