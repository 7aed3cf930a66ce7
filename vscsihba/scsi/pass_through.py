"""Pass-through unit: every command goes to the device behind it, unchanged but for the LUN of SCSI-2.

Does not know what the commands and responses of the device mean, only which commands may be sent to it twice.
"""

from vscsihba.block import Buffer, Execute, Executed
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.cdb import lookup
from vscsihba.scsi.command import Command
from vscsihba.scsi.faults import sense_of
from vscsihba.scsi.logical_unit import LogicalUnit
from vscsihba.scsi.response import Response, Status, Steps
from vscsihba.scsi.sense import Sense, SenseKey

_DISKS = frozenset({0x00, 0x0E, 0x14})
"""PERIPHERAL DEVICE TYPEs of disks, whose blocks can be written any number of times (SPC-5 "INQUIRY")."""
_IDEMPOTENT = frozenset(
    {
        0x00,  # TEST UNIT READY
        0x12,  # INQUIRY
        0x1A,  # MODE SENSE(6)
        0x5A,  # MODE SENSE(10)
        0xA0,  # REPORT LUNS
    }
)
"""Operation codes that may be sent twice to any device."""
_IDEMPOTENT_BY_DISKS = _IDEMPOTENT | {
    0x08,  # READ(6)
    0x0A,  # WRITE(6)
    0x25,  # READ CAPACITY(10)
    0x28,  # READ(10)
    0x2A,  # WRITE(10)
    0x35,  # SYNCHRONIZE CACHE(10)
    0x4D,  # LOG SENSE
    0x88,  # READ(16)
    0x8A,  # WRITE(16)
    0x91,  # SYNCHRONIZE CACHE(16)
    0x9E,  # READ CAPACITY(16) and other queries
    0xA8,  # READ(12)
    0xAA,  # WRITE(12)
}
"""Operation codes that may be sent twice to a disk. A tape moves with each READ and WRITE of any
length, and with 91h; a burner and a write-once disk write a block once; LOG SENSE clears flags of tapes
and changers."""
_SHORTEST = 6
"""Bytes of the shortest CDB."""
_LOG_SENSE, _TAPE_ALERT = 0x4D, 0x2E
"""Reading the TapeAlert page clears it (SSC-5 "TapeAlert log page")."""


_INQUIRY, _SCSI_2_LUN = 0x12, 0xE0


def _without_lun(cdb: bytes) -> bytes:
    """Return a CDB without the number of this LUN, which Linux puts into its first INQUIRY.

    The device has another number (SCSI-2 "LOGICAL UNIT NUMBER"; drivers/scsi/scsi_scan.c, lun_in_cdb).
    """
    if cdb[:1] == bytes([_INQUIRY]) and len(cdb) >= _SHORTEST and cdb[1] & _SCSI_2_LUN:
        return bytes([_INQUIRY, cdb[1] & ~_SCSI_2_LUN, *cdb[2:]])
    return cdb


class PassThroughUnit(LogicalUnit):
    """A logical unit that passes every command to its device."""

    def execute(self, cdb: bytes, buffer: Buffer, row: Command | None = None) -> Steps:
        """Pass one command to the device; return its response."""
        row = row or lookup(cdb)
        operation = Execute(_without_lun(cdb), buffer.views)
        try:
            answer = yield operation
            assert isinstance(answer, Executed)  # noqa: S101 - the result of `Execute`
            response = Response(Status(answer.status), answer.sense, answer.data_in)
        except OSError as fault:
            sense = sense_of(fault, operation, self.block_size)
            self.counters.failed(row, sense)
            response = Response(Status.CHECK_CONDITION, sense.encode(), 0)
        except ValueError:
            sense = Sense(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
            response = Response(Status.CHECK_CONDITION, sense.encode(), 0)
        self.counters.ended(row, response)
        return response

    def idempotent(self, cdb: bytes, row: Command | None = None) -> bool:  # noqa: ARG002 - that of a disk
        """Return whether a command may be sent to a device of this type twice."""
        if len(cdb) < _SHORTEST or (cdb[0] == _LOG_SENSE and cdb[2] & 0x3F == _TAPE_ALERT):
            return False
        is_disk = self.capabilities.device_type in _DISKS
        return cdb[0] in (_IDEMPOTENT_BY_DISKS if is_disk else _IDEMPOTENT)

    def caches(self, cdb: bytes) -> bool:  # noqa: ARG002 - for any command
        """Return False: the cache of the device is unknown."""
        return False

    def refresh(self) -> None:
        """Keep the fast path closed."""
        super().refresh()
        self.fast_path_clear = False
