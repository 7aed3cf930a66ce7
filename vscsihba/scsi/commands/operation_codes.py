"""REPORT SUPPORTED OPERATION CODES: the opcode table in T10's format."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vscsihba.scsi.response import Response, data_in

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.command import Command
    from vscsihba.scsi.logical_unit import LogicalUnit

ALL, BY_OPCODE, BY_SERVICE_ACTION, BY_EITHER = range(4)
"""REPORTING OPTIONS, SPC-5 "REPORT SUPPORTED OPERATION CODES command"."""

_UNSUPPORTED, _SUPPORTED = 0b001, 0b011
"""SUPPORT: not supported, or supported as in the standard."""


def report_supported_operation_codes(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """REPORT SUPPORTED OPERATION CODES: SPC-5, with all reporting options and timeouts descriptors."""
    timeouts = bool(cdb["rctd"])
    if cdb["reporting_options"] == ALL:
        payload = _all_commands(lu, timeouts=timeouts)
    else:
        payload = _one_command(_requested(lu, cdb), timeouts=timeouts)
    return data_in(buffer, payload, cdb["allocation_length"])


def _all_commands(lu: LogicalUnit, *, timeouts: bool) -> bytes:
    """Return the all_commands parameter data."""
    body = b""
    for command in lu.table.values():
        flags = 0x02 * timeouts | (command.service_action is not None)  # CTDP, SERVACTV
        body += struct.pack(">BxHxBH", command.opcode, command.service_action or 0, flags, command.length)
        if timeouts:
            body += _timeouts_descriptor(command)
    return len(body).to_bytes(4, "big") + body


def _requested(lu: LogicalUnit, cdb: Cdb) -> Command | None:
    """Return the requested command, None if it is not supported.

    Raises:
        CheckCondition: The reporting option does not fit the operation code.
    """
    opcode, service_action = cdb["requested_operation_code"], cdb["requested_service_action"]
    rows = {row.service_action: row for row in lu.table.values() if row.opcode == opcode}
    has_service_actions = bool(rows) and None not in rows
    match cdb["reporting_options"]:
        case 1 if has_service_actions:
            raise cdb.invalid("requested_operation_code")
        case 2 if rows and not has_service_actions:
            raise cdb.invalid("requested_operation_code")
        case 1:
            return rows.get(None)
        case 2:
            return rows.get(service_action)
        case 3 if has_service_actions:
            return rows.get(service_action)
        case 3:
            return rows.get(None) if service_action == 0 else None
        case _:
            raise cdb.invalid("reporting_options")


def _one_command(command: Command | None, *, timeouts: bool) -> bytes:
    """Return the one_command parameter data."""
    if command is None:
        return bytes([0, _UNSUPPORTED, 0, 0])
    data = struct.pack(">xBH", 0x80 * timeouts | _SUPPORTED, command.length) + command.usage_data
    return data + _timeouts_descriptor(command) if timeouts else data


def _timeouts_descriptor(_command: Command) -> bytes:
    """Return a command timeouts descriptor without values: the time of the storage is unknown."""
    return struct.pack(">HxBII", 10, 0, 0, 0)
