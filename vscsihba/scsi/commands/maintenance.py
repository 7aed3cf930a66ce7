"""Administration of a unit: timestamp, identifying information, supported task management functions."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.response import GOOD, Response, data_in
from vscsihba.scsi.sense import illegal_request, invalid_parameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Steps

IDENTIFYING_INFORMATION = {0b0000000: 64, 0b0000010: 256}
"""INFORMATION TYPE (plain and text) and its MAXIMUM LENGTH in bytes."""

_SUPPORTED_TYPES = 0b1111111
_TEXT = 0b0000010

_SET_BY_COMMAND, _SET_OTHERWISE = 0b010, 0b011
"""TIMESTAMP ORIGIN, SPC-5 "Device clocks"."""


@dataclass(slots=True)
class Timestamp:
    """A device clock: the host's, until an initiator sets it.

    Attributes:
        clock: Returns the host's milliseconds since 1970.
        offset: Difference to the time that an initiator has set; None if none has.
        born: Time of the unit's creation by `clock`.
    """

    clock: Callable[[], int]
    offset: int | None = None
    born: int = field(init=False)

    def __post_init__(self) -> None:
        """Set `born`."""
        self.born = self.clock()

    def hours(self) -> int:
        """Return the hours since this engine has created the unit."""
        return (self.clock() - self.born) // 3_600_000

    def report(self) -> tuple[int, int]:
        """Return TIMESTAMP ORIGIN and TIMESTAMP (48 bits of milliseconds)."""
        origin = _SET_OTHERWISE if self.offset is None else _SET_BY_COMMAND
        return origin, self.clock() + (self.offset or 0) & 0xFFFFFFFFFFFF


def report_timestamp(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """REPORT TIMESTAMP: SPC-5."""
    origin, milliseconds = lu.timestamp.report()
    payload = struct.pack(">HBx", 10, origin) + milliseconds.to_bytes(6, "big") + bytes(2)
    return data_in(buffer, payload, cdb["allocation_length"])


def set_timestamp(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """SET TIMESTAMP: SPC-5."""
    length = cdb["parameter_list_length"]
    if not length:
        return GOOD
    if length < 12 or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    milliseconds = int.from_bytes(buffer.gather(4, 6), "big")
    lu.timestamp.offset = milliseconds - lu.timestamp.clock()
    return GOOD


def report_identifying_information(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """REPORT IDENTIFYING INFORMATION: SPC-5."""
    kind = cdb["information_type"]
    if kind == _SUPPORTED_TYPES:
        body = b"".join(
            struct.pack(">BxH", one << 1, length) for one, length in IDENTIFYING_INFORMATION.items()
        )
    elif kind in IDENTIFYING_INFORMATION:
        body = lu.identifying_information.get(kind, b"")
    else:
        raise cdb.invalid("information_type")
    return data_in(buffer, struct.pack(">xxH", len(body)) + body, cdb["allocation_length"])


def set_identifying_information(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Steps:
    """SET IDENTIFYING INFORMATION: SPC-5; stored before it takes effect."""
    kind, length = cdb["information_type"], cdb["parameter_list_length"]
    if kind not in IDENTIFYING_INFORMATION:
        raise cdb.invalid("information_type")
    if length > IDENTIFYING_INFORMATION[kind] or buffer.length < length:
        raise cdb.invalid("parameter_list_length")
    information = buffer.gather(0, length)
    if kind == _TEXT and information and (information[-1] or information.count(0) > 1):
        raise invalid_parameter(max(information.find(0), 0))
    known = {**lu.identifying_information, kind: information}
    yield lu.keep(information=known)
    lu.identifying_information = known
    return GOOD


def report_supported_task_management_functions(_lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: SPC-5; ABORT TASK and LOGICAL UNIT RESET."""
    functions = 0x80 | 0x08
    payload = bytes([functions, 0, 0, 0x0C]) + bytes(12) if cdb["repd"] else bytes([functions, 0, 0, 0])
    return data_in(buffer, payload, cdb["allocation_length"])


def security_protocol_in(_lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """SECURITY PROTOCOL IN: SPC-5; protocol 00h only, which lists the protocols and an empty certificate."""
    if cdb["security_protocol"]:
        raise cdb.invalid("security_protocol")
    match cdb["security_protocol_specific"]:
        case 0x0000:
            payload = bytes(6) + (1).to_bytes(2, "big") + b"\x00"
        case 0x0001:
            payload = bytes(4)
        case _:
            raise cdb.invalid("security_protocol_specific")
    length = cdb["allocation_length"]
    if cdb["inc_512"]:
        payload = payload.ljust(512, b"\0")
        length *= 512
    return data_in(buffer, payload, length)
