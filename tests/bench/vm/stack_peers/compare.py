"""Runs the groups: every workload on every peer in turn, and all of that again in the next round."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.bench.vm.cpu import process_seconds
from tests.bench.vm.peers import Contestant, run, unprobed, without_scheduler
from tests.bench.vm.stack_peers import cache, cow, encrypt, mirror
from tests.bench.vm.stack_peers.group import Group, Peer
from tests.bench.vm.workload import measure

GROUPS: Final = (*encrypt.GROUPS, *mirror.GROUPS, *cow.GROUPS, *cache.GROUPS)
_QUIET: Final = 0.02
"""Part of a processor that a server takes at most when it has nothing to do."""
_LOOK: Final = 0.5
_LIMIT: Final = 120.0

Say = Callable[[str, dict[str, Any]], None]
"""``say(kind, finding)``: report one finding."""


def chosen(names: Sequence[str]) -> list[Group]:
    """Return the groups with one of these words in their names; all of them without any."""
    return [group for group in GROUPS if not names or any(words in group.name for words in names)]


def compare(
    group: Group, folder: Path, rounds: int, seconds: float, say: Say, host: Callable[[], float]
) -> None:
    """Measure a group.

    Args:
        group: Its peers and workloads.
        folder: In memory, for all media.
        rounds: How often everything is run.
        seconds: Length of one run of fio.
        say: Called with each sample, and for each peer that is missing here.
        host: Returns the processor time of the VM on its host.
    """
    there = []
    for peer in group.peers:
        if reason := peer.missing():
            say("missing", {"group": group.name, "contestant": peer.name, "reason": reason})
        else:
            there.append(peer)
    for _ in range(rounds if group.anew else 1):
        with ExitStack() as undo:
            disks = list(_disks(there, folder, undo))
            for disk in disks if not group.anew else ():
                _fill(disk)
            with unprobed():
                for _ in range(1 if group.anew else rounds):
                    for workload in group.workloads:
                        for disk in disks:
                            sample = measure(disk, workload, seconds, host).document()
                            say("stack", {"group": group.name, **sample})


def _disks(peers: Sequence[Peer], folder: Path, undo: ExitStack) -> Iterator[Contestant]:
    """Make the disk of each peer."""
    for number, peer in enumerate(peers):
        place = folder / str(number)
        place.mkdir()
        undo.callback(run, "rm", "-r", place)
        disk = undo.enter_context(peer.make(place, number))
        without_scheduler(disk.disk)
        yield disk


def _fill(disk: Contestant) -> None:
    """Write every sector, and wait until its server has nothing left to do."""
    words = (
        "--name=fill",
        f"--filename={disk.disk}",
        "--rw=write",
        "--bs=1m",
        "--direct=1",
        "--ioengine=libaio",
    )
    run("fio", *words, "--iodepth=4", "--refill_buffers", "--end_fsync=1", "--thread")
    subprocess.run(["udevadm", "settle"], check=False)
    deadline = time.monotonic() + _LIMIT
    while _load(disk) > _QUIET:
        if time.monotonic() > deadline:
            raise AssertionError(f"{disk.name} is not idle {_LIMIT:.0f} s after its disk was written")


def _load(disk: Contestant) -> float:
    """Return the part of a processor that the servers of a disk take."""
    before = sum(map(process_seconds, disk.pids))
    time.sleep(_LOOK if disk.pids else 0)
    return (sum(map(process_seconds, disk.pids)) - before) / _LOOK
