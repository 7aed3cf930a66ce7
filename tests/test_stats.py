"""Counters of a logical unit."""

from vscsihba.stats import LunStats


def test_counters_begin_at_zero() -> None:
    assert set(LunStats().snapshot().values()) == {0}


def test_snapshot_names_every_counter() -> None:
    assert list(LunStats().snapshot()) == list(LunStats.__slots__)


def test_snapshot_does_not_follow() -> None:
    stats = LunStats()
    before = stats.snapshot()
    stats.reads += 1
    stats.read_bytes += 4096
    assert (before["reads"], stats.snapshot()["reads"], stats.snapshot()["read_bytes"]) == (0, 1, 4096)
