"""The trace tap of a LUN: the one place where every finished command is seen, with its times and its data.

Without observers it costs nothing: the fast path is the plain one, and the other ways test one attribute. An
observer never makes a command wait: it takes a record at once or counts it as lost. An exception while a
record is made loses that record, and never the command.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol

from vscsihba import scsi
from vscsihba.handlers.sg import cdb as sg_cdb
from vscsihba.records import UNKNOWN, Direction, Kind, Record, pack
from vscsihba.transport import FastPath, TaskManagement

log = logging.getLogger(__name__)

_MISSING: Final = "lun %d: a command is missing in its trace"

_CDB_LENGTHS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""Bytes of a CDB by the group code of its operation code (SPC-5 "Operation code")."""

_DIRECTIONS: Final = {
    scsi.Data.NONE: Direction.NONE,
    scsi.Data.IN: Direction.IN,
    scsi.Data.OUT: Direction.OUT,
}

_COMMAND, _IN, _OUT = int(Kind.COMMAND), int(Direction.IN), int(Direction.OUT)

BATCH: Final = 1 << 20
"""Bytes of records that `TraceBuffer.take_out` returns at once, about."""


class Observer(Protocol):
    """An observer of finished commands; it is called by the threads that serve them and must not block.

    Attributes:
        snaplen: Bytes of data that it wants of each command, at most.
    """

    snaplen: int

    def admits(self) -> bool:
        """Return whether it takes a record now; if not, it has counted the command as lost."""

    def take(self, record: bytes) -> None:
        """Take a packed record."""

    def lose(self) -> None:
        """Count a command as lost."""


