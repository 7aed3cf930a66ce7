"""Counters of one logical unit: plain integers that only the serving thread changes.

Any thread may read them at any time; a reader may see a command counted before its bytes are.
"""

from dataclasses import asdict, dataclass, fields
from enum import IntEnum


class Tally(IntEnum):
    """The counter of `LunStats`, and the histogram of `vscsihba.latency.KINDS`, that a command belongs to."""

    READS = 0
    WRITES = 1
    OTHERS = 2


@dataclass(slots=True)
class LunStats:
    """Counters of a logical unit since its engine took it over.

    Attributes:
        reads: READ commands completed with GOOD.
        read_bytes: Bytes of these.
        writes: WRITE commands completed with GOOD.
        write_bytes: Bytes of these.
        others: Other commands completed with GOOD.
        errors: Commands completed with any other status.
        waits: Block operations that could not run inline and went to a thread.
        batches: Completion batches published to the initiator.
    """

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0
    others: int = 0
    errors: int = 0
    waits: int = 0
    batches: int = 0

    def clear(self) -> None:
        """Count from zero again; the number of batches goes on, for it names a batch."""
        for counter in fields(self):
            if counter.name != "batches":
                setattr(self, counter.name, 0)

    def snapshot(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)
