"""Workloads: fio's jobs, and the results of fio and /proc for one run."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.vm.cpu import Clock, Spent
from tests.bench.vm.peers import Contestant


@dataclass(frozen=True, slots=True)
class Workload:
    """One way of using a disk.

    Attributes:
        name: As in the tables.
        options: fio's.
        once: It ends when every block has been used once, not after a time.
    """

    name: str
    options: tuple[str, ...]
    once: bool = False


def _workload(name: str, rw: str, block: str, depth: int, *more: str) -> Workload:
    return Workload(name, (f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", *more))


WORKLOADS: Final = (
    _workload("4 KiB random read, depth 1", "randread", "4k", 1),
    _workload("4 KiB random read, depth 8", "randread", "4k", 8),
    _workload("4 KiB random read, depth 32", "randread", "4k", 32),
    _workload("4 KiB random write, depth 1", "randwrite", "4k", 1),
    _workload("4 KiB random write, depth 8", "randwrite", "4k", 8),
    _workload("4 KiB random write, depth 32", "randwrite", "4k", 32),
    _workload("4 KiB random 70/30, depth 32", "randrw", "4k", 32, "--rwmixread=70"),
    _workload("4 KiB write, fsync after 32", "randwrite", "4k", 1, "--fsync=32"),
    _workload("128 KiB read, depth 8", "read", "128k", 8),
    _workload("128 KiB write, depth 8", "write", "128k", 8),
    _workload("1 MiB read, depth 4", "read", "1m", 4),
    _workload("1 MiB write, depth 4", "write", "1m", 4),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of fio.

    Attributes:
        workload: Its name.
        contestant: Its name.
        iops: Commands a second, reads and writes together.
        engine_us: CPU time that the serving processes took for each, in microseconds; 0 if there are none.
        machine_us: CPU time that the whole machine took for each, in microseconds: fio's included, as far as
            it has begun.
        latency_us: Mean time from submission to completion in microseconds.
        host_us: CPU time that the VM took on its host for each, in microseconds; 0 if the host was not asked.
    """

    workload: str
    contestant: str
    iops: float
    engine_us: float
    machine_us: float
    latency_us: float
    host_us: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def fio(disks: list[Path], workload: Workload, seconds: float) -> list[dict[str, Any]]:
    """Run fio on disks, all at once, and return what it says of each.

    Raises:
        AssertionError: It failed.
    """
    words = [
        *("fio", "--output-format=json", "--ioengine=libaio", "--direct=1", "--thread", "--norandommap"),
        *("--randrepeat=1", *workload.options),
    ]
    if not workload.once:
        words += ["--time_based", f"--runtime={round(seconds * 1000)}ms"]
    for disk in disks:
        words += [f"--name={disk.name}", f"--filename={disk}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"fio failed: {done.stdout}{done.stderr}")
    jobs: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    return jobs


_BEGUN: Final = 16
"""Commands after which fio is surely under way: what it takes to start counts for nobody."""
_WITHIN: Final = 0.7
"""Part of a run in which CPU time is counted."""


def no_host() -> float:
    """Stand in for the clock of a host that cannot be asked."""
    return 0.0


def measure(
    contestant: Contestant, workload: Workload, seconds: float, host: Callable[[], float] = no_host
) -> Sample:
    """Run a workload once; `host` returns the processor time of the VM on its host."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fio, [contestant.disk], workload, seconds)
        spent, counted = _count(contestant, running, 0.0 if workload.once else seconds * _WITHIN, host)
        (job,) = running.result()
    both = (job["read"], job["write"])
    total = sum(side["total_ios"] for side in both)
    latency = sum(side["lat_ns"]["mean"] * side["total_ios"] for side in both) / total / 1e3
    return Sample(
        workload.name,
        contestant.name,
        sum(side["iops"] for side in both),
        spent.processes / counted * 1e6,
        spent.machine / counted * 1e6,
        latency,
        spent.host / counted * 1e6,
    )


def _count(
    contestant: Contestant, running: Future[Any], seconds: float, host: Callable[[], float]
) -> tuple[Spent, int]:
    """Return the CPU time of so many seconds in the middle of a run, and the commands done in them.

    With 0 seconds, the run is counted from its beginning to its end.
    """
    first = _completed(contestant.disk)
    while seconds and _completed(contestant.disk) < first + _BEGUN and not running.done():
        time.sleep(0.05)
    clock, before = Clock(contestant.pids, host), _completed(contestant.disk)
    if seconds:
        time.sleep(seconds)
    else:
        running.exception()  # waits for the end
    return clock.stop(), max(1, _completed(contestant.disk) - before)


def _completed(disk: Path) -> int:
    """Return how many reads and writes a disk has completed (/sys/block/X/stat)."""
    words = Path("/sys/block", disk.name, "stat").read_text().split()
    return int(words[0]) + int(words[4])
