"""One connection to a control server: the request coming in, the answer going out."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vscsihba.control import wire
from vscsihba.errors import UsageError


@dataclass(slots=True, eq=False)
class Inbound:
    """A connection, and what has come of its request.

    Attributes:
        connection: Does not block.
        deadline: When the request must be there, in seconds of the monotonic clock.
        ended: The other side hung up before its request was whole.
    """

    connection: socket.socket
    deadline: float
    ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)

    def read(self) -> bytes | None:
        """Take what has come; return the request once it is whole.

        Raises:
            UsageError: It is too long.
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
        """Say one line, as far as the other side takes it at once, and hang up."""
        with contextlib.suppress(OSError), self.connection:
            self.connection.send(line)

    @contextlib.contextmanager
    def outbound(self, patience: float) -> Iterator[Callable[[bytes], None]]:
        """Give what sends lines, and hang up afterwards.

        One that does not take a line within `patience` seconds, or is gone, gets no more: whatever
        is being done for it goes on.
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
