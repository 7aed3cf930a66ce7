"""The aims, and whether the findings reach them."""

from collections.abc import Sequence
from typing import Final

from tests.bench.command_path import Row
from tests.bench.vm.findings import Findings

RATIOS: Final = {
    "4 KiB random read, depth 1": {"LIO fileio": 0.4, "nbdkit file": 2.0, "tcmu-runner": 3.0},
    "4 KiB random read, depth 32": {
        "LIO fileio": 1.0,
        "nbdkit file": 1.8,
        "tcmu-runner": 1.6,
        "nbdkit Python": 4.0,
    },
    "4 KiB random write, depth 32": {
        "LIO fileio": 1.0,
        "nbdkit file": 1.8,
        "tcmu-runner": 1.6,
        "nbdkit Python": 4.0,
    },
    "128 KiB read, depth 8": {"LIO fileio": 0.5, "nbdkit file": 2.0, "tcmu-runner": 1.8},
    "128 KiB write, depth 8": {"LIO fileio": 0.5, "nbdkit file": 2.0, "tcmu-runner": 1.8},
    "1 MiB read, depth 4": {"LIO fileio": 0.4, "nbdkit file": 2.0, "tcmu-runner": 1.8},
}
"""By workload and peer: how many times as quick, at least."""
NATIVE: Final = {
    "READ(10) 4 KiB, file": 2.0,
    "READ(10) 1 MiB, file": 1.1,
    "READ(10) 4 KiB, readonly over file": 1.15,
    "READ(10) 4 KiB, offset over file": 1.15,
    "READ(10) 4 KiB, stats over file": 1.15,
    "READ(10) 4 KiB, nbd, depth 1": 1.43,
    "READ(10) 4 KiB, nbd, depth 32": 1.43,
    "WRITE(10) 4 KiB, nbd, depth 1": 1.43,
    "WRITE(10) 4 KiB, nbd, depth 32": 1.43,
    "READ(10) 4 KiB, rbd, depth 1": 1.25,
    "READ(10) 4 KiB, rbd, depth 32": 1.25,
    "WRITE(10) 4 KiB, rbd, depth 32": 1.25,
}
"""By row: how many times the time of what it is compared with, at most."""
CALLS: Final = 1.5
"""System calls for a command of 4 KiB at depth 32, fewer than."""


def rows(findings: Findings, native: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Return the result for each aim: name, aim, reached, and whether that is enough."""
    found = [
        (f"{workload}, vscsihba / {peer}", f"at least {aim:g}", findings.ratio(workload, peer), 1)
        for workload, peers in RATIOS.items()
        for peer, aim in peers.items()
        if findings.ratio(workload, peer)
    ]
    found += [
        (f"{row.name}, natively, / {row.against}", f"at most {NATIVE[row.name]:g}", row.ratio, -1)
        for row in native
        if row.name in NATIVE
    ]
    found += [
        (f"system calls a command, {line['workload']}", f"below {CALLS:g}", line["total"], -1)
        for line in findings.of("calls")
    ]
    return [(name, aim, f"{value:.2f}", _verdict(aim, value, sign)) for name, aim, value, sign in found]


def _verdict(aim: str, value: float, sign: int) -> str:
    return "yes" if sign * value >= sign * float(aim.rpartition(" ")[2]) else "**no**"