class Tap:
    """The tap of one LUN.

    Args:
        lun: Number of the LUN.
        inquiry: Standard INQUIRY data of the LUN, as far as it is known.
        block_size: Bytes of a logical block.

    Attributes:
        observers: Those that are told of commands; replaced as a whole, so that any thread may read it.
        changed: Called when `observers` has changed, on any thread.
    """

    def __init__(self, lun: int, inquiry: bytes, block_size: int) -> None:
        self.lun = lun
        self.inquiry = inquiry
        self.block_size = block_size
        self.observers: tuple[Observer, ...] = ()
        self.changed: Callable[[], None] = _ignore
        self._has_room = True  # the clock, which may be slow, is not read while no observer has room

    def observe(self, *observers: Observer) -> None:
        """Replace the observers; new ones are told of the LUN first."""
        now = monotonic()
        told = Record(Kind.LUN, self.lun, now, now, length=self.block_size, data=self.inquiry).pack()
        for observer in observers:
            if observer not in self.observers:
                _tell(observer, told)
        if observers != self.observers:
            self._has_room = True
            self.observers = observers
            self.changed()

    def around(self, execute: FastPath, memory: memoryview) -> FastPath:
        """Return the fast path `execute` with a record of each command that it executes.

        Args:
            execute: The fast path of the LUN.
            memory: The memory that CDBs are read from.
        """
        plain = {
            opcode: (_CDB_LENGTHS[opcode >> 5], way[1]) for opcode, way in scsi.FAST_PATH_OPCODES.items()
        }

        def tapped(cdb_at: int, views: list[memoryview], length: int, cmd_id: int) -> bool:
            arrived = monotonic() if self._has_room else UNKNOWN
            if not execute(cdb_at, views, length, cmd_id):
                return False
            if arrived < 0:
                self._has_room = self._lose()
                return True
            try:
                self._has_room = False
                for observer in self.observers:
                    if observer.admits():
                        self._has_room = True
                        size, is_write = plain[memory[cdb_at]]
                        cdb = memory[cdb_at : cdb_at + size].tobytes()
                        packed = self._plain(cmd_id, cdb, views, length, is_write, arrived, observer.snaplen)
                        observer.take(packed)
            except Exception:  # the barrier of the trace: the command has been executed
                log.exception(_MISSING, self.lun)
            return True

        return tapped

    def _lose(self) -> bool:
        """Count a command whose arrival nobody has noted; return whether an observer has room again."""
        has_room = False
        for observer in self.observers:
            if observer.admits():
                observer.lose()
                has_room = True
        return has_room

    def plain(
        self, tag: int, cdb: bytes, views: list[memoryview], length: int, *, is_write: bool, arrived: float
    ) -> None:
        """Tell the observers of a plain command that has ended with GOOD; `views` are still its buffer."""
        try:
            for observer in self.observers:
                if observer.admits():
                    observer.take(self._plain(tag, cdb, views, length, is_write, arrived, observer.snaplen))
        except Exception:  # likewise
            log.exception(_MISSING, self.lun)

    def _plain(  # noqa: PLR0917 - without names, since it is called for each command
        self,
        tag: int,
        cdb: bytes,
        views: list[memoryview],
        length: int,
        is_write: bool,  # noqa: FBT001 - likewise
        arrived: float,
        snaplen: int,
    ) -> bytes:
        """Return the record of a plain command: all of its time is its storage's."""
        now, direction = monotonic(), _OUT if is_write else _IN
        data = _head(views, min(length, snaplen)) if snaplen else b""
        took = now - arrived
        return pack(
            _COMMAND, self.lun, arrived, now, arrived, took, tag, 0, direction, length, length, cdb, b"", data
        )

    def ended(
        self,
        tag: int,
        cdb: bytes,
        views: Sequence[memoryview],
        response: scsi.Response,
        *,
        arrived: float,
        begun: float = UNKNOWN,
        storage: float = UNKNOWN,
    ) -> None:
        """Tell the observers of a command that has ended; `views` are still its buffer.

        Args:
            tag: Names the command to the transport.
            cdb: The command descriptor block.
            views: Its data buffer.
            response: The answer.
            arrived: Time of its arrival, in seconds of CLOCK_MONOTONIC.
            begun: Time of its beginning, likewise.
            storage: Seconds that its block operations took.
        """
        if not self.observers:
            return
        try:
            self._ended(tag, cdb, views, response, arrived=arrived, begun=begun, storage=storage)
        except Exception:  # likewise
            log.exception(_MISSING, self.lun)

    def _ended(
        self,
        tag: int,
        cdb: bytes,
        views: Sequence[memoryview],
        response: scsi.Response,
        *,
        arrived: float,
        begun: float,
        storage: float,
    ) -> None:
        length = sum(map(len, views))
        direction = _direction(cdb, length, response, self.inquiry[0] & 0x1F)
        returned = length if direction is Direction.OUT and response.status == scsi.Status.GOOD else 0
        if direction is Direction.IN:
            returned = min(response.data_in or 0, length)
        record = Record(
            Kind.COMMAND,
            self.lun,
            arrived,
            monotonic(),
            begun,
            storage,
            tag,
            response.status,
            direction,
            length,
            returned,
            cdb[:255],
            response.sense or b"",
        )
        self._tell(record, views)

    def managed(self, request: TaskManagement) -> None:
        """Tell the observers of a task management request."""
        if not self.observers:
            return
        now = monotonic()
        try:
            tags = b"".join(tag.to_bytes(8, "little") for tag in request.tags)
            record = Record(Kind.MANAGEMENT, self.lun, now, now, sense=request.function.encode(), data=tags)
            for observer in self.observers:
                observer.take(record.pack())
        except Exception:  # likewise
            log.exception(_MISSING, self.lun)

    def _tell(self, record: Record, views: Sequence[memoryview]) -> None:
        carried = record.length if record.direction is Direction.OUT else record.returned
        packed: dict[int, bytes] = {}
        for observer in self.observers:
            if not observer.admits():
                continue
            wanted = min(carried, observer.snaplen)
            if wanted not in packed:
                packed[wanted] = record._replace(data=_head(views, wanted)).pack()
            observer.take(packed[wanted])


