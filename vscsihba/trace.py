"""Trace: one record of each SCSI command.

The engine makes the records, a sink prints or stores them. Without a sink no record is
made, so a trace that is off costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """One finished command.

    Attributes:
        lun: Logical unit number.
        name: T10's name of the command, such as ``READ(10)``.
        cdb: The command descriptor block as received.
        detail: Fields of the CDB, such as ``lba=2048 blocks=8``.
        status: T10's name of the SCSI status, such as ``GOOD``.
        sense: T10's words for the sense data, empty with GOOD.
        length: Bytes of the data buffer.
        seconds: From fetch to completion.
    """

    lun: int
    name: str
    cdb: bytes
    detail: str
    status: str
    sense: str
    length: int
    seconds: float

    def __str__(self) -> str:
        """Return the record as one line."""
        parts = [
            f"lun={self.lun}",
            self.name,
            self.detail,
            self.status,
            self.sense,
            f"{self.seconds * 1e3:.3f} ms",
        ]
        return " ".join(part for part in parts if part)


TraceSink = Callable[[TraceRecord], None]
