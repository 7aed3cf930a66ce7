"""The footprint of a process at one moment, and whether it grows.

Knows /proc only.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Footprint:
    """One sample.

    Attributes:
        resident: KiB of the process in memory, what it shares with the kernel included.
        own: KiB of these that are the process's alone.
        descriptors: Open ones.
        threads: Running ones.
        kernel: KiB of the kernel's slabs that cannot be reclaimed, of the whole machine.
    """

    resident: int
    own: int
    descriptors: int
    threads: int
    kernel: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Take a sample of a process that runs."""
        status = _values(Path(f"/proc/{pid}/status"))
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        kernel = _values(Path("/proc/meminfo"))["SUnreclaim"]
        return cls(status["VmRSS"], status["RssAnon"], descriptors, status["Threads"], kernel)


LIMITS = Footprint(resident=1024, own=1024, descriptors=0, threads=0, kernel=8192)
"""By how much a median may grow and still be called flat: garbage, and what else the machine does."""


def growth(samples: Sequence[Footprint]) -> Footprint:
    """Return by how much the medians of the last third exceed those of the second; the first is warm-up."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return Footprint(
        *(_median(last, field.name) - _median(middle, field.name) for field in fields(Footprint))
    )


def excess(found: Footprint) -> dict[str, int]:
    """Return those growths that are beyond the limits, by name."""
    return {
        field.name: getattr(found, field.name)
        for field in fields(Footprint)
        if getattr(found, field.name) > getattr(LIMITS, field.name)
    }


def _median(samples: Sequence[Footprint], name: str) -> int:
    return int(statistics.median_high(getattr(sample, name) for sample in samples))


def _values(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines ``Name:  number unit``."""
    words = [line.split() for line in path.read_text().splitlines()]
    return {word[0].rstrip(":"): int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}