class Taps:
    """The taps of the LUNs that one process serves; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: dict[int, Tap] = {}
        self._observers: dict[Observer, frozenset[int] | None] = {}

    def enter(self, tap: Tap) -> None:
        """Add the tap of a LUN that is served from now on."""
        with self._lock:
            self._taps[tap.lun] = tap
            tap.observe(*self._of(tap.lun))

    def leave(self, tap: Tap) -> None:
        """Remove a tap; its observers are told that the LUN is gone."""
        with self._lock:
            if self._taps.get(tap.lun) is not tap:
                return
            del self._taps[tap.lun]
            now = monotonic()
            gone = Record(Kind.GONE, tap.lun, now, now).pack()
            for observer in tap.observers:
                _tell(observer, gone)
            tap.observe()

    def observe(self, observer: Observer, luns: frozenset[int] | None = None) -> None:
        """Add an observer of some LUNs, or of all; LUNs that are not served yet are observed later."""
        with self._lock:
            self._observers[observer] = luns
            self._update()

    def forget(self, observer: Observer) -> None:
        """Remove an observer."""
        with self._lock:
            self._observers.pop(observer, None)
            self._update()

    @property
    def count(self) -> int:
        """Number of observers."""
        return len(self._observers)

    def _update(self) -> None:
        for tap in self._taps.values():
            tap.observe(*self._of(tap.lun))

    def _of(self, lun: int) -> list[Observer]:
        return [each for each, luns in self._observers.items() if luns is None or lun in luns]


class TraceBuffer:
    """An observer that keeps records, up to a limit, until a thread takes them out.

    The threads that serve commands never wait for the thread that takes records out: that one changes only
    `_taken`, and they change the rest.

    Args:
        limit: Bytes of records that are kept.
        snaplen: Bytes of data of each command, at most.
    """

    def __init__(self, limit: int, snaplen: int) -> None:
        self.snaplen = snaplen
        self.lost = 0
        self._limit = limit
        self._records: deque[bytes] = deque()
        self._put = self._taken = 0
        self._putting = threading.Lock()  # raw LUNs of a program are served by several threads

    def admits(self) -> bool:
        """Return whether it takes a record now; if not, count the command as lost."""
        if self._put - self._taken < self._limit:
            return True
        self.lose()
        return False

    def lose(self) -> None:
        """Count a command as lost."""
        with self._putting:
            self.lost += 1

    def take(self, record: bytes) -> None:
        """Keep a record."""
        with self._putting:
            self._put += len(record)
            self._records.append(record)

    def take_out(self) -> bytes:
        """Remove and return the oldest records, about 1 MiB; empty if there are none. For one thread."""
        records, taken, size = self._records, [], 0
        while records and size < BATCH:
            record = records.popleft()
            taken.append(record)
            size += len(record)
        self._taken += size
        return b"".join(taken)


def _direction(cdb: bytes, length: int, response: scsi.Response, device_type: int) -> Direction:
    """Return the direction of a command's data; that of an unknown command of a disk from its answer."""
    if not length:
        return Direction.NONE
    if device_type:
        return (
            Direction.OUT if sg_cdb.direction_of(cdb, device_type) is sg_cdb.Direction.OUT else Direction.IN
        )
    row = scsi.lookup(cdb)
    if row is not None and row.data is not scsi.Data.NONE:
        return _DIRECTIONS[row.data]
    return Direction.OUT if response.data_in is None else Direction.IN


def _head(views: Sequence[memoryview], length: int) -> bytes:
    """Return the first bytes of a buffer."""
    if not length:
        return b""
    if len(views) == 1 or len(views[0]) >= length:
        return views[0][:length].tobytes()
    return b"".join(views)[:length]


def _tell(observer: Observer, record: bytes) -> None:
    """Tell an observer of a LUN; if it cannot take that, the LUN goes on."""
    try:
        observer.take(record)
    except Exception:
        log.exception("a trace is not told of a LUN")


def _ignore() -> None:
    """Do nothing: nobody needs to know."""
