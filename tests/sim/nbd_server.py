"""An NBD server on another machine, with a volatile cache: it hangs up, errs, is slow, and dies.

It speaks the transmission phase on real sockets, one thread for each connection, and answers requests that
wait in any order. When it dies, it loses any part of the writes that no flush has covered, and is back
after a while. The rules of the protocol that a client may rely on hold: a flush covers every write that was
answered before, and a request of a closed connection is not executed after the client is back.
"""

import errno
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.sim.faults import DEATHS, DIES, LOST, REFUSED, SHORT, SLOW
from tests.sim.history import SECTOR
from tests.sim.scheduler import Process
from tests.sim.storage import Inode
from tests.sim.world import World

_REQUEST: Final = struct.Struct(">IHHQQI")
_READ, _WRITE, _DISCONNECT, _FLUSH, _TRIM, _ZERO = 0, 1, 2, 3, 4, 6
_FUA: Final = 1
_SIMPLE_MAGIC, _CHUNK_MAGIC, _DONE = 0x67446698, 0x668E33EF, 1
_NONE_CHUNK, _DATA_CHUNK, _HOLE_CHUNK, _ERROR_CHUNK = 0, 1, 2, 0x8001
_AWAY: Final = (0.0, 0.02, 0.7, 3.0)
"""Seconds until a server that has died is back."""
_LATE: Final = (0.3, 2.0, 6.0, 20.0)
"""Seconds that a slow answer takes: within and beyond the time limit of the client."""


@dataclass(frozen=True)
class _Request:
    kind: int
    flags: int
    cookie: int
    offset: int
    length: int
    data: bytes


class _HungUpError(Exception):
    """The connection has ended."""


