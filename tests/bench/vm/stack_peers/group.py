"""The definition of a comparison, and block devices that several of its peers are made of."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.vm.peers import Contestant, run, without_scheduler
from tests.bench.vm.workload import WORKLOADS, Workload
from tests.polling import wait_until
from tests.vm.target import Target

SIZE: Final = 64 << 20
"""Bytes of every disk."""
_NAMES: Final = (
    "4 KiB random read, depth 1",
    "4 KiB random write, depth 1",
    "4 KiB random read, depth 32",
    "4 KiB random write, depth 32",
    "128 KiB read, depth 8",
    "128 KiB write, depth 8",
)
USUAL: Final = tuple(work for work in WORKLOADS if work.name in _NAMES)

Make = Callable[[Path, int], AbstractContextManager[Contestant]]
"""``make(folder, number)``: make a disk of media in an empty folder; `number` is different for each peer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One contestant.

    Attributes:
        name: As in the tables.
        make: Makes its disk.
        programs: Programs that it needs.
        modules: Kernel modules that it needs, by the names that modprobe takes.
    """

    name: str
    make: Make
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def missing(self) -> str:
        """Return the program or module that this machine lacks, or an empty string; loads the modules."""
        for program in self.programs:
            if shutil.which(program) is None:
                return f"no program {program}"
        for module in self.modules:
            if subprocess.run(["modprobe", "-q", module], check=False).returncode:
                return f"no kernel module {module}"
        return ""


@dataclass(frozen=True, slots=True)
class Group:
    """Contestants that do the same job.

    Attributes:
        name: As in the tables, and for ``--stack``.
        peers: Ours first.
        workloads: Run on each of them in turn.
        anew: All disks are made again in each round; else once, and every sector is written first.
    """

    name: str
    peers: tuple[Peer, ...]
    workloads: tuple[Workload, ...] = USUAL
    anew: bool = False


def image(path: Path, size: int = SIZE) -> Path:
    """Make a file with random bytes; return its path."""
    data = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(0, size, len(data)):
            file.write(data)
    return path


def hole(path: Path, size: int = SIZE) -> Path:
    """Make a file that is a hole; return its path."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@contextmanager
def served(stack: str, folder: Path, number: int) -> Iterator[Contestant]:
    """Ours: ``vscsitarget`` with a stack in one line."""
    target = Target([stack], number, (), folder / "errors")
    try:
        (lun,) = target.wait_ready()
        yield Contestant("vscsihba", lun.node, (target.process.pid,))
    finally:
        target.finish()


@contextmanager
def loop(path: Path, *options: str) -> Iterator[Path]:
    """Yield a loop device on a file, through the page cache, without a scheduler of its own."""
    device = Path(run("losetup", "--find", "--show", *options, path).strip())
    try:
        without_scheduler(device)
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def mapped(name: str, table: str) -> Iterator[Path]:
    """Yield the block device of a device-mapper table of one line."""
    run("dmsetup", "create", name, "--table", table)
    try:
        yield dm_device(name)
    finally:
        run("dmsetup", "remove", "--retry", name)


def dm_device(name: str) -> Path:
    """Return the block device of a mapping, ``/dev/dm-N``."""
    words = ("dmsetup", "info", "--columns", "--noheadings", "--options", "blkdevname", name)
    device = Path("/dev", run(*words).strip())
    wait_until(device.exists, str(device))
    return device


def sectors(device: Path) -> int:
    """Return the size of a block device in sectors of 512 bytes."""
    return int(Path("/sys/block", device.name, "size").read_text())
