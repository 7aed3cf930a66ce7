"""Many LUNs, one engine or two: what they do together, what they take, how long they need to come up."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.bench.vm.cpu import process_seconds
from tests.bench.vm.workload import WORKLOADS, fio
from tests.vm.target import PROGRAM, Target

_HBA: Final = 77
_DEPTH_8: Final = WORKLOADS[1]
_SIZE: Final = 16 << 20


@contextmanager
def serving(folder: Path, luns: int, engines: int = 1) -> Iterator[list[Target]]:
    """Serve so many new images by so many engines."""
    images = []
    for number in range(luns):
        image = folder / f"scale{number}.img"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        images.append(image)
    with ExitStack() as undo:
        targets = []
        for number in range(engines):
            targets.append(Target(images, _HBA, (), folder / f"scale{number}.err"))
            undo.callback(targets[-1].finish)
            targets[-1].wait_ready(600)
        yield targets
    for image in images:
        image.unlink()


def throughput(
    folder: Path, seconds: float, rounds: int, luns: tuple[int, ...], engines: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """Yield commands a second of 4 KiB random reads at depth 8 on each of so many LUNs at once."""
    for lun_count in luns:
        for engine_count in engines:
            with serving(folder, lun_count, engine_count) as targets:
                disks = [lun.node for lun in targets[0].luns]
                for _ in range(rounds):
                    jobs = fio(disks, _DEPTH_8, seconds)
                    yield {
                        "luns": lun_count,
                        "engines": engine_count,
                        "iops": sum(job["read"]["iops"] for job in jobs),
                    }


def footprint(folder: Path, luns: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield resident memory in KiB, and seconds from the start until every disk is ready."""
    for count in luns:
        started = time.monotonic()
        with serving(folder, count) as (target,):
            ready = time.monotonic() - started
            status = Path(f"/proc/{target.process.pid}/status").read_text()
            resident = int(status.partition("VmRSS:")[2].split()[0])
        yield {"luns": count, "ready_seconds": ready, "resident_kib": resident}


def idle(folder: Path, luns: int, seconds: float) -> dict[str, Any]:
    """Return the processor time of an engine while nobody uses its disks."""
    with serving(folder, luns) as (target,):
        subprocess.run(["udevadm", "settle"], check=False)
        before, started = process_seconds(target.process.pid), time.monotonic()
        time.sleep(seconds)
        spent = process_seconds(target.process.pid) - before
        lasted = time.monotonic() - started
    return {"luns": luns, "seconds": lasted, "cpu_seconds": spent}


def start_up(rounds: int) -> dict[str, Any]:
    """Return the seconds that ``vscsihba --help`` and ``vscsitarget --help`` take, the quickest of some."""
    found = {}
    for program in ("vscsihba", "vscsitarget"):
        times = []
        for _ in range(rounds):
            started = time.monotonic()
            subprocess.run([PROGRAM.with_name(program), "--help"], check=True, stdout=subprocess.DEVNULL)
            times.append(time.monotonic() - started)
        found[program] = min(times)
    return found
