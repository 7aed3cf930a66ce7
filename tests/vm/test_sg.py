"""The sg handler: a LUN of ours that passes every command on to the kernel's scsi_debug, asked as well."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.shell import checksum, mounted, run, settle
from tests.vm.target import PROGRAM, Lun

MiB = 1 << 20
HOSTS = Path("/sys/bus/pseudo/drivers/scsi_debug")


@dataclass(frozen=True)
class Raw:
    """The device behind."""

    disk: Path
    sg: Path


@pytest.fixture
def raw() -> Iterator[Raw]:
    """A disk of 64 MiB that the kernel's scsi_debug makes, with a physical block of 4 KiB."""
    run("modprobe", "scsi_debug", "dev_size_mb=64", "physblk_exp=3", "delay=0", "lbpu=1")
    try:
        (folder,) = wait_until(lambda: list(HOSTS.glob("adapter*/host*/target*/*:0/block/*")), "its disk")
        (generic,) = wait_until(lambda: list(folder.glob("device/scsi_generic/*")), "its sg device")
        node = Raw(Path("/dev") / folder.name, Path("/dev") / generic.name)
        wait_until(lambda: node.disk.exists() and node.sg.exists(), "its nodes")
        settle()
        yield node
        settle()
    finally:
        run("modprobe", "-r", "scsi_debug")


@pytest.fixture
def lun(serve: Serve, raw: Raw) -> Iterator[Lun]:
    """A LUN of ours over it."""
    target = serve([f"sg:{raw.sg}"])
    settle()
    yield target.luns[0]
    settle()
    assert target.stop() == 0


def both(raw: Raw, lun: Lun, *words: str) -> tuple[str, str]:
    """Send a command to the device itself and through us; return what either has said, without names."""
    command, *cdb = words
    said = [run(command, *cdb, node, check=False).replace(str(node), "NODE") for node in (raw.sg, lun.sg)]
    return said[0], said[1]


def test_it_answers_for_itself(raw: Raw, lun: Lun) -> None:
    for words in [
        ("sg_inq",),
        ("sg_inq", "--page=0x80"),
        ("sg_vpd", "--page=di"),
        ("sg_vpd", "--page=lbpv"),
        ("sg_readcap", "--16"),
        ("sg_modes", "--all"),
        ("sg_opcodes",),
    ]:
        itself, ours = both(raw, lun, *words)
        assert ours == itself, words
    assert "scsi_debug" in run("sg_inq", lun.sg)
    for name in ("size", "queue/physical_block_size", "queue/logical_block_size"):
        behind = Path("/sys/block") / raw.disk.name / name
        assert (lun.sysfs / name).read_text() == behind.read_text()


def test_a_file_system_through_it_is_on_the_device(raw: Raw, lun: Lun, scratch: Path) -> None:
    run("mkfs.ext4", "-q", lun.node)
    data = os.urandom(9 * MiB + 123)
    with mounted(lun.node, scratch / "mnt") as where:
        (where / "file").write_bytes(data)
    run("e2fsck", "-fn", lun.node)
    run("blockdev", "--flushbufs", lun.node)
    run("blockdev", "--flushbufs", raw.disk)
    assert checksum(raw.disk) == checksum(lun.node)
    with mounted(lun.node, scratch / "mnt") as where:
        assert (where / "file").read_bytes() == data


def test_errors_are_the_devices(raw: Raw, lun: Lun) -> None:
    beyond = ("sg_raw", "-r", "512", lun.sg, "28", "00", "7f", "ff", "ff", "00", "00", "00", "01", "00")
    said = run(*beyond, check=False)
    assert "Logical block address out of range" in said
    itself, ours = both(raw, lun, "sg_requests", "--desc")
    assert ours == itself
    unknown: list[str | Path] = ["sg_raw", "-r", "64", lun.sg, "d1", *["00"] * 9]
    assert "Invalid command operation code" in run(*unknown, check=False)


def test_a_short_answer_has_the_same_residual(raw: Raw, lun: Lun) -> None:
    said = [
        run("sg_raw", "-r", "200", node, "12", "00", "00", "00", "10", "00").replace(str(node), "NODE")
        for node in (raw.sg, lun.sg)
    ]
    assert said[0] == said[1]
    assert "Received 16 bytes of data" in said[0]


def test_data_both_ways_is_refused(lun: Lun, scratch: Path) -> None:
    data = scratch / "data"
    data.write_bytes(bytes(512))
    words = ("53", "00", "00", "00", "00", "00", "00", "00", "01", "00")
    said = run("sg_raw", "-s", "512", "-i", data, lun.sg, *words, check=False)
    assert "Invalid command operation code" in said


@pytest.mark.long
def test_it_is_held_exclusively(raw: Raw, lun: Lun) -> None:
    with pytest.raises(OSError, match="busy"):  # as mount(8) and mkfs open it
        os.close(os.open(raw.disk, os.O_RDONLY | os.O_EXCL))
    for path in (raw.sg, raw.disk):
        said = run(PROGRAM, "id=5", "-files", f"sg:{path}", check=False)
        assert str(path) in said
        assert said.count("\n") == 1


def test_what_is_mounted_is_refused(raw: Raw, scratch: Path) -> None:
    run("mkfs.ext4", "-q", raw.disk)
    with mounted(raw.disk, scratch / "mnt"):
        said = run(PROGRAM, "id=5", "-files", f"sg:{raw.sg}", check=False)
    assert f"{raw.disk} is in use: it is mounted" in said
    assert said.count("\n") == 1


def test_a_lun_of_ours_can_be_behind_it(serve: Serve, scratch: Path) -> None:
    image = scratch / "a.img"
    image.write_bytes(os.urandom(4 * MiB))
    inner = serve([image], hba=0)
    outer = serve([f"sg:{inner.luns[0].sg}"], hba=1)
    assert checksum(outer.luns[0].node) == checksum(image)
    run("dd", "if=/dev/zero", f"of={outer.luns[0].node}", "bs=1M", "count=2", "oflag=direct")
    assert outer.stop() == 0
    assert image.read_bytes()[: 2 * MiB] == bytes(2 * MiB)
    assert inner.stop() == 0
