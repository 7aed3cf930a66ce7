"""Commands that Linux's target core completes itself, before they reach a ring.

They are in the opcode table so that REPORT SUPPORTED OPERATION CODES lists them;
a unit without a target core in front does not have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import illegal_request

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Response


def handled_by_target_core(_lu: LogicalUnit, _cdb: Cdb, _buffer: Buffer) -> Response:
    """Refuse a command that the target core should have completed (drivers/target/target_core_device.c)."""
    raise illegal_request(Asc.INVALID_COMMAND_OPERATION_CODE)
