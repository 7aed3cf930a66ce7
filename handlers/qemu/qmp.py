"""A client of the QEMU Machine Protocol: lines of JSON on a socket.

One command at a time, each with its answer; events that arrive meanwhile go to a function. The package
qemu.qmp does the same on asyncio, in forty times the code, and Debian 12 does not have it.
"""

import json
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from vscsihba.errors import HostError

_MOST: Final = 4 << 20
"""Bytes of the longest line; a list of the nodes of a long backing chain has some 100 KiB."""

_TELLING: Final = 1.0
"""Seconds that `tell` waits for the end of another command."""

OnEvent = Callable[[str, dict[str, Any]], None]
"""Takes the name of an event and its data."""


class QmpError(HostError):
    """A command was refused; the message is QEMU's."""


class Qmp:
    """A connection to the monitor of a process of QEMU. Threads may share it.

    Args:
        connection: A connected socket; it is closed with the client.
        timeout: Seconds to wait for an answer.
        event: Takes events, on the thread that happens to read them.

    Raises:
        HostError: The process does not answer, or does not speak the protocol.
    """

    def __init__(self, connection: socket.socket, *, timeout: float, event: OnEvent) -> None:
        self._socket = connection
        self._timeout = timeout
        self._event = event
        self._buffer = bytearray()
        self._lock = threading.Lock()
        connection.settimeout(timeout)
        if "QMP" not in self._line():
            raise HostError("the process does not speak QMP")
        self.call("qmp_capabilities")

    def fileno(self) -> int:
        """Return the descriptor; it is readable when there are events, or the process has ended."""
        return self._socket.fileno()

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result.

        Args:
            command: Its name.
            **arguments: Its arguments, with ``_`` for ``-`` in the names of the outermost ones.

        Raises:
            QmpError: It was refused.
            HostError: The process has ended, or does not answer.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self._lock:
            try:
                self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
            except OSError as error:
                raise HostError(f"{command}: {error.strerror or error}") from error
            while True:
                answer = self._line()
                if "return" in answer:
                    self._take_buffered()
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(" ".join(str(answer["error"].get("desc", "refused")).split()))
                self._take(answer)

    def tell(self, command: str) -> None:
        """Send a command without waiting for its answer; for a process that may hang.

        Raises:
            HostError: The process has ended, or does not answer another command.
        """
        if not self._lock.acquire(timeout=_TELLING):
            raise HostError(f"{command}: another command has no answer")
        try:
            self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError as error:
            raise HostError(f"{command}: {error.strerror or error}") from error
        finally:
            self._lock.release()

    def drain(self) -> bool:
        """Take the events that have arrived, without waiting; return False once the process has ended."""
        with self._lock:
            poll = select.poll()  # select(2) takes no descriptor above 1023
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(0):
                return True  # another thread has read the answer that made it readable
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return False
            self._buffer += data
            self._take_buffered()
            return bool(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _take_buffered(self) -> None:
        """Take the events that have been received as a whole."""
        while b"\n" in self._buffer:
            self._take(self._line())

    def _take(self, message: dict[str, Any]) -> None:
        if isinstance(name := message.get("event"), str):
            self._event(name, message.get("data", {}))

    def _line(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            HostError: There is none in time, or it is not one.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise HostError(f"no answer from QMP: {error.strerror or error}") from error
            if not data or len(self._buffer) > _MOST:
                raise HostError("the process has ended" if not data else "an answer is too long")
            self._buffer += data
        line = self._buffer[:end]
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise HostError("an answer is not JSON") from error
        if not isinstance(message, dict):
            raise HostError("an answer is not a JSON object")
        return message
