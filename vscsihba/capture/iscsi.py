"""Commands as PDUs of iSCSI (RFC 7143), which Wireshark decodes whole: both directions of one command.

There is no connection: sequence numbers are those of the commands in the file. Knows PDUs, neither files nor
engines.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

PIECE: Final = 128 << 10
"""Bytes of data in one PDU: Wireshark takes a data segment above 256 KiB for damaged."""

BHS: Final = 48
"""Bytes of a basic header segment."""

_FINAL, _READ, _WRITE, _SIMPLE = 0x80, 0x40, 0x20, 0x01
_UNDERFLOW: Final = 0x02
_NO_TAG: Final = 0xFFFFFFFF
_CDB: Final = 16
_EXTENDED_CDB: Final = 1
"""AHSType of the bytes of a CDB behind the first 16."""

_FUNCTIONS: Final = {
    "ABORT TASK": 1,
    "ABORT TASK SET": 2,
    "CLEAR ACA": 3,
    "CLEAR TASK SET": 4,
    "LOGICAL UNIT RESET": 5,
    "TARGET WARM RESET": 6,
    "TARGET COLD RESET": 7,
}


class Opcode(IntEnum):
    """Opcodes of PDUs (RFC 7143, 11.2.1.2)."""

    COMMAND = 0x01
    MANAGEMENT = 0x02
    DATA_OUT = 0x05
    RESPONSE = 0x21
    MANAGED = 0x22
    DATA_IN = 0x25


class Pdu(NamedTuple):
    """One PDU.

    Attributes:
        data: Its bytes; the end of its data segment may be missing.
        length: Its whole length.
        to_target: Whether the initiator sends it.
    """

    data: bytes
    length: int
    to_target: bool


class Exchange(NamedTuple):
    """One command and its answer.

    Attributes:
        tag: Initiator task tag, unique in the file.
        lun: Logical unit number.
        cdb: The CDB.
        is_read: The data goes to the initiator.
        is_write: The data goes to the target.
        length: Bytes of the initiator's buffer.
        returned: Bytes of data that were transferred.
        status: SAM status.
        sense: Sense data.
        data: The first bytes of the data.
    """

    tag: int
    lun: int
    cdb: bytes
    is_read: bool
    is_write: bool
    length: int
    returned: int
    status: int
    sense: bytes
    data: bytes


def command(exchange: Exchange) -> Iterator[Pdu]:
    """Yield the PDUs that the initiator sends: the command with the first of its data, then the rest."""
    sent = exchange.length if exchange.is_write else 0
    flags = _FINAL | _SIMPLE | _READ * exchange.is_read | _WRITE * exchange.is_write
    extra = exchange.cdb[_CDB:]
    ahs = b""
    if extra:
        ahs = struct.pack(">HBB", 1 + len(extra), _EXTENDED_CDB, 0) + extra
        ahs += bytes(-len(ahs) % 4)
    first = min(sent, PIECE)
    head = struct.pack(
        ">BBHB3sQIIII16s",
        Opcode.COMMAND,
        flags if first == sent else flags & ~_FINAL,
        0,
        len(ahs) // 4,
        first.to_bytes(3, "big"),
        lun_field(exchange.lun),
        exchange.tag,
        exchange.length if exchange.is_read or exchange.is_write else 0,
        exchange.tag,
        exchange.tag,
        exchange.cdb[:_CDB],
    )
    data = exchange.data if exchange.is_write else b""
    yield _pdu(head + ahs, data[:first], first, to_target=True)
    for at in range(PIECE, sent, PIECE):
        size = min(PIECE, sent - at)
        yield _pdu(
            _data_head(Opcode.DATA_OUT, exchange, at, size, last=at + size == sent),
            data[at : at + size],
            size,
            to_target=True,
        )


def response(exchange: Exchange) -> Iterator[Pdu]:
    """Yield the PDUs of the answer to a command: its data, then its status."""
    returned = exchange.returned if exchange.is_read else 0
    for at in range(0, returned, PIECE):
        size = min(PIECE, returned - at)
        head = _data_head(Opcode.DATA_IN, exchange, at, size, last=at + size == returned)
        yield _pdu(head, exchange.data[at : at + size], size, to_target=False)
    pieces = -(-returned // PIECE)
    residual = exchange.length - exchange.returned if exchange.is_read or exchange.is_write else 0
    sense = struct.pack(">H", len(exchange.sense)) + exchange.sense if exchange.sense else b""
    head = struct.pack(
        ">BBBBB3sQIIIIIIII",
        Opcode.RESPONSE,
        _FINAL | _UNDERFLOW * (residual > 0),
        0,
        exchange.status,
        0,
        len(sense).to_bytes(3, "big"),
        0,
        exchange.tag,
        0,
        exchange.tag,
        exchange.tag + 1,
        exchange.tag + 64,
        pieces,
        0,
        residual,
    )
    yield _pdu(head, sense, len(sense), to_target=False)


def management(tag: int, lun: int, function: str, referenced: int) -> tuple[Pdu, Pdu]:
    """Return a task management request and its answer, "function complete".

    Args:
        tag: Initiator task tag of the request.
        lun: Logical unit number.
        function: SAM's name of the function; an unknown one is shown as ABORT TASK SET.
        referenced: Initiator task tag of the command that it ends.
    """
    code = _FUNCTIONS.get(function, 2)
    request = struct.pack(
        ">BBHB3sQIIIIII8x",
        Opcode.MANAGEMENT | 0x40,
        _FINAL | code,
        0,
        0,
        bytes(3),
        lun_field(lun),
        tag,
        referenced if function == "ABORT TASK" else _NO_TAG,
        tag,
        tag,
        0,
        0,
    )
    answer = struct.pack(
        ">BBBBB3sQIIIII12x", Opcode.MANAGED, _FINAL, 0, 0, 0, bytes(3), 0, tag, 0, tag, tag + 1, tag + 64
    )
    return Pdu(request, len(request), to_target=True), Pdu(answer, len(answer), to_target=False)


def lun_field(lun: int) -> int:
    """Return the LUN field of 8 bytes: peripheral addressing up to 255, then flat addressing (SAM-5, 4.7)."""
    return (lun if lun < 256 else 0x4000 | lun) << 48


def lun_of(field: int) -> int:
    """Return the number in a LUN field of 8 bytes."""
    return field >> 48 & 0x3FFF


def _data_head(opcode: Opcode, exchange: Exchange, at: int, size: int, *, last: bool) -> bytes:
    return struct.pack(
        ">BBHB3sQIIIIIIII",
        opcode,
        _FINAL * last,
        0,
        0,
        size.to_bytes(3, "big"),
        lun_field(exchange.lun),
        exchange.tag,
        _NO_TAG,
        0 if opcode is Opcode.DATA_OUT else exchange.tag,
        exchange.tag,
        0 if opcode is Opcode.DATA_OUT else exchange.tag + 64,
        at // PIECE - (opcode is Opcode.DATA_OUT),
        at,
        0,
    )


def _pdu(head: bytes, data: bytes, size: int, *, to_target: bool) -> Pdu:
    """Return a PDU whose data segment has `size` bytes, of which `data` are kept."""
    padding = -size % 4
    kept = head + data + bytes(padding if len(data) == size else 0)
    return Pdu(kept, len(head) + size + padding, to_target)
