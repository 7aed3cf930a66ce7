"""One connection to a server: a handle of libnbd, which is driven without blocking.

Knows one connection. A handle that has lost its server is dead for ever; `link` replaces it.
"""

import contextlib
import errno
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any, Final

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Done
from vscsihba.handlers.nbd.address import Address, libnbd

_READ: Final = 1
_WRITE: Final = 2
_NO_HOLE: Final = 2
_FUA: Final = 1
"""Directions and flags of libnbd(3)."""
_ALLOCATION: Final = "base:allocation"
_AGREED: Final = 3
"""Kinds of block sizes that a server tells: minimum, preferred, maximum."""
_ROUNDS: Final = 1 << 16
"""Steps of libnbd until it notices that its socket is shut down, at most; before, each reads one answer."""
_FUNCTION: Final = re.compile(r"^nbd_\w+: ")
_STEP: Final = 0.25
"""Seconds between two looks at whether connecting is still wanted."""


class Kind(Enum):
    """Commands of the protocol."""

    READ = auto()
    WRITE = auto()
    FLUSH = auto()
    TRIM = auto()
    ZERO = auto()
    STATUS = auto()


@dataclass(slots=True, eq=False)
class Request:
    """One command of the protocol on its way.

    Attributes:
        kind: The command.
        done: Takes its result, once, on any thread.
        offset: First byte.
        length: Bytes.
        view: Bytes to fill or to store; in use until `done` is called.
        fua: It ends on stable storage.
        keep_storage: Zeroes must not become a hole.
        extents: Result of STATUS: length and flags, in turns.
        expires: Time (CLOCK_MONOTONIC) at which it fails.
        position: For FLUSH, the writes that it covers (`unflushed.UnflushedWrites.position`).
        reports: A FLUSH that tells its sender of writes that were lost before.
    """

    kind: Kind
    done: Done
    offset: int = 0
    length: int = 0
    view: memoryview | bytes | bytearray = b""
    fua: bool = False
    keep_storage: bool = False
    extents: list[int] = field(default_factory=list)
    expires: float = 0.0
    position: int = 0
    reports: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """Properties of an export, as the server tells them.

    Attributes:
        size: Bytes.
        read_only: Writes are refused.
        flush: There is a flush, so writes may sit in a volatile cache.
        fua: A write can be told to end on stable storage.
        trim: Ranges can be deallocated.
        zero: Ranges can be zeroed.
        shared: Several connections see the same data (multi-conn).
        extents: The allocation of a range can be asked for.
        rotational: Seeks take time.
        minimum: Bytes that offsets and lengths are multiples of.
        preferred: Bytes of efficient requests; 0 if unknown.
        maximum: Bytes of the largest read or write.
    """

    size: int
    read_only: bool
    flush: bool
    fua: bool
    trim: bool
    zero: bool
    shared: bool
    extents: bool
    rotational: bool
    minimum: int
    preferred: int
    maximum: int


MOST: Final = 32 << 20
"""Bytes of the largest read or write where the server names no limit (the protocol's own)."""

Completed = deque[tuple[Request, int, "Connection"]]
"""Requests that have ended, with the errno, 0 for success, and the connection."""


class UnknownExportError(UsageError):
    """The server has no export of this name."""


