"""Latencies as an engine measures them: each command once, whatever its path."""

import time

import pytest

from tests.engine.rig import Rig
from tests.engine.slow import FLUSH, Slow
from vscsihba import latency
from vscsihba.handlers.stack import Document
from vscsihba.latency import BatchLatency, Latencies
from vscsihba.stats import LunStats, Tally


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_a_timed_batch_stands_for_those_since_the_last_one(clock: Clock) -> None:
    stats, latencies, kept = LunStats(reads=70, writes=7), Latencies(), []
    batch = BatchLatency(stats, latencies, lambda: kept.append(stats.reads))
    stats.reads, stats.writes = 75, 8
    latencies.add(Tally.READS, 2.0)  # one of the five went by the slow path
    batch.begin()
    clock.now += 0.001
    batch.end()
    measured = latencies.snapshot()
    assert (measured["reads"].count, measured["writes"].count, measured["others"].count) == (5, 1, 0)
    assert measured["reads"].cumulative([0.0011]) == [4]
    assert measured["reads"].quantile(1) == pytest.approx(2.0, rel=0.03)
    assert kept == [75]
    batch.begin()
    clock.now += 5
    batch.end()  # nothing since then
    assert latencies.snapshot() == measured


def test_a_failed_command_counts_among_the_others_once(clock: Clock) -> None:
    stats, latencies = LunStats(), Latencies()
    batch = BatchLatency(stats, latencies, lambda: None)
    stats.errors += 2
    latencies.add(Tally.OTHERS, 0.5)  # one of them has waited
    batch.begin()
    batch.end()
    batch.begin()
    batch.end()
    assert [each.count for each in latencies.snapshot().values()] == [0, 0, 2]


@pytest.mark.parametrize(
    "document",
    [
        {"handler": "memory", "size": "1MiB"},
        {"handler": "delay", "seconds": 0, "next": {"handler": "memory", "size": "1MiB"}},
    ],
    ids=["inline", "on a thread"],
)
def test_every_command_is_measured_once_on_every_path(document: Document) -> None:
    with Rig(document) as rig:
        while rig.run(bytes(6)).status:  # unit attentions
            pass
        for lba in range(40):
            assert rig.read(lba, 1).status == 0
            assert rig.write(lba, bytes(512)).status == 0
            assert rig.write(lba, bytes(512), flags=0x08).status == 0  # FUA: the slow path
        rig.run(FLUSH)
        for _ in range(latency._SOME + 1):  # one of these is timed
            rig.run(bytes(6))
        counted, measured = rig.stats.snapshot(), rig.served.latencies.snapshot()
    assert (counted["reads"], counted["writes"]) == (40, 80)
    assert (measured["reads"].count, measured["writes"].count) == (40, 80)
    assert counted["others"] + counted["errors"] - measured["others"].count in range(latency._SOME + 1)


def test_a_flush_that_waits_is_longer_than_one_that_does_not() -> None:
    handler = Slow()
    with Rig(handler=handler) as rig:
        while rig.run(bytes(6)).status:
            pass
        before = rig.served.latencies.snapshot()["others"]
        tag = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)
        began = time.monotonic()
        while time.monotonic() - began < 0.05:
            assert rig.read(0, 1).status == 0
        handler.gate.set()
        rig.loopback.wait(tag)
        rig.run(bytes(6))
        measured = rig.served.latencies.snapshot()
    longest = measured["others"].since(before).quantile(1)
    assert longest is not None
    assert longest >= 0.05 * 0.97


def test_all_batches_are_timed_where_few_follow_each_other(clock: Clock) -> None:
    stats = LunStats()
    batch = BatchLatency(stats, Latencies(), lambda: None)

    def timed(pause: float, batches: int) -> int:
        count = 0
        for _ in range(batches):
            clock.now += pause
            if not stats.batches & batch.mask:
                count += 1
                batch.begin()
                batch.end()
            stats.batches += 1
        return count

    assert timed(0.01, 16) == 16
    assert timed(0.00001, 160) in range(20, 23)
    assert timed(0.01, 16) >= 16 - 8
    assert timed(0.01, 16) == 16
