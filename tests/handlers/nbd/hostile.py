"""An NBD server that negotiates as it should and then answers as a test tells it to."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_OPTION_MAGIC = 0x3E889045565A9
_ACK, _INFO, _META = 1, 3, 4
_UNSUPPORTED = (1 << 31) + 1
_GO, _STRUCTURED, _META_CONTEXT = 7, 8, 10
_HAS_FLAGS, _HAS_FLUSH, _HAS_TRIM = 1, 4, 32
_WRITE = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived, with the data of a write."""

    kind: int
    cookie: int
    offset: int
    length: int
    data: bytes


class Conversation:
    """One connection, from the end of its negotiation on; an ``OSError`` of its methods ends it.

    Attributes:
        number: Counts the connections of the server.
        socket: Its socket.
        server: Its server.
    """

    def __init__(self, server: "Hostile", number: int, sock: socket.socket) -> None:
        self.server, self.number, self.socket = server, number, sock

    def ask(self) -> Asked:
        """Wait for the next request."""
        _, _, kind, cookie, offset, length = struct.unpack(">IHHQQI", self.receive(28))
        return Asked(kind, cookie, offset, length, self.receive(length) if kind == _WRITE else b"")

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def receive(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            if not (more := self.socket.recv(count - len(got))):
                raise ConnectionResetError
            got += more
        return got

    def answer(self, asked: Asked) -> None:
        """Answer as a server of the bytes of `Hostile.content` does."""
        self.send(honest(asked))


Behave = Callable[[Conversation], None]


def honest(asked: Asked) -> bytes:
    """Return the right answer: byte N of the export is that of `content`."""
    if asked.kind == 0:
        return chunk(asked.cookie, 1, struct.pack(">Q", asked.offset) + content(asked.offset, asked.length))
    return chunk(asked.cookie, 0)


def content(offset: int, length: int) -> bytes:
    """Return bytes of the export: the number of each block of 512 bytes, from 1 to 251."""
    blocks = range(offset // 512, -(-(offset + length) // 512))
    data = b"".join(bytes([1 + block % 251]) * 512 for block in blocks)
    return data[offset % 512 :][:length]


def chunk(cookie: int, kind: int, payload: bytes = b"", flags: int = 1) -> bytes:
    """Return a chunk of a structured reply; by default the last one."""
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(payload)) + payload


class Hostile:
    """The server, on a Unix socket, while the context is entered.

    Args:
        folder: Its socket is there.
        behave: Serves one connection; it may read requests, answer, send anything, and raise ``OSError``.
        negotiate: Does so before the negotiation; by default nothing.

    Attributes:
        size: Bytes of the export.
        connections: Connections so far.
    """

    def __init__(
        self,
        folder: Path,
        behave: Behave,
        negotiate: Behave = lambda _conversation: None,
        size: int = 1 << 20,
    ) -> None:
        self.socket = folder / "h"
        self.size = size
        self.connections = 0
        self._behave, self._negotiate = behave, negotiate
        self._listener = socket.socket(socket.AF_UNIX)
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.ended = threading.Event()

    def document(self, **options: object) -> dict[str, object]:
        """Return the document of a disk on it."""
        return {"handler": "nbd", "uri": f"nbd+unix:///?socket={self.socket}", "connections": 1, **options}

    def __enter__(self) -> Self:
        try:
            self._listener.bind(str(self.socket))
            self._listener.listen()
        except BaseException:
            self._listener.close()
            raise
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in (self._listener, *self._clients):
            sock.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._clients.append(client)
            self._start(self._serve, Conversation(self, self.connections, client))

    def _serve(self, conversation: Conversation) -> None:
        with contextlib.suppress(OSError):
            self._negotiate(conversation)
            self._handshake(conversation)
            self._behave(conversation)
        with contextlib.suppress(OSError):
            conversation.socket.shutdown(socket.SHUT_RDWR)

    def _handshake(self, conversation: Conversation) -> None:
        conversation.send(b"NBDMAGIC", b"IHAVEOPT", struct.pack(">H", 3))
        conversation.receive(4)
        while True:
            _, option, length = struct.unpack(">QII", conversation.receive(16))
            conversation.receive(length)
            if option == _STRUCTURED:
                conversation.send(_reply(option, _ACK))
            elif option == _META_CONTEXT:
                conversation.send(
                    _reply(option, _META, struct.pack(">I", 1) + b"base:allocation"), _reply(option, _ACK)
                )
            elif option == _GO:
                flags = _HAS_FLAGS | _HAS_FLUSH | _HAS_TRIM
                conversation.send(_reply(option, _INFO, struct.pack(">HQH", 0, self.size, flags)))
                conversation.send(_reply(option, _ACK))
                return
            else:
                conversation.send(_reply(option, _UNSUPPORTED))


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", _OPTION_MAGIC, option, kind, len(data)) + data
