"""Latencies of the commands of one logical unit, in log-linear histograms.

A bucket is at most 1/32 of its lower bound wide, so that every latency that is read from a histogram is
within 3 % of the true one. The counts are words of a memory that the owner of the unit provides: it may be a
file that outlives the process. Knows no file.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from vscsihba.stats import LunStats, Tally

_TALLIES: Final = tuple(Tally)
_ALL: Final = 0
_SOME: Final = 7
"""Masks: a batch is timed if its number has none of these bits."""

_BUSY: Final = 0.001
"""Seconds between two batches: where they follow each other more quickly, only some are timed."""

KINDS: Final = ("reads", "writes", "others")
"""The histograms of a unit, in the order of `vscsihba.stats.Tally`."""

_PART: Final = 5
"""Binary digits behind the leading one that a bucket keeps."""
_LONGEST: Final = (1 << 42) - 1
"""Nanoseconds of the longest latency that is told from longer ones: 73 minutes."""


def bucket_of(latency: int) -> int:
    """Return the bucket that a latency in nanoseconds is counted in."""
    latency = min(latency, _LONGEST)
    shift = latency.bit_length() - _PART - 1
    return latency if shift <= 0 else (shift << _PART) + (latency >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Return the nanoseconds from which a bucket counts, and those of the next bucket."""
    shift = max(0, (bucket >> _PART) - 1)
    first = bucket - (shift << _PART)
    return first << shift, (first + 1) << shift


BUCKETS: Final = bucket_of(_LONGEST) + 1
"""Buckets of a histogram."""

SIZE: Final = len(KINDS) * BUCKETS * struct.calcsize("Q")
"""Bytes of the memory of `Latencies`."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """The latencies of one kind of command, at one time.

    Attributes:
        buckets: The count of each bucket that is not empty, in ascending order of buckets.
    """

    buckets: Mapping[int, int]

    @property
    def count(self) -> int:
        """Commands that were counted."""
        return sum(self.buckets.values())

    @property
    def seconds(self) -> float:
        """Sum of the latencies; each counts as the middle of its bucket."""
        return sum(count * _middle(bucket) for bucket, count in self.buckets.items())

    def quantile(self, part: float) -> float | None:
        """Return the seconds within which a part of the commands, 0.0 to 1.0, has ended; None without any."""
        wanted = part * self.count
        for bucket, so_far in zip(self.buckets, accumulate(self.buckets.values()), strict=True):
            if so_far >= wanted:
                return _middle(bucket)
        return None

    def cumulative(self, limits: Sequence[float]) -> list[int]:
        """Return for each of the ascending limits how many commands took at most that many seconds.

        A bucket that reaches beyond a limit counts as longer.
        """
        left = deque(self.buckets.items())
        found, so_far = [], 0
        for limit in limits:
            most = round(limit * 1e9) + 1
            while left and bounds_of(left[0][0])[1] <= most:
                so_far += left.popleft()[1]
            found.append(so_far)
        return found

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return the latencies that were counted after `earlier`, or all if the counts have begun anew."""
        now, before = self.buckets, earlier.buckets
        if any(now.get(bucket, 0) < count for bucket, count in before.items()):
            return self
        left = {bucket: count - before.get(bucket, 0) for bucket, count in now.items()}
        return Histogram({bucket: count for bucket, count in left.items() if count})


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram of all latencies."""
    buckets: dict[int, int] = {}
    for each in histograms:
        for bucket, count in each.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    return Histogram(dict(sorted(buckets.items())))


class Latencies:
    """The histograms of one logical unit. One thread adds to them; any thread reads.

    Args:
        memory: `SIZE` bytes, from which the counts go on; by default all are zero.

    Attributes:
        added: Commands of each kind that this object has counted.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        self.added = [0] * len(KINDS)
        self._words = (memoryview(bytearray(SIZE)) if memory is None else memory).cast("B").cast("Q")

    def add(self, kind: int, seconds: float, count: int = 1) -> None:
        """Count commands of a kind that took `seconds` each."""
        # As `bucket_of`, whose call takes as long again: this runs for every command on the slow path.
        latency = int(seconds * 1e9)
        shift = latency.bit_length() - _PART - 1
        if shift > 0:
            latency = (shift << _PART) + (latency >> shift) if latency < _LONGEST else BUCKETS - 1
        self._words[kind * BUCKETS + latency] += count
        self.added[kind] += count

    def snapshot(self) -> dict[str, Histogram]:
        """Return the histogram of each of `KINDS`."""
        words = self._words.tolist()
        return {
            name: Histogram({b: count for b, count in enumerate(words[kind * BUCKETS :][:BUCKETS]) if count})
            for kind, name in enumerate(KINDS)
        }

    def clear(self) -> None:
        """Count from zero again."""
        self.added[:] = [0] * len(KINDS)
        self._words.cast("B")[:] = bytes(SIZE)

    def release(self) -> None:
        """Let go of the memory; later commands are counted in a copy of it."""
        words, self._words = self._words, memoryview(bytearray(self._words)).cast("Q")
        words.release()


class BatchLatency:
    """Latencies of the commands that end with the batch that they came with; for one thread only.

    To read the clock for each batch would cost a noticeable part of it where many follow each other. Then one
    batch of eight is timed, and stands for those since the one that was timed before it. A command that ends
    after its batch has waited for something: it is measured by itself, where it ends.

    A command that did not end with GOOD counts among the others, as it does in `LunStats`.

    Args:
        stats: Counters of the unit.
        latencies: Its histograms, which have the commands that have ended later already.
        keep: Stores the counters, which it is told to do once in a while.

    Attributes:
        mask: A batch is timed if its number has none of these bits.
    """

    def __init__(self, stats: LunStats, latencies: Latencies, keep: Callable[[], None]) -> None:
        self._stats = stats
        self._latencies = latencies
        self._keep = keep
        self.mask = _ALL
        self._began = 0.0
        self._before = stats.reads, stats.writes, stats.others + stats.errors

    def begin(self) -> None:
        """Note that a batch begins that is timed."""
        now = time.monotonic()
        self.mask = _SOME if now - self._began < _BUSY * (self.mask + 1) else _ALL
        self._began = now

    def end(self) -> None:
        """Count the commands since the last timed batch that have not been counted where they ended."""
        spent, stats = time.monotonic() - self._began, self._stats
        counted = stats.reads, stats.writes, stats.others + stats.errors
        before, added = self._before, self._latencies.added
        for tally in _TALLIES:
            if (count := counted[tally] - before[tally] - added[tally]) > 0:
                self._latencies.add(tally, spent, count)
        self._keep()

    def clear(self) -> None:
        """Begin anew, after counters and histograms were cleared."""
        self._before = 0, 0, 0
        self._keep()


def _middle(bucket: int) -> float:
    """Return the seconds in the middle of a bucket."""
    return (sum(bounds_of(bucket)) - 1) / 2e9
