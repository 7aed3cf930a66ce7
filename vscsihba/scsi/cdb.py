"""Decoding: every input gives a decoded CDB or is refused.

The transport may leave stale bytes after a CDB (a ring rounds up to 8 bytes): the
table knows where a CDB ends. Knows the table's keys, not what a command does.
"""

from collections.abc import Collection

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.command import VARIABLE_LENGTH, Cdb, Command
from vscsihba.scsi.opcodes import SERVICE_ACTIONS, TABLE
from vscsihba.scsi.sense import CheckCondition, FieldPointer, illegal_request

_WITHOUT_SERVICE_ACTION = [TABLE.get((opcode, None)) for opcode in range(0x100)]
"""The rows without a service action, by operation code."""


def lookup(cdb: bytes) -> Command | None:
    """Return the row of the table that `cdb` begins with, None if there is none."""
    if not cdb:
        return None
    if cdb[0] in SERVICE_ACTIONS:
        return TABLE.get((cdb[0], service_action(cdb)))
    return _WITHOUT_SERVICE_ACTION[cdb[0]]


def service_action(cdb: bytes) -> int:
    """Return the service action of a CDB whose operation code has some."""
    if cdb[0] == VARIABLE_LENGTH:
        return int.from_bytes(cdb[8:10], "big")
    return cdb[1] & 0x1F if len(cdb) > 1 else 0


def decode(cdb: bytes, row: Command | None, offered: Collection[Command]) -> Cdb:
    """Decode `cdb` by its row of the table, and check what every command has in common.

    Args:
        cdb: The command descriptor block; bytes after its end are ignored.
        row: From `lookup`.
        offered: The rows that the unit has.

    Raises:
        CheckCondition: The command is unknown, cut short, or sets bits that must be zero.
    """
    if row is None or row not in offered:
        raise _unknown(cdb, offered)
    if len(cdb) < row.length:
        raise illegal_request(Asc.INVALID_FIELD_IN_CDB, FieldPointer(len(cdb)))
    decoded = Cdb(row, cdb)
    if row.opcode == VARIABLE_LENGTH and decoded["additional_cdb_length"] != row.length - 8:
        raise decoded.invalid("additional_cdb_length")
    if decoded.whole & row.layout.reserved:
        decoded.check_reserved()
    return decoded


def _unknown(cdb: bytes, offered: Collection[Command]) -> CheckCondition:
    """Return the refusal: an unknown service action, or an unknown operation code (SPC-5 "CDB usage")."""
    if not any(row.opcode == cdb[0] for row in offered if cdb):
        return illegal_request(Asc.INVALID_COMMAND_OPERATION_CODE)
    place = FieldPointer(8) if cdb[0] == VARIABLE_LENGTH else FieldPointer(1, 4)
    return illegal_request(Asc.INVALID_FIELD_IN_CDB, place)
