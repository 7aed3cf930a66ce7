"""One row of the opcode table, and a CDB that has been matched with its row.

Knows how a command is described and decoded, not which commands there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.features import Feature
from vscsihba.scsi.layout import Layout
from vscsihba.scsi.sense import CheckCondition, FieldPointer, illegal_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.block import Buffer
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Response, Steps

    Run = Callable[[LogicalUnit, "Cdb", Buffer], Response | Steps]
    """A command: answers at once, or yields block operations first."""


class Data(Enum):
    """Which way a command's data goes, seen from the initiator."""

    NONE = auto()
    IN = auto()
    OUT = auto()


class MediumAccess(Enum):
    """What a command wants of the medium."""

    UNTOUCHED = auto()
    READY = auto()
    WRITABLE = auto()
    REPLACED = auto()
    """As WRITABLE, but its contents need not be valid: they are replaced."""


class Tally(Enum):
    """The counter of `LunStats` that a command belongs to."""

    READS = auto()
    WRITES = auto()
    OTHERS = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """A command that a logical unit understands.

    Attributes:
        opcode: OPERATION CODE.
        service_action: SERVICE ACTION; None if the operation code has none.
        name: T10's name.
        length: Bytes of the CDB.
        fields: The CDB's fields, in the notation of `vscsihba.scsi.layout`.
        run: The command function.
        data: Direction of its data.
        medium: What it wants of the medium.
        needs: What the logical unit must have, for the command to be there at all.
        exclusive: Must not overlap any other command on the logical unit.
        starts_alone: Must not overlap any command that began before it; those that come after are
            refused by the unit's state.
        idempotent: Running it twice does no harm (a crash may leave that in doubt).
        allowed_with_unit_attention: It runs while a unit attention is pending (SAM-5 "Unit attention
            conditions").
        allowed_during_format: It runs during a format or sanitize, and after one has failed (SBC-4
            "Commands allowed during sanitize").
        tally: The counter it belongs to.
    """

    opcode: int
    service_action: int | None
    name: str
    length: int
    fields: str
    run: Run
    data: Data = Data.NONE
    medium: MediumAccess = MediumAccess.UNTOUCHED
    needs: Feature = Feature.ALWAYS
    exclusive: bool = False
    starts_alone: bool = False
    idempotent: bool = True
    allowed_with_unit_attention: bool = False
    allowed_during_format: bool = False
    tally: Tally = Tally.OTHERS
    layout: Layout = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the layout, the service action's field included."""
        text = self.fields
        if self.service_action is not None:
            text = f"{service_action_field(self.opcode)} {text}"
        object.__setattr__(self, "layout", Layout(text, self.length))

    @property
    def usage_data(self) -> bytes:
        """CDB USAGE DATA (SPC-5 "One_command parameter data"): codes as they are, masks elsewhere."""
        usage = self.layout.with_value(self.layout.usage, "operation_code", self.opcode)
        if self.service_action is not None:
            usage = self.layout.with_value(usage, "service_action", self.service_action)
        if self.opcode == VARIABLE_LENGTH:
            usage = self.layout.with_value(usage, "additional_cdb_length", self.length - 8)
        return usage.to_bytes(self.length, "big")


NAMING_FIELDS = ("operation_code", "service_action", "additional_cdb_length")
"""The fields that say which command a CDB is, not what it asks for."""

VARIABLE_LENGTH = 0x7F
"""The operation code whose CDBs say themselves how long they are."""


def service_action_field(opcode: int) -> str:
    """Return where `opcode` has its service action (SPC-5 "The SERVICE ACTION field")."""
    if opcode == VARIABLE_LENGTH:
        return "additional_cdb_length=7 service_action=8-9"
    return "service_action=1.4-1.0"


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
