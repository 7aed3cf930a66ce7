"""The file in which counters and latencies of a LUN survive their engine."""

import os
from pathlib import Path

import pytest

from vscsihba.engine.owning import stats_file
from vscsihba.engine.owning.stats_file import StatsFile
from vscsihba.stats import LunStats, Tally


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lun0.stats"


def opened(path: Path) -> StatsFile:
    made = StatsFile(0, path)
    made.open()
    return made


def test_a_new_lun_begins_with_zeroes(path: Path) -> None:
    made = opened(path)
    assert made.stats == LunStats()
    assert all(not each.buckets for each in made.latencies.snapshot().values())
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_next_owner_goes_on(path: Path) -> None:
    first = opened(path)
    first.stats.reads, first.stats.write_bytes, first.stats.batches = 3, 1 << 40, 7
    first.latencies.add(Tally.READS, 1e-3, 3)
    first.close()
    second = opened(path)
    assert second.stats == first.stats
    assert second.latencies.snapshot() == first.latencies.snapshot()
    second.latencies.add(Tally.READS, 1e-3)
    assert second.latencies.snapshot()["reads"].count == 4


def test_a_killed_owner_leaves_its_latencies_and_the_counters_that_it_has_kept(path: Path) -> None:
    first = opened(path)
    first.stats.reads = 5
    first.keep()
    first.stats.reads = 6
    first.latencies.add(Tally.READS, 1e-3, 6)
    second = opened(path)  # the first is not closed
    assert second.stats.reads == 5
    assert second.latencies.snapshot()["reads"].count == 6


def test_a_lun_that_is_created_begins_anew(path: Path) -> None:
    first = opened(path)
    first.stats.reads = 5
    first.close()
    first.forget()
    assert opened(path).stats.reads == 0
    StatsFile(1, path.with_name("none")).forget()


@pytest.mark.parametrize("content", [b"", b"vscstats", bytes(40_000), b"x" * stats_file._LENGTH])
def test_a_file_of_another_layout_is_replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    made = opened(path)
    assert made.stats == LunStats()
    assert all(not each.buckets for each in made.latencies.snapshot().values())
    assert path.stat().st_size == stats_file._LENGTH


def test_a_full_file_system_does_not_prevent_that_a_disk_is_served(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    made = opened(path)
    made.latencies.add(Tally.READS, 1e-3)
    made.stats.reads += 1
    made.keep()
    made.close()
    assert "lun 0: its statistics begin anew with this engine" in caplog.text
    assert made.latencies.snapshot()["reads"].count == 1


def test_a_command_that_ends_after_the_close_is_counted_nowhere(path: Path) -> None:
    made = opened(path)
    made.close()
    made.latencies.add(Tally.READS, 1e-3)
    made.keep()
    made.close()
    assert not opened(path).latencies.snapshot()["reads"].buckets
