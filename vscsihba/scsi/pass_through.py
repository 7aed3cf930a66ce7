"""A logical unit that answers nothing itself: every command goes to the device behind, as it is.

What the device is, and what its answers mean, is its own affair and the initiator's. Known
here is only which commands may be sent to it twice.
"""

from vscsihba.block import Buffer, Execute, Executed
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.cdb import lookup
from vscsihba.scsi.faults import sense_of
from vscsihba.scsi.logical_unit import LogicalUnit
from vscsihba.scsi.response import Response, Status, Steps
from vscsihba.scsi.sense import Sense, SenseKey

_REPEATABLE = frozenset(
    {
        0x00,  # TEST UNIT READY
        0x12,  # INQUIRY
        0x1A,  # MODE SENSE(6)
        0x25,  # READ CAPACITY(10)
        0x28,  # READ(10)
        0x2A,  # WRITE(10)
        0x35,  # SYNCHRONIZE CACHE(10)
        0x4D,  # LOG SENSE
        0x5A,  # MODE SENSE(10)
        0x88,  # READ(16)
        0x8A,  # WRITE(16)
        0x9E,  # READ CAPACITY(16) and other questions
        0xA0,  # REPORT LUNS
        0xA8,  # READ(12)
        0xAA,  # WRITE(12)
    }
)
"""Operation codes that do no harm when a crash leaves in doubt whether the device has had them, and
that mean the same to every kind of device. WRITE(6) is not one: a tape has it.
(On a tape, 91h moves.)"""


class PassThroughUnit(LogicalUnit):
    """A logical unit whose device answers for itself."""

    def execute(self, cdb: bytes, buffer: Buffer) -> Steps:
        """Pass one command on, and bring its answer back."""
        row = lookup(cdb)
        operation = Execute(cdb, buffer.views)
        try:
            answer = yield operation
            assert isinstance(answer, Executed)  # noqa: S101 - it is what `Execute` is answered with
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

    def repeatable(self, cdb: bytes) -> bool:
        """Tell whether a command may be sent to any device twice."""
        return cdb[:1] != b"" and cdb[0] in _REPEATABLE

    def caches(self, cdb: bytes) -> bool:  # noqa: ARG002 - whatever it is
        """Tell that nothing is known of the device's cache."""
        return False

    def refresh(self) -> None:
        """Leave no short cut open."""
        super().refresh()
        self.clear_road = False
