"""Records of finished commands, as an engine sends them to the readers of its trace: their layout.

All kinds of records have the same header, in the machine's byte order, since no record leaves the machine.
Knows neither the meaning of a CDB nor who reads.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, Self

FORMAT: Final = 1
"""Version of the layout; a reader refuses every other one."""

UNKNOWN: Final = -1.0
"""A time or duration that nobody has measured."""

_HEADER: Final = struct.Struct("=IBBBBIQddddIII")
_HEAD: Final = struct.Struct("=IQ")
"""Head of a batch: bytes of the records behind it, and the number of commands lost until then."""


class Kind(IntEnum):
    """Kind of a record."""

    COMMAND = 1
    MANAGEMENT = 2
    """A task management request: `sense` is its name in ASCII, `data` the tags that it ends."""
    LUN = 3
    """A LUN is served from now on: `data` is standard INQUIRY data, `length` the bytes of its blocks."""
    GONE = 4
    """A LUN is no longer served by this engine."""


class Direction(IntEnum):
    """Direction of the data, as the initiator sees it."""

    NONE = 0
    IN = 1
    OUT = 2


class Record(NamedTuple):
    """One event of a LUN, in most cases a finished command.

    Attributes:
        kind: Kind of the event.
        lun: Logical unit number.
        arrived: Time of arrival, in seconds of CLOCK_MONOTONIC.
        ended: Time of completion, likewise.
        begun: Time when it was allowed to begin, likewise; `UNKNOWN` if nobody has measured it.
        storage: Seconds that its block operations took; `UNKNOWN` likewise.
        tag: The ring's identifier of the command, unique among the open commands of a LUN.
        status: SAM status.
        direction: Direction of its data.
        length: Bytes of the initiator's buffer.
        returned: Bytes of data that were transferred.
        cdb: The command descriptor block; it may have stale bytes behind its own length.
        sense: Sense data.
        data: The first bytes of the data.
    """

    kind: Kind
    lun: int
    arrived: float
    ended: float
    begun: float = UNKNOWN
    storage: float = UNKNOWN
    tag: int = 0
    status: int = 0
    direction: Direction = Direction.NONE
    length: int = 0
    returned: int = 0
    cdb: bytes = b""
    sense: bytes = b""
    data: bytes = b""

    def pack(self) -> bytes:
        """Return the record's bytes."""
        return pack(*self)

    @classmethod
    def unpack(cls, stored: bytes, at: int = 0) -> Self:
        """Return the record at byte `at` of `stored`.

        Raises:
            ValueError: There is no whole record.
        """
        try:
            fields = _HEADER.unpack_from(stored, at)
        except struct.error as error:
            raise ValueError("a record is cut off") from error
        size, kind, status, cdb, sense, lun, tag, arrived, begun, ended, storage, length, returned, data = (
            fields
        )
        start = at + _HEADER.size
        if size != _HEADER.size + cdb + sense + data or at + size > len(stored):
            raise ValueError("a record is cut off")
        ends = start + cdb, start + cdb + sense
        return cls(
            Kind(kind & 0xF),
            lun,
            arrived,
            ended,
            begun,
            storage,
            tag,
            status,
            Direction(kind >> 4),
            length,
            returned,
            stored[start : ends[0]],
            stored[ends[0] : ends[1]],
            stored[ends[1] : at + size],
        )

    @property
    def seconds(self) -> float:
        """Seconds from arrival to completion."""
        return self.ended - self.arrived


def pack(  # noqa: PLR0917 - without names, since it is called for each command
    kind: int,
    lun: int,
    arrived: float,
    ended: float,
    begun: float,
    storage: float,
    tag: int,
    status: int,
    direction: int,
    length: int,
    returned: int,
    cdb: bytes,
    sense: bytes,
    data: bytes,
) -> bytes:
    """Return the bytes of a record; the arguments are the fields of `Record`."""
    cdb_size, sense_size, data_size = len(cdb), len(sense), len(data)
    head = _HEADER.pack(
        _HEADER.size + cdb_size + sense_size + data_size,
        kind | direction << 4,
        status,
        cdb_size,
        sense_size,
        lun,
        tag,
        arrived,
        begun,
        ended,
        storage,
        length,
        returned,
        data_size,
    )
    return head + cdb + sense + data


def pack_batch(records: bytes, lost: int) -> bytes:
    """Return packed records as a batch.

    Args:
        records: The records, one behind the other.
        lost: Commands that the reader has lost until now, in all.
    """
    return _HEAD.pack(len(records), lost) + records


class Batches:
    """The bytes of a stream, put together again.

    Attributes:
        lost: Commands that were lost until now, in all.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._bytes = bytearray()

    def add(self, received: bytes) -> Iterator[Record]:
        """Take bytes from the stream; yield the records of each batch that is whole now.

        Raises:
            ValueError: The bytes are not batches of records.
        """
        stored = self._bytes
        stored += received
        while len(stored) >= _HEAD.size:
            size, lost = _HEAD.unpack_from(stored)
            end = _HEAD.size + size
            if len(stored) < end:
                return
            batch = bytes(stored[_HEAD.size : end])
            del stored[:end]
            self.lost = lost
            yield from records(batch)


def records(batch: bytes) -> Iterator[Record]:
    """Yield the records of a batch.

    Raises:
        ValueError: The last one is cut off.
    """
    at = 0
    while at < len(batch):
        record = Record.unpack(batch, at)
        yield record
        at += _HEADER.size + len(record.cdb) + len(record.sense) + len(record.data)
