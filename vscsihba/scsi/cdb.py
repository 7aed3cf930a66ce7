"""Decoded CDBs, and decoding: every input gives a decoded CDB or is refused.

The transport may leave stale bytes after a CDB (a ring rounds up to 8 bytes): the
table knows where a CDB ends. Knows the table's keys, not what a command does.
"""

from collections.abc import Collection

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.command import VARIABLE_LENGTH, Command
from vscsihba.scsi.opcodes import SERVICE_ACTIONS, TABLE
from vscsihba.scsi.sense import CheckCondition, FieldPointer, illegal_request

_WITHOUT_SERVICE_ACTION = [TABLE.get((opcode, None)) for opcode in range(0x100)]
"""The rows without a service action, by operation code."""


class Cdb:
    """A decoded CDB: its row of the table and the values of its fields.

    Attributes:
        command: Its row.
        whole: The CDB as a number, its first byte the most significant.
    """

    __slots__ = ("_places", "command", "whole")

    def __init__(self, command: Command, cdb: bytes) -> None:
        self.command = command
        self.whole = int.from_bytes(cdb[: command.length], "big")
        self._places = command.layout.places

    def __getitem__(self, name: str) -> int:
        """Return the value of a field.

        Raises:
            KeyError: The layout has no such field.
        """
        shift, ones = self._places[name]
        return self.whole >> shift & ones

    def get(self, name: str) -> int:
        """Return the value of a field, 0 if this CDB has no such field: READ(6) has no FUA."""
        return self[name] if name in self._places else 0

    def invalid(self, name: str) -> CheckCondition:
        """Return INVALID FIELD IN CDB, pointing at the field."""
        place = self.command.layout.fields[name]
        return illegal_request(Asc.INVALID_FIELD_IN_CDB, FieldPointer(place.byte, place.bit_pointer))

    def check_reserved(self) -> None:
        """Check that all fields and bits that must be zero are zero.

        Raises:
            CheckCondition: INVALID FIELD IN CDB, pointing at the first that is not.
        """
        place = self.command.layout.first_reserved(self.whole)
        if place is not None:
            raise illegal_request(Asc.INVALID_FIELD_IN_CDB, FieldPointer(*place))


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
