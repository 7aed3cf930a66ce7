"""Counters of a logical unit for its log pages, beyond the transfers that `LunStats` counts.

Does not know how a log page shows them.
"""

from dataclasses import dataclass, field, fields, replace

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.command import Command
from vscsihba.scsi.response import Response, Status
from vscsihba.scsi.sense import Sense, SenseKey
from vscsihba.stats import LunStats, Tally

_CHECK_CONDITION, _READS, _WRITES = Status.CHECK_CONDITION, Tally.READS, Tally.WRITES
"""Once for all commands: to look up a member of an enumeration takes longer than to count."""


@dataclass(slots=True)
class Events:
    """Events since the unit's engine began, or since LOG SELECT cleared them.

    Attributes:
        read_errors: Reads that lost data.
        write_errors: Writes that were lost.
        verify_errors: Verifications that found data lost.
        verified_bytes: Bytes that were compared or read for a verification.
        other_errors: Failures that were not the medium's.
        start_stop_cycles: STOPs requested.
        load_cycles: Media loaded.
    """

    read_errors: int = 0
    write_errors: int = 0
    verify_errors: int = 0
    verified_bytes: int = 0
    other_errors: int = 0
    start_stop_cycles: int = 0
    load_cycles: int = 0


@dataclass(slots=True)
class Counters:
    """All counters of one logical unit.

    Attributes:
        stats: Commands and bytes; shared with the engine, and never cleared.
        events: Errors and other events.
    """

    stats: LunStats
    events: Events = field(default_factory=Events)
    _cleared_at: LunStats = field(default_factory=LunStats)

    def ended(self, command: Command | None, response: Response) -> None:
        """Count a command that has ended."""
        stats = self.stats
        if command is None or response.status is _CHECK_CONDITION:
            stats.errors += 1
        elif command.tally is _READS:
            stats.reads += 1
        elif command.tally is _WRITES:
            stats.writes += 1
        else:
            stats.others += 1

    def failed(self, command: Command | None, sense: Sense) -> None:
        """Count the condition that ended a command."""
        if sense.key is SenseKey.MEDIUM_ERROR:
            if sense.asc is Asc.WRITE_ERROR:
                self.events.write_errors += 1
            elif command is not None and "VERIFY" in command.name:
                self.events.verify_errors += 1
            else:
                self.events.read_errors += 1
        elif sense.key in (SenseKey.HARDWARE_ERROR, SenseKey.ABORTED_COMMAND):
            self.events.other_errors += 1

    def traffic(self) -> LunStats:
        """Return commands and bytes since LOG SELECT cleared the counters."""
        now, before = self.stats, self._cleared_at
        return LunStats(
            **{one.name: getattr(now, one.name) - getattr(before, one.name) for one in fields(now)}
        )

    def clear(self) -> None:
        """Let the log pages count from zero; `stats` itself goes on, since the engine shares it."""
        self.events = Events()
        self._cleared_at = replace(self.stats)
