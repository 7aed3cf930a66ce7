"""Requests on a connection that is not encrypted: the transmission phase of the NBD protocol on its socket.

libnbd negotiates; from then on the socket is ours. Requests are sent together, and one call receives many
answers: libnbd makes three system calls for each. The payload of an answer is copied once from the receive
buffer, or goes directly to its place if it is longer than what has arrived.

Source: the NBD protocol (doc/proto.md of https://github.com/NetworkBlockDevice/nbd), "Transmission".
"""

import contextlib
import errno
import select
import socket
import struct
import threading
from collections import deque
from typing import Final, NamedTuple, Protocol

from vscsihba.handlers.nbd.ranges import Ranges
from vscsihba.handlers.nbd.requests import Completed, Kind, Request

_REQUEST: Final = struct.Struct(">IHHQQI")
"""magic, flags, type, cookie, offset, length"""
_pack, _REQUEST_SIZE = _REQUEST.pack, _REQUEST.size
_NO_SIGNAL: Final = int(socket.MSG_NOSIGNAL)
"""As a plain number, for the flags of each call."""
_SIMPLE: Final = struct.Struct(">IIQ")
"""magic, error, cookie"""
_CHUNK: Final = struct.Struct(">IHHQ")
"""magic, flags, type, cookie; the length of the payload follows"""
_LENGTH: Final = struct.Struct(">I")
_LENGTH_OFFSET: Final = struct.Struct(">IQ")
"""length of the payload of a chunk of data, and its offset, with which the payload begins"""
_OFFSET: Final = struct.Struct(">Q")
_HOLE: Final = struct.Struct(">QI")
_ERROR: Final = struct.Struct(">IH")
"""error, length of its text"""
_CONTEXT: Final = 4
"""Bytes of the number of a metadata context; there is one context."""

_REQUEST_MAGIC: Final = 0x25609513
_SIMPLE_MAGIC: Final = 0x67446698
_CHUNK_MAGIC: Final = 0x668E33EF

_FUA, _NO_HOLE = 1, 2
"""Flags of a request."""
_DISCONNECT: Final = 2
"""The request that ends a connection."""
_DONE: Final = 1
"""Flag of the last chunk of an answer."""
_NONE, _DATA, _ZEROES, _STATUS, _FAILURE = 0, 1, 2, 5, 1 << 15
"""Types of chunks; those of failures have this bit set."""
_LONGEST_FAILURE: Final = _ERROR.size + (1 << 16) + _OFFSET.size
_LONGEST_STATUS: Final = _CONTEXT + (8 << 20)
"""Bytes of the allocation of a range, at most: nbdkit tells of 1 Mi extents at most."""
_MOST_PIECES: Final = 4096
"""Ranges that have arrived of one READ, at most; each range is asked for once."""
_KNOWN: Final = frozenset(
    (
        *(errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC),
        *(errno.EOVERFLOW, errno.EOPNOTSUPP, errno.ESHUTDOWN),
    )
)
"""Errors of the protocol, whose numbers are those of Linux; any other means EINVAL."""

_ROOM: Final = 64 << 10
"""Bytes of the receive buffer: some 15 answers of 4 KiB; each connection has one."""
_ROUNDS: Final = 8
"""Calls of recv(2) in a row, at most: others have their turn."""
_NEARLY: Final = 16 << 10
"""Bytes without which an answer counts as nearly complete."""
_PIECES: Final = 256
"""Pieces of one sendmsg(2), at most; Linux takes 1024."""
_READ, _WRITE, _STATUS_REQUEST = Kind.READ, Kind.WRITE, Kind.STATUS
_NOTHING: Final = bytearray()


class Transmission(Protocol):
    """Requests on one connection.

    Attributes:
        completed: Takes the requests that have ended; it may be replaced while none is under way.
    """

    completed: Completed

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""

    @property
    def wants_output(self) -> bool:
        """Whether it waits until the socket takes more bytes."""

    def queue(self, request: Request) -> None:
        """Begin a request, to be sent by `send`; one thread at a time."""

    def send(self) -> bool:
        """Send the requests that were queued, on any thread; False if the socket takes no more for now.

        Raises:
            OSError: The connection has ended.
        """

    def notify(self, events: int) -> None:
        """Serve the connection after these events (poll(2)); requests that end go to `completed`.

        Raises:
            OSError: The connection has ended, or the server breaks the protocol.
        """

    def part(self) -> bool:
        """Tell the server that no more requests come; False if that cannot be sent now."""

    def kill(self) -> None:
        """End the connection now: requests under way end with ENOTCONN, and no view is used after that."""


