"""One event of a trace, and the parts of its command."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vscsihba import scsi
from vscsihba.handlers.sg.cdb import length_of
from vscsihba.records import Kind, Record
from vscsihba.scsi.cdb import Cdb

_DISKS: Final = frozenset({0x00, 0x0E, 0x14})
"""PERIPHERAL DEVICE TYPEs whose commands are those of the opcode table (SPC-5 "INQUIRY")."""


@dataclass(frozen=True)
class Seen:
    """An event of a LUN, in most cases a finished command.

    Attributes:
        hba: 0..255.
        time: Time of its arrival, in seconds since 1970.
        record: The engine's record of it.
        device_type: PERIPHERAL DEVICE TYPE of the LUN.
    """

    hba: int
    time: float
    record: Record
    device_type: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """The LUN, as the id of the HBA and its number there."""
        return self.hba, self.record.lun

    @property
    def is_command(self) -> bool:
        """Whether it is a finished command."""
        return self.record.kind is Kind.COMMAND

    @cached_property
    def row(self) -> scsi.Command | None:
        """The command's row of the opcode table; None if the device is no disk and has other commands."""
        row = scsi.lookup(self.record.cdb)
        if row is None or self.device_type in _DISKS or row.medium is scsi.MediumAccess.UNTOUCHED:
            return row
        return None

    @cached_property
    def cdb(self) -> bytes:
        """The CDB in its own length."""
        cdb = self.record.cdb
        return cdb[: self.row.length] if self.row else cdb[: length_of(cdb) if cdb else 0]

    @cached_property
    def described(self) -> tuple[str, str]:
        """T10's name of the command, and its fields as text; those of an unknown command as bytes."""
        if self.row is not None or not self.cdb:
            return scsi.describe(self.cdb)
        return f"opcode {self.cdb[0]:02X}h", self.cdb[1:].hex(" ")

    @property
    def name(self) -> str:
        """T10's name of the command."""
        return self.described[0]

    @cached_property
    def blocks(self) -> tuple[int, int] | None:
        """The LBA and the number of blocks of the command, None if it has no LBA."""
        if self.row is None or "lba" not in self.row.layout.fields:
            return None
        decoded = Cdb(self.row, self.cdb.ljust(self.row.length, b"\0"))
        return decoded["lba"], decoded.get("blocks")

    @property
    def sense(self) -> str:
        """The sense data as text, empty if there is none."""
        return scsi.describe_sense(self.record.sense)

    @property
    def status(self) -> str:
        """T10's name of the status."""
        return scsi.status_name(self.record.status)

    @property
    def queued(self) -> float | None:
        """Seconds from its arrival until it was allowed to begin; None if unknown."""
        record = self.record
        return record.begun - record.arrived if record.begun >= 0 else None

    @property
    def storage(self) -> float | None:
        """Seconds that its storage took; None if unknown."""
        return self.record.storage if self.record.storage >= 0 else None
