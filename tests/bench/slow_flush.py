"""A flush that takes 200 ms, and what reads on the same logical unit notice of it."""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass

from tests.engine.rig import Rig
from vscsihba.handlers.stack import Document

FLUSH_SECONDS = 0.2
READS = 200


@dataclass(frozen=True, slots=True)
class SlowFlush:
    """The latencies measured.

    Attributes:
        alone: Microseconds of a 4 KiB read from submission to answer, nothing else under way (median).
        beside: The same while a flush is under way.
        flushes: How many flushes the reads ran beside.
    """

    alone: float
    beside: float
    flushes: int

    @property
    def ratio(self) -> float:
        """How much longer a read takes beside a flush."""
        return self.beside / self.alone


def measure() -> SlowFlush:
    """Read with and without a flush under way, in turns."""
    alone: list[float] = []
    beside: list[float] = []
    flushes = 0
    with tempfile.NamedTemporaryFile() as image, Rig(_slow(image.name)) as rig:
        while len(beside) < READS:
            alone += [_timed_read(rig) for _ in range(20)]
            flush = rig.loopback.submit(bytes([0x35]) + bytes(9))
            until = time.perf_counter() + FLUSH_SECONDS * 0.8
            while time.perf_counter() < until and len(beside) < READS:
                beside.append(_timed_read(rig))
            rig.loopback.wait(flush)
            flushes += 1
    return SlowFlush(statistics.median(alone), statistics.median(beside), flushes)


def _slow(path: str) -> Document:
    """Return a file with a slow flush, made with a size."""
    os.truncate(path, 1 << 20)
    return {
        "handler": "delay",
        "seconds": FLUSH_SECONDS,
        "verbs": ["flush"],
        "next": {"handler": "file", "path": path},
    }


def _timed_read(rig: Rig) -> float:
    before = time.perf_counter()
    answer = rig.read(0, 8)
    if answer.status:
        raise AssertionError(f"a read ended with status {answer.status:#04x}")
    return (time.perf_counter() - before) * 1e6
