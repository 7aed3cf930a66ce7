"""A connection between two engines of an HBA: lines of JSON, each a whole word about its sender.

The first line says who is there, every further one what has changed. Knows nothing of who
listens, nor what is done about it.
"""

import json
import socket
from dataclasses import replace

from vscsihba.engine.owning.assignment import EngineInfo
from vscsihba.errors import HostError

_TIMEOUT = 30.0
"""Seconds for the other side to say or to take a line."""

_LONGEST = 1 << 20


class Link:
    """One end of a connection.

    Args:
        connection: Made; it belongs to this object from now on.

    Attributes:
        peer: Who is at the other end, None until `greet`.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.peer: EngineInfo | None = None
        self._connection = connection
        self._connection.settimeout(_TIMEOUT)
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor; readable means that `hear` has something to do."""
        return self._connection.fileno()

    def greet(self, me: EngineInfo) -> EngineInfo | None:
        """Say who is here, and return who is there; None if that side hangs up, it only looked.

        Raises:
            HostError: It does not answer, or not in these words.
        """
        try:
            self.tell(me)
            while not (lines := self._lines()):
                if not self._receive():
                    return None
            said = json.loads(lines[0])
            self.peer = EngineInfo(said["since"], said["pid"], frozenset(said["luns"]))
            self._note(lines[1:])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError("an engine of this HBA does not answer", cure="is it stopped?") from error
        return self.peer

    def tell(self, me: EngineInfo) -> None:
        """Say who is here, as it is now.

        Raises:
            OSError: The other side is gone, or does not listen.
        """
        said = {"since": me.since, "pid": me.pid, "luns": sorted(me.luns)}
        self._connection.sendall(json.dumps(said).encode() + b"\n")

    def hear(self) -> bool:
        """Take in what has come; False if the other side is gone, or says what is no word about an engine.

        `peer` is then as it said last.
        """
        try:
            heard = self._receive()
            self._note(self._lines())
        except (OSError, ValueError, KeyError, TypeError):
            heard = False
        return heard

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _receive(self) -> bool:
        data = self._connection.recv(1 << 16)
        self._buffer += data
        if len(self._buffer) > _LONGEST:
            raise ValueError("a line without an end")
        return bool(data)

    def _lines(self) -> list[bytes]:
        """Return the whole lines that have come."""
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [bytes(line) for line in lines]

    def _note(self, lines: list[bytes]) -> None:
        if lines and self.peer is not None:
            self.peer = replace(self.peer, luns=frozenset(json.loads(lines[-1])["luns"]))
