"""Requests of the NBD protocol on their way, and the properties of an export.

Knows no connection.
"""

import errno
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from vscsihba.errors import UsageError
from vscsihba.handlers.base import Done
from vscsihba.handlers.nbd.ranges import Ranges


class Kind(IntEnum):
    """Commands of the protocol, by their numbers."""

    READ = 0
    WRITE = 1
    FLUSH = 3
    TRIM = 4
    ZERO = 6
    STATUS = 7


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
        reports: A FLUSH that tells its sender of writes that were lost before.
        extents: Result of STATUS: length and flags, in turns.
        expires: Time (CLOCK_MONOTONIC) at which it fails.
        number: For FLUSH, the place in the order in which flushes have begun.
        position: For FLUSH, the writes that it covers (`unflushed.UnflushedWrites.position`).
        sent: Bytes of its connection after which it has been sent as a whole.
        received: Bytes of a READ that have arrived, each of them once.
        pieces: The parts of a READ that has not arrived in one piece.
        error: Error in a part of its answer, an errno; 0 if there is none.
    """

    # Defaults are attributes of the class: a request is made for each command.
    extents: tuple[int, ...] = ()
    expires = 0.0
    number = 0
    position = 0
    sent = 0
    received = 0
    pieces: Ranges | None = None
    error = 0

    def __init__(
        self,
        kind: Kind,
        done: Done,
        offset: int = 0,
        length: int = 0,
        view: memoryview | bytes | bytearray = b"",
        *,
        fua: bool = False,
        keep_storage: bool = False,
        reports: bool = False,
    ) -> None:
        self.kind = kind
        self.done = done
        self.offset = offset
        self.length = length
        self.view: Any = view
        self.fua = fua
        self.keep_storage = keep_storage
        self.reports = reports

    def forget_answer(self) -> None:
        """Drop all that has arrived of an answer, since the request is sent again."""
        self.extents, self.received, self.pieces, self.error = (), 0, None, 0


Completed = deque[tuple[Request, int]]
"""Requests that have ended, with the errno, 0 for success."""


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


LOST: Final = (errno.ENOTCONN, errno.ESHUTDOWN)
"""Errors of requests whose connection has ended, or whose server says that it ends."""
MOST: Final = 32 << 20
"""Bytes of the largest read or write where the server names no limit (the protocol's own)."""


class UnknownExportError(UsageError):
    """The server has no export of this name."""
