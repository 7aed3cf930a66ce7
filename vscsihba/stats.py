"""Counters of one logical unit: plain integers that only the serving thread changes.

Any thread may read them at any time: a reader can see a command counted whose bytes
are not yet counted, which a person watching a table never notices.
"""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class LunStats:
    """What a logical unit has done since its engine took it over.

    Attributes:
        reads: READ commands completed with GOOD.
        read_bytes: Bytes they moved.
        writes: WRITE commands completed with GOOD.
        write_bytes: Bytes they moved.
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

    def snapshot(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)
