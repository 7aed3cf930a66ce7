"""The logical units of one HBA that this engine serves, as they see each other: for copies between them.

A block operation on another unit is that unit's work (`Visit`): its task set decides when the operation may
begin, and the unit is not released before the operation has ended. For the pump's thread only.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from vscsihba.block import BlockResult, MediumOp
from vscsihba.scsi import LogicalUnit

Done = Callable[[BlockResult, Exception | None], None]
"""Called once, with the result of a block operation or its error."""

Visit = Callable[[MediumOp, Done], None]
"""Has a unit do a block operation on its own storage, when its task set allows it."""


@dataclass(slots=True)
class UnitsOfHba:
    """The served units, by LUN.

    Attributes:
        units: SCSI state of each unit.
        visits: Function of each unit that takes its visits.
    """

    units: dict[int, LogicalUnit] = field(default_factory=dict)
    visits: dict[int, Visit] = field(default_factory=dict)

    def enter(self, lun: int, unit: LogicalUnit, visit: Visit) -> None:
        """Add a unit, which sees the others from now on."""
        self.units[lun], self.visits[lun] = unit, visit
        unit.hba_units = self.units

    def leave(self, lun: int) -> None:
        """Remove a unit; without effect if it is not there."""
        self.units.pop(lun, None)
        self.visits.pop(lun, None)

    def visit(self, lun: int, operation: MediumOp, done: Done) -> None:
        """Have a unit do a block operation; `done` gets ENOTCONN if the unit is not served here."""
        if (visit := self.visits.get(lun)) is not None:
            visit(operation, done)
        else:
            done(None, OSError(errno.ENOTCONN, f"LUN {lun} is no longer served by this engine"))
