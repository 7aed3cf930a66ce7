"""A connection that goes on as a stream of bytes after the answer to its request.

A verb returns a `Stream`; the server sends its answer and then runs it. The thread of the request waits
without a limit for a reader that does not read; no other thread does.
"""

import select
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from vscsihba.control import wire
from vscsihba.control.client import NoAnswerError, ask, errors_of


class Channel:
    """The server's end of a stream.

    Args:
        connection: A connected socket, which its owner closes.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN | select.POLLRDHUP)

    def send(self, data: bytes) -> bool:
        """Send bytes, waiting for the reader; False if it has gone or the server ends."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def wait(self, seconds: float) -> bool:
        """Wait; False, at once, if the reader has gone or the server ends."""
        return not self._poll.poll(seconds * 1000)

    def end(self) -> None:
        """Have `send` and `wait` return False; for any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Stream:
    """The result of a verb whose connection goes on as a stream.

    Attributes:
        answer: The answer to the request, a JSON value.
        run: Sends bytes until the channel says that the reader has gone; it may raise nothing.
    """

    answer: object
    run: Callable[[Channel], object]


class Incoming:
    """The reader's end of a stream, from `open_stream`.

    Attributes:
        path: The control socket.
        answer: The answer to the request.
    """

    def __init__(self, path: Path, answer: object, connection: socket.socket, begun: bytes) -> None:
        self.path = path
        self.answer = answer
        self._connection = connection
        self._begun = begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when `receive` has something to return."""
        return self._connection.fileno()

    def receive(self, most: int = 1 << 20) -> bytes | None:
        """Return the bytes that have arrived; None if there are none now, empty bytes at the end."""
        if begun := self._begun:
            self._begun = b""
            return begun
        try:
            return self._connection.recv(most)
        except BlockingIOError:
            return None
        except OSError:  # the process was killed
            return b""

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def open_stream(path: Path, verb: str, arguments: Mapping[str, object], *, timeout: float) -> Incoming:
    """Send a request whose connection goes on as a stream.

    Args:
        path: The control socket.
        verb: The operation.
        arguments: By name.
        timeout: Seconds to wait for the answer.

    Raises:
        NotListeningError: No process listens.
        UsageError, HostError: The server's error, or it does not answer.
    """
    connection, stored = ask(path, verb, arguments, timeout=timeout), bytearray()
    with errors_of(connection, path, verb, timeout=timeout):
        while b"\n" not in stored:
            received = connection.recv(1 << 16)
            if not received:
                raise NoAnswerError(f"{path}: ended without an answer to {verb!r}", cure="its log says why")
            stored += received
        line, _, rest = bytes(stored).partition(b"\n")
        answer = wire.decode_answer(line)
        if answer.error is not msgspec.UNSET:
            raise answer.error.to_error()
        connection.settimeout(0)
    return Incoming(path, answer.result, connection, rest)
