"""The benchmarks' report on given findings: no clock, no VM."""

from pathlib import Path

import pytest

from tests.bench import document, tables
from tests.bench.command_path import Row
from tests.bench.native import Native
from tests.bench.slow_flush import SlowFlush
from tests.bench.stacks.measure import STACKS, StackRow, Time
from tests.bench.stacks.stack import CASES
from tests.bench.vm.findings import OURS, Findings

READ = "4 KiB random read, depth 32"


def sample(contestant: str, iops: float) -> dict[str, object]:
    return {
        "kind": "sample",
        "workload": READ,
        "contestant": contestant,
        "iops": iops,
        "engine_us": 10.0,
        "machine_us": 20.0,
        "latency_us": 30.0,
    }


@pytest.fixture
def findings() -> Findings:
    rounds = [(100.0, 50.0), (10.0, 2.0), (300.0, 100.0)]
    return Findings(
        [
            {
                "kind": "machine",
                "kernel": "6.1",
                "cpus": 2,
                "python": "3.11",
                "clock": "tsc",
                "seconds": 1.0,
            },
            *(
                sample(name, value)
                for ours, theirs in rounds
                for name, value in ((OURS, ours), ("nbdkit file", theirs))
            ),
            {"kind": "calls", "workload": READ, "calls": {"preadv2": 1.0, "write": 0.6}, "total": 1.6},
            {"kind": "scaling", "luns": 1, "engines": 1, "iops": 10.0},
            {"kind": "scaling", "luns": 2, "engines": 1, "iops": 20.0},
            {"kind": "footprint", "luns": 10, "ready_seconds": 1.5, "resident_kib": 40960},
            {"kind": "start", "vscsihba": 0.1, "vscsitarget": 0.2},
            {"kind": "idle", "luns": 20, "seconds": 60.0, "cpu_seconds": 0.0012},
        ]
    )


ROWS = [Row.of("READ(10) 4 KiB, file", [2.0, 4.0, 6.0], [1.0, 2.0, 6.0], "the bare system call")]
STACK = StackRow.of(STACKS[0], CASES[0], [Time(2.0, 3.0), Time(4.0, 5.0)], [Time(1.0, 1.0), Time(2.0, 1.0)])
NATIVE = Native(ROWS, [STACK], SlowFlush(100.0, 110.0, 3))


def test_ratios_are_those_of_rounds(findings: Findings) -> None:
    assert findings.ratio(READ, "nbdkit file") == 3.0
    assert findings.median(READ, OURS) == 100.0
    assert findings.ratio(READ, "nobody") == 0
    assert ROWS[0].ratio == 2.0
    assert (STACK.ratio, STACK.processor_ratio) == (2.0, 4.0)


def test_findings_are_kept_whole(findings: Findings) -> None:
    assert Findings.load(findings.dump()).lines == findings.lines


def test_aims_are_judged(findings: Findings) -> None:
    judged = {row[0]: row[2:] for row in tables.aims_reached(findings, ROWS).rows}
    assert judged[f"{READ}, vscsihba / nbdkit file"] == ("3.00", "yes")
    assert judged[f"system calls a command, {READ}"] == ("1.60", "**no**")
    assert judged["READ(10) 4 KiB, file, natively, / the bare system call"] == ("2.00", "yes")


def test_the_page_has_everything(findings: Findings) -> None:
    page = document.text(findings, NATIVE)
    for words in (
        "Linux 6.1",
        "3 times",
        "| 2.00 |",
        "1.2 ms of a processor in 60 s",
        "| file: READ 4 KiB | 3.00 |",
        "`vscsihba --help`",
    ):
        assert words in page
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_plots_are_drawn(findings: Findings, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: ./dev setup --bench")
    from tests.bench.vm import plots  # noqa: PLC0415 - only where matplotlib is

    drawn = plots.draw(findings, tmp_path)
    assert [path.name for path in drawn] == ["peers.png", "cpu.png", "scaling.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.parametrize("peer", ["nbdkit file", "nbdkit Python", "tcmu-runner", "LIO fileio"])
def test_the_readme_says_what_was_found(peer: str) -> None:
    found = Findings.load((document.FOLDER / "findings.json").read_text())
    ratios = [found.ratio(workload, peer) for workload in found.workloads]
    readme = (document.FOLDER.parents[1] / "README.md").read_text()
    assert f"| {peer} | {min(ratios):.1f} to {max(ratios):.1f} |" in readme
