"""The logical units of one HBA that this engine serves, as they see each other: for copies between them.

A block operation on another unit's medium is that unit's work (`Visit`): its task set says when it may
begin, and it is waited for when that unit is given up. Changed and read on the pump's thread only.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from vscsihba.block import BlockResult, MediumOp
from vscsihba.scsi import LogicalUnit

Done = Callable[[BlockResult, Exception | None], None]
"""Called once with the result of a block operation, or with the error that it ended with."""

Visit = Callable[[MediumOp, Done], None]
"""Has a unit do a block operation on its own medium, in its turn."""


@dataclass(slots=True)
class UnitsOfHba:
    """The units that are there, by LUN.

    Attributes:
        units: The units' SCSI state.
        visits: What takes operations for them.
    """

    units: dict[int, LogicalUnit] = field(default_factory=dict)
    visits: dict[int, Visit] = field(default_factory=dict)

    def enter(self, lun: int, unit: LogicalUnit, visit: Visit) -> None:
        """Let the others see a unit, and it the others."""
        self.units[lun], self.visits[lun] = unit, visit
        unit.hba_units = self.units

    def leave(self, lun: int) -> None:
        """Let nobody see a unit any more."""
        self.units.pop(lun, None)
        self.visits.pop(lun, None)

    def visit(self, lun: int, operation: MediumOp, done: Done) -> None:
        """Have a block operation done on the medium of a unit; ENOTCONN if it is not (or no longer) here."""
        if (visit := self.visits.get(lun)) is not None:
            visit(operation, done)
        else:
            done(None, OSError(errno.ENOTCONN, f"LUN {lun} is no longer served here"))