class Connection:
    """A connection to an export.

    Args:
        address: The export.
        completed: Takes the requests that have ended, from within calls of this class.

    Attributes:
        completed: As given; it may be replaced while no request is under way.
        wants_output: For the owner: it waits until the socket takes more bytes.
    """

    def __init__(self, address: Address, completed: Completed) -> None:
        self._nbd = libnbd()
        self._address = address
        self.completed = completed
        self.wants_output = False
        self._handle: Any = self._nbd.NBD()

    def connect(self, until: float, wanted: Callable[[], bool], silence: float) -> Export:
        """Connect, and return the properties of the export.

        Args:
            until: Time (CLOCK_MONOTONIC) to give up.
            wanted: Returns whether to go on.
            silence: Seconds after which a machine that does not answer, over TCP, counts as lost, at most.

        Raises:
            UnknownExportError: The server has no such export.
            OSError: The server cannot be reached, or does not speak the protocol.
        """
        handle = self._handle
        try:
            handle.set_opt_mode(True)
            handle.add_meta_context(_ALLOCATION)
            self._address.begin(handle)
            self._drive(lambda: not handle.aio_is_connecting(), until, wanted)
            if handle.aio_is_negotiating():
                self._choose_export(until, wanted)
            if not handle.aio_is_ready():
                raise ConnectionAbortedError(errno.ECONNABORTED, f"{self._address.name}: the server hung up")
            self._watch_network(silence)
            return self._export()
        except self._nbd.Error as error:
            raise self._os_error(error) from error

    def _choose_export(self, until: float, wanted: Callable[[], bool]) -> None:
        handle, answers = self._handle, list[int]()
        handle.aio_opt_go(partial(_note_end, answers))
        self._drive(lambda: answers or handle.aio_is_dead() or handle.aio_is_closed(), until, wanted)
        if answers and answers[0] == errno.ENOENT:
            raise UnknownExportError(
                f"{self._address.name}: the server refuses the export {self._address.export!r}",
                cure=self._names(until, wanted),
            )
        if answers and answers[0]:
            plain = "" if self._address.encrypted else "; it may want an encrypted connection (nbds)"
            text = f"the server refuses the export: {os.strerror(answers[0])}{plain}"
            raise OSError(answers[0], f"{self._address.name}: {text}")
        self._drive(lambda: not (handle.aio_is_connecting() or handle.aio_is_negotiating()), until, wanted)

    def _names(self, until: float, wanted: Callable[[], bool]) -> str:
        """Ask for the names of the server's exports, and return them as a sentence."""
        handle, names, answers = self._handle, list[str](), list[int]()
        with contextlib.suppress(self._nbd.Error, OSError):

            def note(name: str, _description: str) -> int:
                names.append(name)
                return 0

            handle.aio_opt_list(note, partial(_note_end, answers))
            self._drive(lambda: answers or not handle.aio_is_connecting(), until, wanted)
        if not names:
            return "it does not tell the names of its exports"
        return f"it has: {', '.join(repr(name) for name in sorted(names))}"

    def _drive(self, ended: Callable[[], object], until: float, wanted: Callable[[], bool]) -> None:
        """Serve the handle until `ended`.

        Raises:
            OSError: ETIMEDOUT: it took too long; ECANCELED: it is not wanted any more.
            nbd.Error: The connection has failed.
        """
        while not ended():
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"{self._address.name}: the server does not answer")
            if not wanted():
                raise OSError(errno.ECANCELED, f"{self._address.name}: closed")
            self.wait(min(left, _STEP))

    def wait(self, seconds: float) -> None:
        """Wait until the connection has work, for some seconds at most, and do it.

        Raises:
            nbd.Error: The connection has failed.
        """
        poll = select.poll()
        poll.register(self.fileno(), self.events())
        for _, events in poll.poll(seconds * 1000):
            self.notify(events)

    def _watch_network(self, silence: float) -> None:
        """Have the kernel end a TCP connection whose other machine is gone, early enough to replace it."""
        with socket.socket(fileno=os.dup(self.fileno())) as copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                return
            seconds = max(1, int(silence / 4))
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
            copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * seconds)

    def _export(self) -> Export:
        handle = self._handle
        sizes = [handle.get_block_size(kind) for kind in range(_AGREED)]
        return Export(
            size=handle.get_size(),
            read_only=handle.is_read_only(),
            flush=handle.can_flush(),
            fua=handle.can_fua(),
            trim=handle.can_trim(),
            zero=handle.can_zero(),
            shared=handle.can_multi_conn(),
            extents=handle.can_meta_context(_ALLOCATION),
            rotational=handle.is_rotational(),
            minimum=max(1, sizes[0]),
            preferred=sizes[1],
            maximum=min(MOST, sizes[2] or MOST),
        )

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return int(self._handle.aio_get_fd())

    def events(self) -> int:
        """Return the events that the connection waits for, as of poll(2)."""
        direction = self._handle.aio_get_direction()
        return (select.POLLIN if direction & _READ else 0) | (select.POLLOUT if direction & _WRITE else 0)

    def notify(self, events: int) -> None:
        """Serve the handle after these events; requests that end go to `completed`.

        Raises:
            nbd.Error: The connection has failed.
        """
        direction = self._handle.aio_get_direction()
        if direction & _READ and events & ~select.POLLOUT:
            self._handle.aio_notify_read()
        elif direction & _WRITE:
            self._handle.aio_notify_write()

    @property
    def over(self) -> bool:
        """Whether the server is lost; the requests under way have ended then."""
        return bool(self._handle.aio_is_dead() or self._handle.aio_is_closed())

    def begin(self, request: Request) -> None:
        """Begin a request; it may end before this returns.

        Raises:
            nbd.Error: It has not begun.
        """
        handle, offset, length = self._handle, request.offset, request.length
        completed = self.completed

        def end(number: Any) -> int:
            completed.append((request, number.value, self))
            return 1

        match request.kind:
            case Kind.READ:
                handle.aio_pread(request.view, offset, end)
            case Kind.WRITE:
                handle.aio_pwrite(request.view, offset, end, _FUA if request.fua else 0)
            case Kind.FLUSH:
                handle.aio_flush(end)
            case Kind.TRIM:
                handle.aio_trim(length, offset, end, _FUA if request.fua else 0)
            case Kind.ZERO:
                flags = (_FUA if request.fua else 0) | (_NO_HOLE if request.keep_storage else 0)
                handle.aio_zero(length, offset, end, flags)
            case Kind.STATUS:
                extents = request.extents
                extents.clear()

                def note(context: str, _offset: int, entries: list[int], _error: Any) -> int:
                    if context == _ALLOCATION:
                        extents.extend(entries)
                    return 0

                handle.aio_block_status(length, offset, note, end)

    def kill(self) -> None:
        """End the connection now: requests under way end with ENOTCONN, and no view is used after that."""
        with contextlib.suppress(OSError, self._nbd.Error):
            copy = socket.socket(fileno=os.dup(self.fileno()))
            with copy:
                copy.shutdown(socket.SHUT_RDWR)
        for _ in range(_ROUNDS):
            if self.over:
                return
            with contextlib.suppress(self._nbd.Error):
                self.notify(select.POLLIN | select.POLLHUP)
                if self._handle.aio_get_direction() & _WRITE:
                    self._handle.aio_notify_write()

    def leave(self) -> None:
        """Take leave of the server, as far as that needs no waiting, and end the connection."""
        with contextlib.suppress(self._nbd.Error):
            self._handle.aio_disconnect()
        self.kill()

    def _os_error(self, error: Exception) -> OSError:
        number = getattr(errno, str(getattr(error, "errno", "")), errno.EIO)
        return OSError(number, f"{self._address.name}: {text_of(error)}")


def text_of(error: Exception) -> str:
    """Return the text of an error of libnbd in one line, without the name of a function."""
    text = " ".join(str(getattr(error, "string", error)).split())
    return _FUNCTION.sub("", text)


def _note_end(ends: list[int], number: Any) -> int:
    """Note the errno of a completion, which libnbd passes in one of two ways; it is dealt with."""
    ends.append(int(getattr(number, "value", number)))
    return 1
