"""Rows of the opcode table.

Knows how a command is described, not which commands exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from vscsihba.scsi.features import Feature
from vscsihba.scsi.layout import Layout
from vscsihba.stats import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Response, Steps

    Run = Callable[[LogicalUnit, Cdb, Buffer], Response | Steps]
    """A command function: returns its response, or a generator that yields block operations first."""


class Data(Enum):
    """Direction of a command's data, as the initiator sees it."""

    NONE = auto()
    IN = auto()
    OUT = auto()


class MediumAccess(Enum):
    """State of the medium that a command requires."""

    UNTOUCHED = auto()
    READY = auto()
    WRITABLE = auto()
    REPLACED = auto()
    """As WRITABLE; the contents may be invalid, since the command replaces them."""


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
        medium: State of the medium that it requires.
        needs: Feature without which a logical unit does not have the command.
        exclusive: It must not overlap any other command on the logical unit.
        starts_alone: It must not overlap any command that began before it; later ones are
            refused by the unit's state.
        idempotent: Running it twice does no harm: after a crash it is not known whether it has run.
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
        """Parse the layout, including the field of the service action."""
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
"""Fields that identify the command; all others are its parameters."""

VARIABLE_LENGTH = 0x7F
"""Operation code of the CDBs that carry their own length."""


def service_action_field(opcode: int) -> str:
    """Return the layout of the service action of `opcode` (SPC-5 "The SERVICE ACTION field")."""
    if opcode == VARIABLE_LENGTH:
        return "additional_cdb_length=7 service_action=8-9"
    return "service_action=1.4-1.0"
