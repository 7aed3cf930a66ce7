"""Verified I/O for an hour while engines and the service are killed all the time.

The history of kills is made from one seed; the time at which I/O meets them is not. Knows the service by its
control socket and by /proc, and fio as the witness.
"""

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import MakeImage
from tests.vm.counter import Counter as DiskCounter
from tests.vm.daemon import Service, files, kill, shows
from tests.vm.shell import SOAK, mounted, run
from tests.vm.target import kernel_messages

SECONDS = int(os.environ.get("VSCSIHBA_SOAK_SECONDS", "3600"))
SEED = int(os.environ.get("VSCSIHBA_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
MEBIBYTES = 48
"""Size of each disk."""
RAW, MIRROR, COW = 2, 3, 4
"""HBAs: a file with two engines, a mirror with two engines, and an overlay with one."""


@dataclass
class Totals:
    """Sums over runs of fio."""

    runs: int = 0
    written: int = 0
    verified: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)


class Witness:
    """fio on one disk or file, run after run, each with another seed, until it is told to stop.

    Every run writes each block of the area once, in random order, and reads all of it back: with
    `backlog`, soon after writing, else when all is written.

    Args:
        path: A disk, or a file that fio makes.
        seed: Decides the seeds of the runs.
        words: More options of fio.
    """

    def __init__(self, path: Path, seed: int, *words: str) -> None:
        self.totals = Totals()
        self._path = path
        self._words = words
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._path.name

    def _repeat(self) -> None:
        while not self._stop.is_set() and not self.totals.failures:
            self._run(self._random.randrange(1 << 30), backlog=self._random.random() < 0.5)

    def _run(self, seed: int, *, backlog: bool) -> None:
        done = subprocess.run(
            [
                "fio",
                f"--name={self.name}",
                f"--filename={self._path}",
                "--rw=randwrite",
                "--bsrange=4k-64k",
                f"--size={MEBIBYTES // 2}m",
                "--rate_iops=100",
                "--ioengine=libaio",
                "--iodepth=16",
                f"--randseed={seed}",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--do_verify=1",
                *(["--verify_backlog=128"] if backlog else []),
                *self._words,
                "--output-format=json",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        output = done.stdout + done.stderr
        jobs = json.loads(done.stdout[done.stdout.index("{") :])["jobs"] if "{" in done.stdout else []
        if done.returncode or not jobs or any(job["error"] for job in jobs):
            self.totals.failures.append(f"{self.name}, randseed {seed}: exit {done.returncode}\n{output}")
            return
        self.totals.runs += 1
        for job in jobs:
            self.totals.written += job["write"]["io_bytes"]
            self.totals.verified += job["read"]["io_bytes"]
            longest = max(job[way]["lat_ns"]["max"] for way in ("read", "write", "sync"))
            self.totals.longest = max(self.totals.longest, longest / 1e9)

    def finish(self) -> Totals:
        """Let the last run end, and return the sums."""
        self._stop.set()
        self._thread.join(1800)
        assert not self._thread.is_alive(), f"fio on {self._path} hangs"
        return self.totals


def rings(pid: int) -> int:
    """Return how many rings a process serves; 0 if it is dead."""
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return 0
    return sum(link.startswith("/dev/uio") for link in links)


def serving(service: Service, hba: int) -> list[int]:
    """Return the pids of the engines that serve a LUN of an HBA."""
    return [pid for pid in service.engines(hba) if rings(pid)]


def strike(service: Service, chance: random.Random, kills: Counter[str]) -> None:
    """Kill the engine that serves a disk, all engines of a disk, or the service."""
    hba = chance.choice((RAW, MIRROR, COW))
    act = chance.choices(("serving", "all", "both", "service"), (80, 10, 6, 4))[0]
    if act in ("both", "service"):
        victims = service.engines(hba) if act == "both" else []
        service.kill()
        for pid in victims:
            kill(pid)
        kills["service"] += 1
        kills["engine"] += len(victims)
        service.start()
        return
    for pid in service.engines(hba) if act == "all" else serving(service, hba):
        kill(pid)
        kills["engine"] += 1


def equal(service: Service) -> bool:
    """Tell whether all legs of the mirror have all the data."""
    told = service.ask("act", hba=MIRROR, lun=0, layer="mirror", action="status", arguments={})["result"]
    return told["resync"] is None and all(leg["standing"] == "whole" for leg in told["legs"])


@pytest.mark.skipif(not SOAK, reason="needs VSCSIHBA_SOAK=1: it takes an hour")
@pytest.mark.timeout(SECONDS + 3600)
def test_an_hour_of_verified_io_while_engines_die(
    own_service: Service, scratch: Path, image: MakeImage
) -> None:
    """fio on a raw disk, on a mirror and on an ext4; a counter by COMPARE AND WRITE; deaths until the end."""
    service, chance = own_service, random.Random(SEED)
    print(f"seed {SEED}, {SECONDS} s", flush=True)
    legs = [
        {"handler": "file", "path": str(scratch / f"leg{number}.img"), "size": f"{MEBIBYTES}MiB"}
        for number in (1, 2)
    ]
    base = image("base.img", 3 * MEBIBYTES << 20)
    cow = {"handler": "cow", "path": str(scratch / "disk.cow"), "create": True, "next": str(base)}
    document = {
        "version": 1,
        "backstores": {
            **files(scratch, "raw", size=MEBIBYTES),
            **files(scratch, "counter", size=1),
            "mirror": {"handler": "mirror", "path": str(scratch / "mirror"), "create": True, "legs": legs},
            "cow": cow,
        },
        "hbas": [
            shows(RAW, "raw", "counter", engines=2),
            shows(MIRROR, "mirror", engines=2),
            shows(COW, "cow"),
        ],
    }
    service.ask("apply", document=document)
    disk = service.disk(COW, 0).node
    run("mkfs.ext4", "-q", disk)
    kills: Counter[str] = Counter()
    counter = DiskCounter(service.disk(RAW, 1).sg)
    with ExitStack() as stack:
        folder = stack.enter_context(mounted(disk, scratch / "mnt"))
        witnesses = [
            Witness(service.disk(RAW, 0).node, chance.randrange(1 << 30), "--direct=1"),
            Witness(service.disk(MIRROR, 0).node, chance.randrange(1 << 30), "--direct=1", "--fdatasync=32"),
            Witness(folder / "direct", chance.randrange(1 << 30), "--direct=1", "--fsync=64"),
            Witness(folder / "cached", chance.randrange(1 << 30), "--invalidate=1", "--fsync=64"),
        ]
        begin = last = time.monotonic()
        while time.monotonic() < begin + SECONDS and not any(each.totals.failures for each in witnesses):
            time.sleep(chance.choice((0.05, 0.5, 1, 2, 4)) * chance.random())
            strike(service, chance, kills)
            for _ in range(5):
                counter.increment()
            if chance.random() < 0.3:
                wait_until(service.all_run, "all disks are served")
            if time.monotonic() > last + 60:
                last = time.monotonic()
                told = [f"{each.name} {each.totals.runs}" for each in witnesses]
                print(f"{last - begin:.0f} s: {dict(kills)}, runs of fio: {', '.join(told)}", flush=True)
        sums = [each.finish() for each in witnesses]
    for each, witness in zip(sums, witnesses, strict=True):
        print(
            f"{witness.name}: {each.runs} runs, {each.written >> 20} MiB written, "
            f"{each.verified >> 20} MiB verified, longest I/O {each.longest:.2f} s",
            flush=True,
        )
    print(
        f"seed {SEED}: {dict(kills)}, counter {counter.told_good} + {counter.in_doubt} in doubt", flush=True
    )
    assert not [failure for each in sums for failure in each.failures]
    wait_until(service.all_run, "all disks are served")
    assert counter.read() == counter.value == counter.told_good + counter.in_doubt
    counter.close()
    run("e2fsck", "-fn", disk)
    assert "I/O error" not in kernel_messages()
    wait_until(lambda: equal(service), "a mirror with equal legs", limit=600)
    run("cmp", f"--bytes={MEBIBYTES << 20}", scratch / "leg1.img", scratch / "leg2.img")
