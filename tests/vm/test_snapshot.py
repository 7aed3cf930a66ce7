"""Snapshots of a disk with a mounted file system and a program that writes to it all the time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import MakeImage, Serve
from tests.vm.shell import checksum, mounted, run
from tests.vm.target import Lun

SIZE = 128 << 20
VSCSIHBA = str(Path(sys.executable).parent / "vscsihba")

WRITER = """
import os, sys, time
number = 0
filler = open(sys.argv[1] + "/filler", "wb", buffering=0)
while True:
    number += 1
    with open(sys.argv[1] + "/draft", "w") as file:
        file.write(str(number))
        file.flush()
        os.fsync(file.fileno())
    os.replace(sys.argv[1] + "/draft", sys.argv[1] + "/number")
    folder = os.open(sys.argv[1], os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    filler.write(os.urandom(65536))
    print(number, flush=True)
"""
"""Counts: a number that it prints is on stable storage."""


@dataclass(frozen=True)
class Moment:
    """When a snapshot was taken: what its file system must hold."""

    name: str
    at_least: int
    at_most: int


@contextmanager
def writing(folder: Path) -> Iterator[Callable[[], int]]:
    """Have the writer write; give what tells how far it has come."""
    log = folder.parent / "writer.log"
    with log.open("wb") as output:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=output)
        try:
            yield lambda: len(log.read_bytes().splitlines())
            assert writer.poll() is None, "the writer has died"
        finally:
            writer.kill()
            writer.wait()


def snapshot(*words: str) -> str:
    return run(VSCSIHBA, "snapshot", *words)


class Disk:
    """A disk with snapshots, and its snapshots as disks of other HBAs."""

    def __init__(self, base: Path, scratch: Path, serve: Serve) -> None:
        self._base, self._scratch, self._serve = base, scratch, serve
        self._stack = f"snapshot:{scratch}/snapshots"
        self.lun: Lun = serve([f"{self._stack};create=true|{base}"], hba=0).luns[0]

    @contextmanager
    def copy_of(self, name: str, hba: int) -> Iterator[Lun]:
        """A disk that is one of the snapshots, to write to without changing that."""
        overlay = f"cow:{self._scratch}/{name}-{hba}.cow;create=true"
        target = self._serve([f"{overlay}|{self._stack};snapshot={name}|{self._base}"], hba=hba)
        yield target.luns[0]
        target.stop()


@pytest.mark.long
def test_moments_are_kept_merged_and_returned_to(image: MakeImage, serve: Serve, scratch: Path) -> None:
    base = image("base.img", SIZE)
    run("mkfs.ext4", "-q", str(base))
    disk = Disk(base, scratch, serve)
    moments = []
    with mounted(disk.lun.node, scratch / "mnt") as folder, writing(folder) as count:
        for name in ("one", "two", "three"):
            before = count()
            wait_until(lambda before=before: count() > before + 3, "some more numbers")  # type: ignore[misc]
            at_least = count()
            assert snapshot("take", "hba0/lun0", name) == f"took snapshot {name} of hba0/lun0\n"
            moments.append(Moment(name, at_least, count() + 2))
    digests = {moment.name: _check(disk, moment, scratch) for moment in moments}

    listed = json.loads(snapshot("list", str(disk.lun.node), "--json"))
    assert [entry["name"] for entry in listed] == ["one", "two", "three"]
    snapshot("delete", "hba0/lun0", "two")
    for name in ("one", "three"):
        with disk.copy_of(name, 3) as lun:
            assert checksum(lun.node) == digests[name]
    snapshot("roll-back", "hba0/lun0", "one")
    assert checksum(disk.lun.node) == digests["one"]
    with mounted(disk.lun.node, scratch / "mnt") as folder:
        assert moments[0].at_least <= int((folder / "number").read_text()) <= moments[0].at_most


def _check(disk: Disk, moment: Moment, scratch: Path) -> str:
    """Mount a copy of a snapshot, whose journal is replayed; return what the snapshot reads as."""
    with disk.copy_of(moment.name, 2) as lun:
        found = checksum(lun.node)
        with mounted(lun.node, scratch / "copy") as folder:
            assert moment.at_least <= int((folder / "number").read_text()) <= moment.at_most
        run("e2fsck", "-f", "-n", str(lun.node))
    return found


def test_a_disk_in_use_is_not_rolled_back(image: MakeImage, serve: Serve, scratch: Path) -> None:
    base = image("base.img", SIZE)
    run("mkfs.ext4", "-q", str(base))
    disk = Disk(base, scratch, serve)
    snapshot("take", "hba0/lun0", "clean")
    with mounted(disk.lun.node, scratch / "mnt"):
        refused = subprocess.run(
            [VSCSIHBA, "snapshot", "roll-back", "hba0/lun0", "clean"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert f"the disk is in use: {disk.lun.node} is mounted on {scratch}/mnt" in refused.stderr
    snapshot("roll-back", "hba0/lun0", "clean")


def test_data_that_linux_has_not_written_yet_does_not_come_over_a_roll_back(
    image: MakeImage, serve: Serve, scratch: Path
) -> None:
    disk = Disk(image("base.img", SIZE), scratch, serve)
    disk.lun.node.write_bytes(b"before" * 1000)
    snapshot("take", "hba0/lun0", "before")
    run("udevadm", "settle")
    with without_udev():
        held = os.open(disk.lun.node, os.O_RDONLY)  # the last close writes
        try:
            disk.lun.node.write_bytes(b"after!" * 1000)
            snapshot("roll-back", "hba0/lun0", "before")
            assert os.pread(held, 6000, 0) == b"before" * 1000
        finally:
            os.close(held)
    assert disk.lun.node.read_bytes()[:6000] == b"before" * 1000


@contextmanager
def without_udev() -> Iterator[None]:
    """Stop udevd, which has the kernel write a disk when a program has closed it."""
    run("pkill", "-STOP", "systemd-udevd")
    try:
        yield
    finally:
        run("pkill", "-CONT", "systemd-udevd")


def test_refusals_are_one_line(image: MakeImage, serve: Serve, scratch: Path) -> None:
    Disk(image("base.img", SIZE), scratch, serve)
    for words, message in (
        (["take", "hba0/lun7", "x"], "HBA 0 has no LUN 7"),
        (["take", "hba9/lun0", "x"], "no engine serves HBA 9"),
        (["take", "lun0", "x"], "'lun0' is not a disk; use hba0/lun1, or /dev/sdb"),
        (["take", "/dev/null", "x"], "/dev/null is not managed by vscsihba"),
        (["delete", "hba0/lun0", "x"], "there is no snapshot 'x'; there are: none"),
    ):
        refused = subprocess.run([VSCSIHBA, "snapshot", *words], capture_output=True, text=True, check=False)
        assert refused.returncode in (1, 2)
        assert (refused.stdout, refused.stderr.count("\n")) == ("", 1)
        assert message in refused.stderr
