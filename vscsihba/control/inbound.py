"""One connection to a control server: the request coming in, the answer going out."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vscsihba.control import wire
from vscsihba.errors import UsageError


@dataclass(slots=True, eq=False)
class Inbound:
    """A connection, and the part of its request that has been received.

    Attributes:
        connection: A non-blocking socket.
        deadline: Time by which the request must be complete, in seconds of the monotonic clock.
        ended: The client hung up before its request was complete.
    """

    connection: socket.socket
    deadline: float
    ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)

    def read(self) -> bytes | None:
        """Receive bytes; return the request once it is complete.

        Raises:
            UsageError: The request is too long.
        """
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return None
        before = len(self._buffer)
        self._buffer += data
        end = self._buffer.find(b"\n", before)
        if len(self._buffer) > wire.MAX_REQUEST:
            raise UsageError(f"the request is longer than {wire.MAX_REQUEST} bytes")
        return None if end < 0 else bytes(self._buffer[:end])

    def answer(self, line: bytes) -> None:
        """Send one line without waiting, and hang up."""
        with contextlib.suppress(OSError), self.connection:
            self.connection.send(line)

    @contextlib.contextmanager
    def outbound(self, patience: float) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that sends lines, and hang up afterwards.

        A client that does not receive a line within `patience` seconds, or has gone, gets no more lines; its
        request is carried out all the same.
        """
        gone = False
        self.connection.settimeout(patience)

        def send(line: bytes) -> None:
            nonlocal gone
            if not gone:
                try:
                    self.connection.sendall(line)
                except OSError:
                    gone = True

        with self.connection:
            yield send
