"""Resources of engines: many LUNs, many lives, a long life; nothing left, nothing grown."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.conftest import Serve
from tests.vm.counter import Counter
from tests.vm.footprint import Footprint, excess, growth
from tests.vm.shell import SOAK, run
from tests.vm.target import our_processes, target_objects

MiB = 1 << 20
Image = Callable[..., Path]

LIVES = """
import gc, os, sys, threading
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.target import Target

def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()

def live():
    with Target(9, [LunSpec(0, sys.argv[1])], listeners=Listeners()) as target:
        fd = os.open(target.disks[0].device, os.O_RDWR)
        os.pwrite(fd, b"x" * 4096, 0)
        os.fsync(fd)
        os.close(fd)

def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4

for _ in range(30):
    live()
before, resident = held(), [memory()]
for _ in range(4):
    for _ in range(int(sys.argv[2]) // 4):
        live()
    resident.append(memory())
print(before == held(), *resident)
"""


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.long
def test_many_luns_on_one_engine(serve: Serve, image: Image) -> None:
    few = serve([image(f"few{number}.img", MiB) for number in range(10)], hba=1)
    small = resident(few.process.pid)
    assert few.stop() == 0
    count = 100 if SOAK else 30
    many = serve([image(f"many{number}.img", MiB) for number in range(count)], hba=1, wait=False)
    many.wait_ready(600)
    large = resident(many.process.pid)
    assert len({lun.node for lun in many.luns}) == count
    last = many.luns[-1]
    run("dd", "if=/dev/urandom", f"of={last.node}", "bs=64k", "count=16", "oflag=direct")
    assert many.stop(limit=600) == 0
    print(f"10 LUNs: {small} KiB, {count} LUNs: {large} KiB")
    assert (large - small) / (count - 10) < 3 * 1024, "a LUN costs no more than a few MiB"


def test_many_lives_leave_nothing(image: Image, nothing_stays: None) -> None:
    disk = image("a.img", MiB)
    lives = 200 if SOAK else 12
    done = subprocess.run(
        [sys.executable, "-c", LIVES, str(disk), str(lives)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    same, *resident = done.stdout.split()
    print(f"resident in {lives} lives: {' '.join(resident)} KiB")
    assert same == "True", "descriptors or threads were left"
    first, *_, middle, _, last = map(int, resident)
    assert last - first < 4096, "caches of the interpreter and of malloc fill"
    assert last - middle < 1024, "and then they are full"
    assert not any("id=9" in line for _, line in our_processes())
    assert not any("user_9" in str(path) for path in target_objects())


def verified_io(small: Path, large: Path, seconds: int) -> subprocess.Popen[str]:
    """Write, flush and verify two disks for so long, at a rate that leaves the machine to others."""
    return subprocess.Popen(
        [
            "fio",
            "--rw=randwrite",
            "--iodepth=8",
            "--ioengine=libaio",
            "--direct=1",
            "--size=8m",
            "--time_based",
            f"--runtime={seconds}",
            "--fdatasync=32",
            "--verify=crc32c",
            "--verify_backlog=64",
            "--verify_fatal=1",
            "--output-format=json",
            *("--name=small", f"--filename={small}", "--bs=4k", "--rate_iops=60"),
            *("--name=large", f"--filename={large}", "--bs=64k", "--rate_iops=10"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(not SOAK, reason="needs VSCSIHBA_SOAK=1: it takes an hour")
@pytest.mark.timeout(2 * 3600)
def test_an_hour_of_io_leaves_everything_as_large_as_it_was(serve: Serve, image: Image) -> None:
    seconds = 3600
    target = serve([image(f"{name}.img", 16 * MiB) for name in "abc"], hba=2)
    samples: list[Footprint] = []
    counter = Counter(target.luns[2].sg)
    with verified_io(target.luns[0].node, target.luns[1].node, seconds) as fio:
        while fio.poll() is None:
            samples.append(Footprint.of(target.process.pid))
            for _ in range(10):
                counter.increment()
            time.sleep(seconds / 240)
        assert fio.stdout is not None
        output = fio.stdout.read()
    assert fio.returncode == 0, output
    assert all(job["error"] == 0 for job in json.loads(output[output.index("{") :])["jobs"]), output
    counter.close()
    print(f"{len(samples)} samples, from {samples[0]} to {samples[-1]}: {growth(samples)}")
    assert len(samples) > 20
    assert not excess(growth(samples)), f"grown by {growth(samples)}: {samples[:: len(samples) // 20]}"
    assert target.stop() == 0
