"""The benchmarks run, in their shortest form: what they find is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.vm.findings import OURS, Findings
from tests.bench.vm.peers import missing

pytestmark = pytest.mark.qemu("the benchmark compares on two processors")

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = "4 KiB random read, depth 32"


def bench(*words: str) -> Findings:
    """Run the guest's part and return what it has found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.vm.guest", "--quick", "--rounds=1", "--seconds=0.2", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Findings([json.loads(line) for line in done.stdout.splitlines()])


def test_contestants_are_compared(nothing_stays: None) -> None:
    peers = (OURS, "loop", "LIO fileio")
    if lacking := missing(peers):
        pytest.skip(f"needs {' '.join(lacking)}")
    found = bench("--part=peers", f"--workload={WORKLOAD}", *(f"--peer={peer}" for peer in peers))
    assert found.contestants == list(peers)
    assert all(found.ratio(WORKLOAD, peer) > 0 for peer in peers)
    assert found.median(WORKLOAD, OURS, "engine_us") > 0


def test_a_stack_is_compared_with_what_is_there(nothing_stays: None) -> None:
    found = bench("--part=stacks", "--stack=mirror")
    (name,) = found.groups
    group = found.group(name)
    absent = {line["contestant"] for line in found.of("missing")}
    assert set(group.contestants) | absent == {OURS, "md raid1", "md raid1, bitmap"}
    assert all(group.median(work, OURS) > 0 for work in group.workloads)
