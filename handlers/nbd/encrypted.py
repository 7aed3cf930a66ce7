"""Requests on an encrypted connection, by libnbd, which has the keys.

Like `transmission`, which serves connections that are not encrypted, and takes less time.
"""

import contextlib
import errno
import select
import socket
from typing import Any, Final

from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.nbd.negotiation import ALLOCATION, WRITE, serve, text_of
from vscsihba.handlers.nbd.requests import Completed, Kind, Request

_NO_HOLE: Final = 2
_FUA: Final = 1
"""Flags of libnbd(3)."""
_ANSWERS: Final = 64
"""Answers that are taken in a row, at most: others have their turn. Each needs a call of libnbd."""
_ROUNDS: Final = 1 << 16
"""Steps of libnbd until it notices that its socket is shut down, at most; before, each reads one answer."""


class EncryptedTransmission:
    """Requests on a handle of libnbd; see `transmission.Transmission`.

    Args:
        handle: A handle that is ready for requests.
        copy: A copy of its socket: libnbd closes its own at a time of its choosing.
        completed: Takes the requests that have ended.
    """

    def __init__(self, handle: Any, copy: socket.socket, completed: Completed) -> None:
        self._error = libnbd().Error
        self._handle = handle
        self._socket = copy
        self._readable = select.poll()
        self._readable.register(copy, select.POLLIN)
        self._killed = False
        self.completed = completed

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return bool(self._killed or self._handle.aio_is_dead() or self._handle.aio_is_closed())

    @property
    def wants_output(self) -> bool:
        """Whether libnbd has more to send than the socket takes."""
        return bool(self._handle.aio_get_direction() & WRITE)

    def queue(self, request: Request) -> None:
        """Begin a request; it may end before this returns."""
        try:
            self._begin(request)
        except self._error:
            self.completed.append((request, errno.ENOTCONN if self.over else errno.EIO))

    def _begin(self, request: Request) -> None:
        handle, offset, length = self._handle, request.offset, request.length
        completed, fua = self.completed, _FUA if request.fua else 0

        def end(number: Any) -> int:
            completed.append((request, number.value))
            return 1

        match request.kind:
            case Kind.READ:
                handle.aio_pread(request.view, offset, end)
            case Kind.WRITE:
                handle.aio_pwrite(request.view, offset, end, fua)
            case Kind.FLUSH:
                handle.aio_flush(end)
            case Kind.TRIM:
                handle.aio_trim(length, offset, end, fua)
            case Kind.ZERO:
                handle.aio_zero(length, offset, end, fua | (_NO_HOLE if request.keep_storage else 0))
            case Kind.STATUS:
                request.extents = ()

                def note(context: str, _offset: int, entries: list[int], _error: Any) -> int:
                    if context == ALLOCATION:
                        request.extents += tuple(entries)
                    return 0

                handle.aio_block_status(length, offset, note, end)

    def send(self) -> bool:
        """Return whether libnbd, which sends the requests by itself, has nothing to send any more."""
        return not self.wants_output

    def notify(self, events: int) -> None:
        """Serve the connection after these events.

        Raises:
            OSError: The connection has ended.
        """
        try:
            serve(self._handle, events)
            for _ in range(_ANSWERS):
                if self.over or not self._readable.poll(0):
                    break
                serve(self._handle, select.POLLIN)
        except self._error as error:
            raise OSError(errno.ENOTCONN, text_of(error)) from error
        if self.over:
            raise OSError(errno.ENOTCONN, "the server has closed the connection")

    def part(self) -> bool:
        """Tell the server that no more requests come; False if that cannot be sent now."""
        try:
            self._handle.aio_disconnect()
        except self._error:
            return False
        return True

    def kill(self) -> None:
        """End the connection now: requests under way end with ENOTCONN, and no view is used after that."""
        if self._killed:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for _ in range(_ROUNDS):
            if self.over:
                break
            with contextlib.suppress(self._error):
                serve(self._handle, select.POLLIN | select.POLLHUP)
                if self.wants_output:
                    self._handle.aio_notify_write()
        self._killed = True
        self._socket.close()
