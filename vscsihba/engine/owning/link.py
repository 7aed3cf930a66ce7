"""A connection between two engines of an HBA: lines of JSON, each of which describes its sender.

The first line is a greeting, every further one reports a change of the sender's LUNs. Knows nothing of how
connections are made, nor what an engine does with the news.
"""

import json
import socket
from dataclasses import replace

from vscsihba.engine.owning.assignment import EngineInfo
from vscsihba.errors import HostError

_TIMEOUT = 30.0
"""Seconds for the peer to send or to receive a line."""

_LONGEST = 1 << 20


class Link:
    """One end of a connection.

    Args:
        connection: A connected socket, which this object closes.

    Attributes:
        peer: The engine at the other end, None until `greet`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.peer: EngineInfo | None = None
        self._connection = connection
        self._connection.settimeout(_TIMEOUT)
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor; readable means that `receive` has something to do."""
        return self._connection.fileno()

    def greet(self, me: EngineInfo) -> EngineInfo | None:
        """Exchange greetings, and return the peer; None if it hangs up, having only probed this engine.

        Raises:
            HostError: It does not answer, or its answer is not valid.
        """
        try:
            self.tell(me)
            while not (lines := self._lines()):
                if not self._read():
                    return None
            said = json.loads(lines[0])
            self.peer = EngineInfo(said["since"], said["pid"], frozenset(said["luns"]))
            self._note(lines[1:])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError("an engine of this HBA does not answer", cure="see whether it runs") from error
        return self.peer

    def tell(self, me: EngineInfo) -> None:
        """Send the description of this engine.

        Raises:
            OSError: The peer is gone, or does not read.
        """
        said = {"since": me.since, "pid": me.pid, "luns": sorted(me.luns)}
        self._connection.sendall(json.dumps(said).encode() + b"\n")

    def receive(self) -> bool:
        """Read the lines that have arrived; False if the peer is gone, or a line is not valid.

        `peer` keeps its last valid description.
        """
        try:
            alive = self._read()
            self._note(self._lines())
        except (OSError, ValueError, KeyError, TypeError):
            alive = False
        return alive

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self) -> bool:
        data = self._connection.recv(1 << 16)
        self._buffer += data
        if len(self._buffer) > _LONGEST:
            raise ValueError("a line is too long")
        return bool(data)

    def _lines(self) -> list[bytes]:
        """Return the complete lines received so far."""
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [bytes(line) for line in lines]

    def _note(self, lines: list[bytes]) -> None:
        if lines and self.peer is not None:
            self.peer = replace(self.peer, luns=frozenset(json.loads(lines[-1])["luns"]))
