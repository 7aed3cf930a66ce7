"""The logical units of one HBA that this engine serves, as they see each other: for copies between them.

Changed and read on the pump's thread only.
"""

from dataclasses import dataclass, field

from vscsihba.handlers.base import Handler
from vscsihba.scsi import LogicalUnit


@dataclass(slots=True)
class Neighbours:
    """Who is there, by LUN.

    Attributes:
        units: The units' SCSI state.
        media: Their open media.
    """

    units: dict[int, LogicalUnit] = field(default_factory=dict)
    media: dict[int, Handler] = field(default_factory=dict)

    def enter(self, lun: int, unit: LogicalUnit, medium: Handler) -> None:
        """Let the others see a unit, and it the others."""
        self.units[lun], self.media[lun] = unit, medium
        unit.peers = self.units

    def leave(self, lun: int) -> None:
        """Let nobody see a unit any more."""
        self.units.pop(lun, None)
        self.media.pop(lun, None)
