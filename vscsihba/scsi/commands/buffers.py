"""READ BUFFER and WRITE BUFFER: two small buffers, for testing the path to the unit.

Downloading microcode is not supported.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.response import GOOD, Response, data_in
from vscsihba.scsi.sense import illegal_request

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

DATA_SIZE = 64 << 10
"""Bytes of buffer 0."""

ECHO_SIZE = 4096
"""Bytes of the echo buffer."""


class Mode(IntEnum):
    """MODE, SPC-5 "READ BUFFER(10) command"; WRITE BUFFER supports the two that move data."""

    DATA = 0x02
    DESCRIPTOR = 0x03
    ECHO = 0x0A
    ECHO_DESCRIPTOR = 0x0B


class Buffers:
    """The buffers of one logical unit.

    Attributes:
        data: Buffer 0.
        echo: Contents of the echo buffer.
    """

    def __init__(self) -> None:
        self.data = bytearray(DATA_SIZE)
        self.echo = b""


def read_buffer(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """READ BUFFER(10): SPC-5."""
    match cdb["mode"]:
        case Mode.DATA:
            offset = _offset(cdb, DATA_SIZE)
            payload = bytes(lu.buffers.data[offset:])
        case Mode.DESCRIPTOR:
            size = 0 if cdb["buffer_id"] else DATA_SIZE
            payload = bytes([0]) + size.to_bytes(3, "big")  # OFFSET BOUNDARY: any byte
        case Mode.ECHO:
            if not lu.buffers.echo:
                raise illegal_request(Asc.COMMAND_SEQUENCE_ERROR)
            payload = lu.buffers.echo
        case Mode.ECHO_DESCRIPTOR:
            payload = ECHO_SIZE.to_bytes(4, "big")
        case _:
            raise cdb.invalid("mode")
    return data_in(buffer, payload, cdb["allocation_length"])


def write_buffer(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """WRITE BUFFER: SPC-5."""
    length = cdb["parameter_list_length"]
    if buffer.length < length:
        raise cdb.invalid("parameter_list_length")
    match cdb["mode"]:
        case Mode.DATA:
            offset = _offset(cdb, DATA_SIZE)
            if offset + length > DATA_SIZE:
                raise cdb.invalid("parameter_list_length")
            lu.buffers.data[offset : offset + length] = buffer.gather(0, length)
        case Mode.ECHO:
            if length > ECHO_SIZE:
                raise cdb.invalid("parameter_list_length")
            lu.buffers.echo = buffer.gather(0, length)
        case _:
            raise cdb.invalid("mode")
    return GOOD


def _offset(cdb: Cdb, size: int) -> int:
    """Return the offset into buffer 0.

    Raises:
        CheckCondition: The buffer does not exist, or the offset lies outside of it.
    """
    if cdb["buffer_id"]:
        raise cdb.invalid("buffer_id")
    if cdb["buffer_offset"] > size:
        raise cdb.invalid("buffer_offset")
    return cdb["buffer_offset"]
