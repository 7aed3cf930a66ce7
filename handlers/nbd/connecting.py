"""Connecting to an export, at first and again: all connections, the same export, the writes that may be lost.

Knows nothing of requests under way; `link` decides when to connect.
"""

import errno
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from vscsihba.errors import HostError
from vscsihba.handlers.nbd.address import Address
from vscsihba.handlers.nbd.connection import Connection
from vscsihba.handlers.nbd.requests import LOST, Completed, Export, Kind, Request
from vscsihba.handlers.nbd.unflushed import Kept, UnflushedWrites

ATTEMPT: Final = 5.0
"""Seconds for one attempt to connect, at most."""
_AT_ONCE: Final = 16
"""Writes that are repeated side by side."""
_STEP: Final = 0.25


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Settings of a link.

    Attributes:
        timeout: Seconds after which a request fails.
        connections: Connections at most; more than one only if the server has the same data on all of them.
        unflushed: Bytes of acknowledged writes that are kept until a flush; 0 for none.
    """

    timeout: float = 25.0
    connections: int = 4
    unflushed: int = 64 << 20


class Connector:
    """Makes the connections of a link. All methods block, and may be called on any thread.

    Args:
        address: The export.
        options: Settings of the link.
        completed: Takes the requests that have ended on its connections.
        closed: Set when the link is closed: connecting ends soon.
    """

    def __init__(
        self, address: Address, options: LinkOptions, completed: Completed, closed: threading.Event
    ) -> None:
        self._address = address
        self._options = options
        self._completed = completed
        self._closed = closed

    def connect(self, most: int | None = None) -> tuple[list[Connection], Export]:
        """Connect, as often as the options and the server allow.

        Args:
            most: Number of connections at most; by default that of the options.

        Raises:
            UnknownExportError: The server has no such export.
            OSError: The server cannot be reached, or does not answer in time.
        """
        until = time.monotonic() + min(ATTEMPT, self._options.timeout)
        connections: list[Connection] = []
        try:
            connections.append(first := self._connect_one(until))
            for _ in range(1, most or self._options.connections):
                if not first.export.shared:
                    break
                connections.append(self._connect_one(until))
        except BaseException:
            for connection in connections:
                connection.leave()
            raise
        return connections, first.export

    def _connect_one(self, until: float) -> Connection:
        return Connection(
            self._address, self._completed, until=until, wanted=self._wanted, silence=self._options.timeout
        )

    def _wanted(self) -> bool:
        return not self._closed.is_set()

    def repeat(self, connection: Connection, export: Export, unflushed: UnflushedWrites) -> str:
        """Write everything again that was acknowledged and not flushed, as far as it is kept.

        It takes as long as the server needs, as long as that answers one request after the other.

        Args:
            connection: A new connection, with no request under way.
            export: Properties of the export.
            unflushed: These writes.

        Returns:
            The reason why some of these writes may be lost; empty if none is.

        Raises:
            OSError: The connection was lost once more.
        """
        doubt = ""
        unflushed.forget_flushes()
        if unflushed.incomplete:
            doubt = "the server was lost with acknowledged writes that were not flushed"
        completed: Completed = deque()
        connection.hand_over(completed)
        under_way = 0
        until = time.monotonic() + self._options.timeout
        parts = [request for kept in unflushed.latest() for request in _requests(kept, export)]
        while parts or under_way:
            while parts and under_way < _AT_ONCE:
                connection.begin(parts.pop())
                under_way += 1
            while not completed:
                if time.monotonic() > until or self._closed.is_set():
                    raise TimeoutError(errno.ETIMEDOUT, "the server does not answer")
                connection.wait(_STEP)
            _, number = completed.popleft()
            under_way -= 1
            until = time.monotonic() + self._options.timeout
            if number in LOST:
                raise OSError(number, os.strerror(number))
            if number:
                doubt = f"an acknowledged write could not be repeated: {os.strerror(number)}"
        connection.hand_over(self._completed)
        return doubt


def check_same(before: Export, now: Export) -> None:
    """Check that a server has the export that was there before.

    Raises:
        HostError: It is another one.
    """
    if now.size != before.size:
        raise HostError(
            f"the export has {now.size} bytes, and had {before.size}",
            cure="if that is right, resize the disk",
        )
    if now != before:
        raise HostError("the export has other properties than before", cure="remove the disk, and add it")


def _requests(kept: Kept, export: Export) -> list[Request]:
    """Return the requests that write a part again."""
    if kept.discarded:
        return [Request(Kind.TRIM, _ignore, kept.offset, kept.length)]
    if kept.data is None and export.zero:
        return [Request(Kind.ZERO, _ignore, kept.offset, kept.length)]
    most, zeroes = export.maximum, memoryview(bytes(min(kept.length, export.maximum)))
    whole = kept.data
    return [
        Request(
            Kind.WRITE,
            _ignore,
            kept.offset + at,
            length := min(most, kept.length - at),
            zeroes[:length] if whole is None else whole[at : at + length],
        )
        for at in range(0, kept.length, most)
    ]


def _ignore(_error: OSError | None) -> None:
    """Take the result of a request that `Connector.repeat` sees by itself."""
