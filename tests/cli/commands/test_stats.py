"""stats: counters and latencies, from the service or from the engines."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from vscsihba.cli import machine_state
from vscsihba.cli.main import main
from vscsihba.control.server import ControlServer
from vscsihba.daemon import statistics
from vscsihba.errors import HostError, UsageError
from vscsihba.latency import Latencies
from vscsihba.stats import LunStats, Tally

Capture = pytest.CaptureFixture[str]


def test_each_kind_of_command_is_a_line(running: FakeService, capsys: Capture) -> None:
    assert main(["stats", "hba0/lun1"]) == 0
    assert (
        capsys.readouterr().out
        == """\
          COMMANDS  BYTES    P50      P95      P99      LONGEST
hba0/lun1 d2 /dev/sdb
  reads   1,000     3.9 MiB  11.9 us  11.9 us  11.9 us  11.9 us
  writes  0         0 B      -        -        -        -
  others  8         -        63.4 ms  63.4 ms  63.4 ms  63.4 ms
"""
    )


def test_every_line_fits_into_80_columns(running: FakeService, capsys: Capture) -> None:
    assert main(["stats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 4
    assert max(map(len, lines)) <= 80


def test_json_has_seconds_and_bytes(running: FakeService, capsys: Capture) -> None:
    assert main(["stats", "--json", "hba0/lun0"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in ("hba", "lun", "backstore", "device", "errors")} == {
        "hba": 0,
        "lun": 0,
        "backstore": "d1",
        "device": "/dev/sda",
        "errors": 1,
    }
    assert found["reads"] == {
        "commands": 1000,
        "bytes": 4096000,
        "seconds": pytest.approx(0.012, rel=0.03),
        **dict.fromkeys(("p50", "p95", "p99", "longest"), pytest.approx(12e-6, rel=0.03)),
    }
    assert found["writes"]["p99"] is None


def test_reset_clears_the_disks_that_are_named(running: FakeService, capsys: Capture) -> None:
    assert main(["stats", "--reset", "hba0/lun1"]) == 0
    assert capsys.readouterr().out == "cleared the statistics of 1 disk\n"
    assert [call for call in running.calls if call.startswith("clear")] == ["clear_statistics 0/1"]
    assert main(["stats", "--reset"]) == 0
    assert capsys.readouterr().out == "cleared the statistics of 2 disks\n"


def test_a_disk_that_nobody_serves_is_refused_and_nothing_is_cleared(
    running: FakeService, capsys: Capture
) -> None:
    assert main(["stats", "--reset", "hba0/lun0", "hba0/lun7"]) == 2
    assert "no engine serves LUN 7 of HBA 0" in capsys.readouterr().err
    assert not [call for call in running.calls if call.startswith("clear")]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[list[int]]:
    """An engine of HBA 3 that serves LUN 5; the LUNs whose statistics were cleared."""
    cleared: list[int] = []
    latencies = Latencies()
    latencies.add(Tally.WRITES, 0.25, 3)

    def said() -> object:
        kinds = {kind: list(each.buckets.items()) for kind, each in latencies.snapshot().items()}
        return [{"lun": 5, "counters": LunStats(writes=3).snapshot(), "latencies": kinds}]

    def clear(lun: int) -> bool:
        if lun == 6:
            raise HostError("a fault of the machine")
        cleared.extend([lun] * (lun == 5))
        return lun == 5

    folder = tmp_path / "hba3"
    folder.mkdir(parents=True)
    (folder / "engine-1.control").touch()  # of an engine that was killed
    (tmp_path / "hba-of-others").mkdir()
    verbs: dict[str, Callable[..., object]] = {"statistics": said, "clear_statistics": clear}
    with ControlServer(folder / f"engine-{os.getpid()}.control", verbs):
        yield cleared


def test_engines_are_asked_where_no_service_runs(engine: list[int], tmp_path: Path) -> None:
    (found,) = statistics.statistics(tmp_path)
    assert (found["hba"], found["lun"], found["engine"]) == (3, 5, os.getpid())
    assert statistics.histograms(found["latencies"])["writes"].quantile(0.5) == pytest.approx(0.25, rel=0.03)
    statistics.clear_statistics(3, 5, tmp_path)
    assert engine == [5]
    with pytest.raises(UsageError, match="no engine serves LUN 5 of HBA 2"):
        statistics.clear_statistics(2, 5, tmp_path)
    with pytest.raises(HostError, match="a fault of the machine"):
        statistics.clear_statistics(3, 6, tmp_path)


def test_no_disk_is_said_so(no_service: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(machine_state, "kernel_status", lambda: {"hbas": []})
    monkeypatch.setattr(statistics, "statistics", list)
    assert main(["stats"]) == 0
    assert capsys.readouterr().out == "no disk is served\n"