class NbdServer:
    """The server and its storage.

    Args:
        world: The machine of the client, whose plan and clock the server shares.
        content: Of the disk at first.
        died: Called when it has died and lost its cache.

    Attributes:
        content: Of the disk now, with the cache.
    """

    def __init__(self, world: World, content: bytes, died: Callable[[], object]) -> None:
        self.content = bytearray(content)
        self._world = world
        self._scheduler = world.scheduler
        self._died = died
        self._disk = Inode(bytearray(content))
        self._process = Process("server")
        self._connections: list[_Connection] = []
        self._back_at = 0.0

    def accept(self, until: float, wanted: Callable[[], bool]) -> tuple[socket.socket, bool]:
        """Connect to the server; return the client's socket, and whether answers come in chunks.

        Waits until the server is there, and done with connections that were closed.

        Args:
            until: The time at which the client gives up.
            wanted: Whether it still wants to connect.

        Raises:
            OSError: There is no connection before that.
        """
        self._scheduler.pause()
        how = self._world.calls.ask("connect", "")
        if how in DEATHS:
            self.die()
        if how == SLOW:
            late = min(self._world.luck.choice(_LATE), until - self._scheduler.now)
            self._scheduler.wait(lambda: not wanted(), late)
        left = until - self._scheduler.now
        is_there = self._scheduler.wait(lambda: self._is_ready() or not wanted(), left)
        if how == REFUSED or not (is_there and wanted()):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "simulated")
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        structured = self._world.luck.random() < 0.5
        connection = _Connection(self, theirs, structured=structured)
        self._connections.append(connection)
        self._scheduler.start("server", self._process, partial(self._serve, connection))
        return ours, structured

    def _is_ready(self) -> bool:
        if self._scheduler.now < self._back_at:
            return False
        return not any(each.is_closed_by_client for each in self._connections)

    def _serve(self, connection: "_Connection") -> None:
        try:
            while True:
                self._scheduler.wait(connection.has_work)
                connection.receive()
                if request := connection.choose():
                    self._execute(connection, request)
                elif connection.is_over:
                    return
        except _HungUpError:
            pass
        finally:
            connection.socket.close()
            if connection in self._connections:
                self._connections.remove(connection)

    def _execute(self, connection: "_Connection", request: _Request) -> None:
        """Execute and answer a request, or fail as the plan says."""
        luck, how = self._world.luck, self._world.calls.ask("serve", "")
        if how in (DIES, *DEATHS):
            self.die()
        if how == REFUSED or not connection.socket_is_open:
            raise _HungUpError
        before = luck.random() < 0.5
        if how == SLOW and before:
            self._be_late(connection)
        number = getattr(errno, how) if how.startswith("E") else 0
        if number:
            self._fail(request)
            connection.answer(request, number, b"")
        else:
            data = self._carry_out(request)
            if how == SLOW and not before:
                self._be_late(connection)
            if how == LOST:
                raise _HungUpError
            connection.answer(request, 0, data, cut=how == SHORT)

    def _be_late(self, connection: "_Connection") -> None:
        """Wait for some time; a request whose connection is closed meanwhile is forgotten."""
        luck = self._world.luck
        self._scheduler.wait(lambda: connection.is_closed_by_client, luck.choice(_LATE))
        if connection.is_closed_by_client or not connection.socket_is_open:
            raise _HungUpError

    def _carry_out(self, request: _Request) -> bytes:
        start, end = request.offset, request.offset + request.length
        match request.kind:
            case _ if request.kind == _READ:
                return bytes(self.content[start:end])
            case _ if request.kind == _FLUSH:
                self._disk.sync()
            case _ if request.kind == _WRITE:
                self._store(start, request.data, sure=bool(request.flags & _FUA))
            case _ if request.kind in (_TRIM, _ZERO):
                self._store(start, bytes(request.length), sure=bool(request.flags & _FUA))
            case _:
                raise AssertionError(f"request {request.kind}")
        return b""

    def _store(self, offset: int, data: bytes, *, sure: bool = False) -> None:
        self.content[offset : offset + len(data)] = data
        self._disk.write(offset, data, before=len(self.content), sure=sure)

    def _fail(self, request: _Request) -> None:
        """Let a request fail: a write is done in part, and a flush loses what it was to store."""
        if request.kind == _FLUSH:
            self._world.storage.failed_syncs += 1
            if self._disk.pending:
                self.content[:] = self._disk.lose()
                self._disk.lost = False
                self._world.storage.losses += 1
        elif request.kind == _WRITE:
            count = self._world.luck.randrange(request.length // SECTOR + 1) * SECTOR
            self._store(request.offset, request.data[:count])

    def die(self) -> None:
        """Die, lose any part of the cache, and be back after a while."""
        luck = self._world.luck
        self.content[:] = self._disk.after_power_cut(luck)
        self._disk = Inode(bytearray(self.content))
        for connection in self._connections:
            connection.hang_up()
        self._back_at = self._scheduler.now + luck.choice(_AWAY)
        self._died()


class _Connection:
    """The server's side of a connection."""

    def __init__(self, server: NbdServer, sock: socket.socket, *, structured: bool) -> None:
        self.socket = sock
        self._world = server._world
        self._structured = structured
        self._bytes = bytearray()
        self._requests: list[_Request] = []
        self._last = False
        self.socket_is_open = True

    def _events(self, wanted: int) -> int:
        poll = _real_poll()
        poll.register(self.socket.fileno(), wanted)
        return next((events for _, events in poll.poll(0)), 0)

    @property
    def is_closed_by_client(self) -> bool:
        """Tell whether the client's socket is closed, so that no answer arrives."""
        return not self.socket_is_open or bool(self._events(select.POLLIN) & select.POLLHUP)

    @property
    def is_over(self) -> bool:
        """Tell whether no request can come any more."""
        return self._last

    def has_work(self) -> bool:
        """Tell whether a request waits, or the end of the connection."""
        return (
            not self.socket_is_open or bool(self._requests) or self._last or bool(self._events(select.POLLIN))
        )

    def receive(self) -> None:
        """Receive requests, as far as they are here."""
        if not self.socket_is_open:
            raise _HungUpError
        while not self._last:
            try:
                received = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                received = b""
            self._bytes += received
            self._last = not received
        self._parse()

    def _parse(self) -> None:
        while len(self._bytes) >= _REQUEST.size:
            _, flags, kind, cookie, offset, length = _REQUEST.unpack_from(self._bytes)
            end = _REQUEST.size + (length if kind == _WRITE else 0)
            if len(self._bytes) < end:
                return
            data = bytes(self._bytes[_REQUEST.size : end])
            del self._bytes[:end]
            if kind == _DISCONNECT:
                self._last = True
                return
            self._requests.append(_Request(kind, flags, cookie, offset, length, data))

    def choose(self) -> _Request | None:
        """Return a request that waits, None if there is none."""
        if not self._requests:
            return None
        return self._requests.pop(self._world.luck.randrange(len(self._requests)))

    def answer(self, request: _Request, number: int, data: bytes, *, cut: bool = False) -> None:
        """Answer a request, or send a part of the answer and hang up."""
        text = (
            self._chunks(request, number, data) if self._structured else self._simple(request, number, data)
        )
        view = memoryview(text)[: len(text) // 2 if cut else len(text)]
        while view:
            if not self.socket_is_open:
                raise _HungUpError
            try:
                view = view[self.socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._world.scheduler.wait(
                    lambda: not self.socket_is_open or bool(self._events(select.POLLOUT | select.POLLIN) & ~1)
                )
            except OSError as error:
                raise _HungUpError from error
        if cut:
            raise _HungUpError

    @staticmethod
    def _simple(request: _Request, number: int, data: bytes) -> bytes:
        return struct.pack(">IIQ", _SIMPLE_MAGIC, number, request.cookie) + data

    def _chunks(self, request: _Request, number: int, data: bytes) -> bytes:
        if number:
            return self._chunk(request, _ERROR_CHUNK, struct.pack(">IH", number, 0))
        if request.kind != _READ:
            return self._chunk(request, _NONE_CHUNK, b"")
        middle = self._world.luck.randrange(len(data))
        parts = [(0, data[:middle]), (middle, data[middle:])] if middle else [(0, data)]
        chunks = []
        for at, part in parts:
            place = struct.pack(">Q", request.offset + at)
            if any(part):
                chunks.append((_DATA_CHUNK, place + part))
            else:
                chunks.append((_HOLE_CHUNK, place + struct.pack(">I", len(part))))
        self._world.luck.shuffle(chunks)
        *first, last = chunks
        return b"".join(self._chunk(request, *each, flags=0) for each in first) + self._chunk(request, *last)

    @staticmethod
    def _chunk(request: _Request, kind: int, payload: bytes, flags: int = _DONE) -> bytes:
        return struct.pack(">IHHQI", _CHUNK_MAGIC, flags, kind, request.cookie, len(payload)) + payload

    def hang_up(self) -> None:
        """End the connection now."""
        self.socket_is_open = False
        self.socket.close()


_real_poll: Final = select.poll
