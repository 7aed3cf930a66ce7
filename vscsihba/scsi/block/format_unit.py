"""FORMAT UNIT.

Without protection information and defect lists few options are left:
all blocks become zeroes (deallocated, if the medium can), or a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.erasure import erase, overwrite, zero
from vscsihba.scsi.readiness import Erasure
from vscsihba.scsi.response import Response, Steps
from vscsihba.scsi.sense import illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

_FAST = 0b01
"""FFMT: without overwriting the medium."""

_OPTIONS_VALID, _OPTIONS, _PATTERN, _IMMED, _RESERVED = 0x80, 0x78, 0x08, 0x02, 0x05
"""FOV; DPRY, DCRT, STPF and IP; IP alone; IMMED; the rest: byte 1 of the parameter list header."""

_DEFAULT_PATTERN, _REPEATED_PATTERN = 0x00, 0x01
"""INITIALIZATION PATTERN TYPE."""


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Options of the parameter list."""

    immed: bool = False
    pattern: bytes = b""


def format_unit(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """FORMAT UNIT: SBC-4; a fast format is the same, since writing zeroes is quick."""
    if cdb["ffmt"] > _FAST:
        raise cdb.invalid("ffmt")
    parameters = _parse(lu, cdb, buffer) if cdb["fmtdata"] else _Parameters()
    erasure = Erasure(
        running=Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS,
        failure=Asc.FORMAT_COMMAND_FAILED,
        total=lu.geometry.size,
    )
    if parameters.pattern:
        work = overwrite(lu, erasure, parameters.pattern)
    else:
        work = zero(lu, erasure, may_unmap=lu.capabilities.unmap)
    return erase(lu, erasure, work, immed=parameters.immed)


def _parse(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> _Parameters:
    """Decode the parameter list (SBC-4 "FORMAT UNIT parameter list")."""
    size = 8 if cdb["longlist"] else 4
    if buffer.length < size:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    header = buffer.gather(0, size)
    options = header[1]
    if header[0]:  # PROTECTION FIELD USAGE
        raise invalid_parameter(0)
    if options & _RESERVED or (options & _OPTIONS and not options & _OPTIONS_VALID):
        raise invalid_parameter(1)
    for byte in range(2, size):  # DEFECT LIST LENGTH, and in the long header P_I_INFORMATION
        if header[byte]:
            raise invalid_parameter(byte)
    pattern = _parse_pattern(lu, buffer, size) if options & _PATTERN else b""
    return _Parameters(immed=bool(options & _IMMED), pattern=pattern)


def _parse_pattern(lu: LogicalUnit, buffer: Buffer, at: int) -> bytes:
    """Decode the initialization pattern descriptor at byte `at`; an empty pattern selects the default."""
    if buffer.length < at + 4:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    modifier, kind, high, low = buffer.gather(at, 4)
    length = high << 8 | low
    if modifier:  # SECURITY INITIALIZE
        raise invalid_parameter(at)
    if kind not in (_DEFAULT_PATTERN, _REPEATED_PATTERN):
        raise invalid_parameter(at + 1)
    if (kind == _REPEATED_PATTERN) != (0 < length <= lu.block_size):
        raise invalid_parameter(at + 2)
    if buffer.length < at + 4 + length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    return buffer.gather(at + 4, length)