class _Chunk(NamedTuple):
    """A part of an answer whose payload is being received.

    Attributes:
        cookie: Names the request.
        request: The request.
        type: Its type; `_NONE` if nothing is to be done with the payload.
        last: Not 0: the answer ends with it.
        payload: Its payload; empty if that goes to the view of the request.
    """

    cookie: int
    request: Request
    type: int
    last: int
    payload: bytearray


class SocketTransmission:
    """The transmission on a socket of our own; see `Transmission`.

    Two locks keep sending and receiving apart. Who needs both takes `_receiving` first.

    Args:
        sock: The socket; nobody else uses it.
        completed: Takes the requests that have ended.
        structured: The server answers in chunks (structured replies).
    """

    def __init__(self, sock: socket.socket, completed: Completed, *, structured: bool) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._structured = structured
        self.completed = completed
        self.over = False
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._open: dict[int, Request] = {}
        self._cookie = 0
        self._out: deque[memoryview | bytes | bytearray] = deque()
        self._queued = self._sent = 0
        self._room = memoryview(bytearray(_ROOM))
        self._end = 0
        self._target: memoryview | None = None
        self._chunk: _Chunk | None = None

    @property
    def wants_output(self) -> bool:
        """Whether it waits until the socket takes more bytes."""
        return bool(self._out)

    # Sending.

    def queue(self, request: Request) -> None:
        """Begin a request; see `Transmission.queue`."""
        kind, length, cookie = request.kind, request.length, self._cookie
        flags = (_FUA if request.fua else 0) | (_NO_HOLE if request.keep_storage else 0)
        self._cookie = cookie + 1
        header = _pack(_REQUEST_MAGIC, flags, kind, cookie, request.offset, length)
        self._open[cookie] = request
        if kind == _WRITE:
            self._queued = request.sent = self._queued + _REQUEST_SIZE + length
            self._out.extend((header, request.view))
        else:
            self._queued = request.sent = self._queued + _REQUEST_SIZE
            self._out.append(header)

    def send(self) -> bool:
        """Send the requests that were queued; see `Transmission.send`."""
        out = self._out
        with self._sending:
            while out and not self.over:
                # By their places, since `queue` may add some meanwhile.
                pieces = [out[place] for place in range(min(len(out), _PIECES))]
                try:
                    if len(pieces) == 1:
                        sent = self._socket.send(pieces[0], _NO_SIGNAL)
                    else:
                        sent = self._socket.sendmsg(pieces, (), _NO_SIGNAL)
                except BlockingIOError:
                    return False
                self._sent += sent
                if sent == sum(map(len, pieces)):
                    for _ in pieces:
                        out.popleft()
                    continue
                for piece in pieces:
                    if sent < len(piece):
                        out[0] = memoryview(piece)[sent:]
                        return False
                    sent -= len(piece)
                    out.popleft()
        return True

    def part(self) -> bool:
        """Send NBD_CMD_DISC, which the server obeys once it has answered everything before it."""
        with self._sending:
            if self._out or self.over:
                return False
            try:
                packed = _REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, self._cookie, 0, 0)
                if self._socket.send(packed, _NO_SIGNAL) < len(packed):
                    return False
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return False
        return True

    # Receiving.

    def notify(self, events: int) -> None:
        """Serve the connection after these events; see `Transmission.notify`."""
        if events & select.POLLOUT:
            self.send()
        if events & ~select.POLLOUT:
            with self._receiving:
                for _ in range(_ROUNDS):
                    if self.over or not self._receive():
                        break

    def _receive(self) -> bool:
        """Receive once; return whether to try again: there may be more, or an answer is nearly complete.

        Many servers send an answer in pieces, one right after the other.

        Raises:
            OSError: EPROTO: the server breaks the protocol; else the connection has ended.
        """
        room, target, end = self._room, self._target, self._end
        try:
            if target is None:
                wanted = _ROOM - end
                count = self._socket.recv_into(room[end:] if end else room)
            else:
                wanted = len(target) + _ROOM
                count = self._socket.recvmsg_into([target, room])[0]
        except BlockingIOError:
            return end > 0 or (target is not None and len(target) <= _NEARLY)
        if not count:
            raise ConnectionResetError(errno.ENOTCONN, "the server has closed the connection")
        if target is None:
            end += count
        elif count < len(target):
            self._target = target[count:]
            return len(target) - count <= _NEARLY
        else:
            chunk, self._target, self._chunk = self._chunk, None, None
            assert chunk is not None  # noqa: S101 - it belongs to the target
            self._end_chunk(*chunk)
            end = count - len(target)
        at = self._parse_chunks(end) if self._structured else self._parse_simple(end)
        self._end = end - at
        if at and self._end:
            room[: self._end] = bytes(room[at:end])
        target = self._target
        return count == wanted or self._end > 0 or (target is not None and len(target) <= _NEARLY)

    def _parse_simple(self, end: int) -> int:
        """Take simple replies; return the first byte that belongs to none."""
        room, at = self._room, 0
        while end - at >= _SIMPLE.size:
            magic, number, cookie = _SIMPLE.unpack_from(room, at)
            if magic != _SIMPLE_MAGIC:
                raise _violation(f"{magic:#x} is not the beginning of an answer")
            request = self._answered(cookie)
            at += _SIMPLE.size
            if number or request.kind != _READ:
                self._complete(cookie, request, _known(number))
                continue
            request.received = request.length
            view = request.view
            stop = at + request.length
            if stop > end:
                return self._await(_Chunk(cookie, request, _NONE, _DONE, _NOTHING), view, at, end)
            view[:] = room[at:stop]
            at = stop
            self._complete(cookie, request, 0)
        return at

    def _parse_chunks(self, end: int) -> int:
        """Take structured replies; return the first byte that belongs to none."""
        room, at, opened, most = self._room, 0, self._open, end - _CHUNK.size
        while at <= most:
            magic, flags, kind, cookie = _CHUNK.unpack_from(room, at)
            if magic != _CHUNK_MAGIC:
                self._take_simple(magic, flags << 16 | kind, cookie)
                at += _CHUNK.size
                continue
            start = at + _CHUNK.size + _LENGTH.size
            after = start if kind != _DATA else start + _OFFSET.size
            if after > end:
                break
            request = opened.get(cookie)
            if request is None or request.sent > self._sent:
                request = self._answered(cookie)
            if kind == _DATA:
                length, offset = _LENGTH_OFFSET.unpack_from(room, start - _LENGTH.size)
                view = self._place(request, offset, length - _OFFSET.size)
                at = after + len(view)
                if at > end:
                    chunk = _Chunk(cookie, request, _NONE, flags & _DONE, _NOTHING)
                    return self._await(chunk, view, after, end)
                view[:] = room[after:at]
                if flags & _DONE:
                    self._end_answer(cookie, request)
                continue
            (length,) = _LENGTH.unpack_from(room, start - _LENGTH.size)
            at = start + length
            if kind == _NONE and flags & _DONE and not length:
                self._end_answer(cookie, request)
                continue
            _check_length(request, kind, length)
            payload = bytearray(length)
            view = memoryview(payload)
            if at > end:
                return self._await(_Chunk(cookie, request, kind, flags & _DONE, payload), view, start, end)
            view[:] = room[start:at]
            self._end_chunk(cookie, request, kind, flags & _DONE, payload)
        return at

    def _take_simple(self, magic: int, number: int, cookie: int) -> None:
        """Take a simple reply of a server that answers in chunks."""
        if magic != _SIMPLE_MAGIC:
            raise _violation(f"{magic:#x} is not the beginning of an answer")
        request = self._answered(cookie)
        if not number and request.kind in (_READ, _STATUS_REQUEST):
            raise _violation("a read is answered without its data")
        self._complete(cookie, request, _known(number))

    def _await(self, chunk: _Chunk, view: memoryview, at: int, end: int) -> int:
        """Receive the rest of a payload to its place, after the bytes from `at` to `end`; return `end`."""
        have = end - at
        view[:have] = self._room[at:end]
        self._target, self._chunk = view[have:], chunk
        return end

    def _answered(self, cookie: int) -> Request:
        """Return the request that an answer belongs to.

        Raises:
            OSError: EPROTO: there is none, or it was not sent yet, so that its view is still being sent.
        """
        request = self._open.get(cookie)
        if request is None:
            raise _violation("an answer to a request that was not made")
        if request.sent > self._sent:
            with self._sending:  # the thread that has sent it may not have counted it yet
                if request.sent > self._sent:
                    raise _violation("an answer to a request that was not sent")
        return request

    @staticmethod
    def _place(request: Request, offset: int, length: int) -> memoryview:
        """Return the part of the view of a READ for `length` bytes of the export from `offset` on.

        Raises:
            OSError: EPROTO: it was not asked for, or has arrived before.
        """
        view: memoryview = request.view
        if request.kind != _READ or length <= 0:
            raise _violation("data that was not asked for")
        if length == request.length and offset == request.offset and not request.received:
            request.received = length
            return view
        first = offset - request.offset
        if not 0 <= first <= request.length - length:
            raise _violation("data that was not asked for")
        # Bytes that came twice would stand in for others that never came, and the view has old data there.
        pieces = request.pieces
        if pieces is None:
            pieces = request.pieces = Ranges()
            if request.received:  # as a whole
                pieces.add(0, request.length)
        if pieces.add(first, first + length) != [(first, first + length)]:
            raise _violation("data that came before")
        if len(pieces) > _MOST_PIECES:
            raise _violation(f"a read is answered in more than {_MOST_PIECES} pieces")
        request.received += length
        return view[first : first + length]

    def _end_chunk(self, cookie: int, request: Request, kind: int, last: int, payload: bytearray) -> None:
        """Take a chunk that is complete; the arguments are those of `_Chunk`."""
        if kind == _ZEROES:
            offset, length = _HOLE.unpack(payload)
            self._place(request, offset, length)[:] = bytes(length)
        elif kind == _STATUS:
            request.extents = struct.unpack(f">{(len(payload) - _CONTEXT) // 4}I", payload[_CONTEXT:])
        elif kind != _NONE:
            request.error = request.error or _known(_ERROR.unpack_from(payload)[0]) or errno.EIO
        if last:
            self._end_answer(cookie, request)

    def _end_answer(self, cookie: int, request: Request) -> None:
        """End a request whose answer has arrived as a whole; a READ that lacks bytes fails."""
        number = request.error
        if request.kind == _READ and request.received != request.length:
            number = number or errno.EIO
        del self._open[cookie]
        self.completed.append((request, number))

    def _complete(self, cookie: int, request: Request, number: int) -> None:
        del self._open[cookie]
        self.completed.append((request, number))

    def kill(self) -> None:
        """End the connection; see `Transmission.kill`."""
        with self._receiving, self._sending:
            if self.over:
                return
            self.over = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._out.clear()
            self._target = self._chunk = None
            ended = list(self._open.values())
            self._open.clear()
        self.completed.extend((request, errno.ENOTCONN) for request in ended)


def _check_length(request: Request, kind: int, length: int) -> None:
    """Check the length of the payload of a chunk that has one, and no data.

    Raises:
        OSError: EPROTO: such a chunk cannot have it, or cannot answer the request.
    """
    if kind == _ZEROES:
        right = length == _HOLE.size
    elif kind == _STATUS:
        right = (
            request.kind == _STATUS_REQUEST
            and not request.extents
            and _CONTEXT < length <= _LONGEST_STATUS
            and length % 8 == _CONTEXT
        )
    else:
        right = bool(kind & _FAILURE) and _ERROR.size <= length <= _LONGEST_FAILURE
    if not right:
        raise _violation(f"a chunk of type {kind} and {length} bytes")


def _known(number: int) -> int:
    """Return the errno of an error of the protocol, 0 if there is none."""
    return number if not number or number in _KNOWN else errno.EINVAL


def _violation(text: str) -> OSError:
    return OSError(errno.EPROTO, f"the server breaks the protocol: {text}")
