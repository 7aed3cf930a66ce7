"""What a logical unit counts for its log pages, beyond the transfers that `LunStats` counts.

Knows what happened, not how a log page shows it.
"""

from dataclasses import dataclass, fields

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import Sense, SenseKey
from vscsihba.stats import LunStats


@dataclass(slots=True)
class Counters:
    """Events since the unit's engine began, or since LOG SELECT cleared them.

    Attributes:
        read_errors: Reads that lost data.
        write_errors: Writes that were lost.
        verify_errors: Verifications that found data lost.
        verified_bytes: Bytes that were compared or read for a verification.
        other_errors: Failures that were not the medium's.
        start_stop_cycles: Stops asked for.
        load_cycles: Media loaded.
    """

    read_errors: int = 0
    write_errors: int = 0
    verify_errors: int = 0
    verified_bytes: int = 0
    other_errors: int = 0
    start_stop_cycles: int = 0
    load_cycles: int = 0

    def note(self, sense: Sense, *, verifying: bool) -> None:
        """Count a condition that ended a command; `verifying`: the command was to verify."""
        if sense.key is SenseKey.MEDIUM_ERROR:
            if sense.asc is Asc.WRITE_ERROR:
                self.write_errors += 1
            elif verifying:
                self.verify_errors += 1
            else:
                self.read_errors += 1
        elif sense.key in (SenseKey.HARDWARE_ERROR, SenseKey.ABORTED_COMMAND):
            self.other_errors += 1


def difference(now: LunStats, before: LunStats) -> LunStats:
    """Return what has been counted between two moments."""
    counts = {one.name: getattr(now, one.name) - getattr(before, one.name) for one in fields(LunStats)}
    return LunStats(**counts)
