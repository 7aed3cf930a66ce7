"""From bytes to a command: total, every input gives a decoded CDB or a refusal.

The transport may leave stale bytes after a CDB (a ring rounds up to 8 bytes): the
table knows where a CDB ends. Knows the table's keys, not what a command does.
"""

from collections.abc import Mapping

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.command import VARIABLE_LENGTH, Cdb, Command
from vscsihba.scsi.opcodes import SERVICE_ACTIONS, TABLE
from vscsihba.scsi.sense import CheckCondition, FieldPointer, illegal_request

Table = Mapping[tuple[int, int | None], Command]
"""Commands by operation code and service action."""


def lookup(cdb: bytes, table: Table = TABLE) -> Command | None:
    """Return the row of the table that `cdb` begins with, None if there is none."""
    return table.get((cdb[0], service_action(cdb))) if cdb else None


def service_action(cdb: bytes) -> int | None:
    """Return the service action of a CDB of one byte or more, None if its operation code has none."""
    if cdb[0] not in SERVICE_ACTIONS:
        return None
    if cdb[0] == VARIABLE_LENGTH:
        return int.from_bytes(cdb[8:10], "big")
    return cdb[1] & 0x1F if len(cdb) > 1 else 0


def decode(cdb: bytes, table: Table = TABLE) -> Cdb:
    """Match `cdb` with the table and check what every command has in common.

    Raises:
        CheckCondition: The command is unknown, cut short, or sets bits that must be zero.
    """
    command = lookup(cdb, table)
    if command is None:
        raise _unknown(cdb, table)
    if len(cdb) < command.length:
        raise illegal_request(Asc.INVALID_FIELD_IN_CDB, FieldPointer(len(cdb)))
    decoded = Cdb(command, cdb)
    if command.opcode == VARIABLE_LENGTH and decoded["additional_cdb_length"] != command.length - 8:
        raise decoded.invalid("additional_cdb_length")
    decoded.check_reserved()
    return decoded


def _unknown(cdb: bytes, table: Table) -> CheckCondition:
    """Tell an unknown service action from an unknown operation code (SPC-5 "CDB usage")."""
    if not any(opcode == cdb[0] for opcode, _ in table if cdb):
        return illegal_request(Asc.INVALID_COMMAND_OPERATION_CODE)
    place = FieldPointer(8) if cdb[0] == VARIABLE_LENGTH else FieldPointer(1, 4)
    return illegal_request(Asc.INVALID_FIELD_IN_CDB, place)
