"""A file is a disk like any other: partitions, file systems, LVM, fio, discard, restart."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.shell import checksum, mounted, partition, run, settle
from tests.vm.target import target_objects

MiB = 1 << 20
Image = Callable[..., Path]


def fill(folder: Path, megabytes: int = 4) -> dict[str, str]:
    """Write files of random bytes and return their checksums by name."""
    sums = {}
    for number in range(megabytes):
        path = folder / f"file{number}"
        path.write_bytes(random.Random(number).randbytes(MiB))
        sums[path.name] = checksum(path)
    return sums


def sums_of(folder: Path) -> dict[str, str]:
    return {path.name: checksum(path) for path in folder.glob("file*")}


def test_two_hbas_with_two_files_each_are_four_disks(serve: Serve, image: Image) -> None:
    first = serve([image("a.img", 64 * MiB), image("b.img", 32 * MiB)], hba=0)
    second = serve([image("c.img", 16 * MiB), image("d.img", 8 * MiB)], hba=255)
    luns = [*first.luns, *second.luns]
    assert len({lun.node for lun in luns}) == 4
    assert [int((lun.sysfs / "size").read_text()) * 512 for lun in luns] == [n * MiB for n in (64, 32, 16, 8)]
    hosts = [(lun.sysfs / "device").resolve().name.split(":") for lun in luns]
    assert hosts[0][0] == hosts[1][0] != hosts[2][0] == hosts[3][0], "an HBA is one SCSI host"
    assert [host[3] for host in hosts] == ["0", "1", "0", "1"]
    listing = run("lsblk", "-S", "-n", "-o", "NAME,VENDOR,TYPE")
    for lun in luns:
        assert re.search(rf"^{lun.node.name} +VSCSIHBA +disk", listing, re.MULTILINE)
        assert f"Disk {lun.node}: " in run("fdisk", "-l", lun.node)
    assert second.stop() == 0
    assert first.luns[0].node.exists(), "the other HBA is not touched"
    assert first.stop() == 0


@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_a_file_system_keeps_its_files_over_a_restart(
    system: str, serve: Serve, image: Image, scratch: Path
) -> None:
    disk = image("a.img", 400 * MiB)
    target = serve([disk])
    (part,) = partition(target.luns[0].node, "1MiB 100%")
    run(f"mkfs.{system}", "-q", part)
    with mounted(part, scratch / "mnt") as where:
        wrote = fill(where)
    assert target.stop() == 0

    target = serve([disk])
    settle()
    part = wait_for_partition(target.luns[0].node)
    with mounted(part, scratch / "mnt") as where:
        assert sums_of(where) == wrote
    run(*({"ext4": ["e2fsck", "-fn"], "xfs": ["xfs_repair", "-n"]}[system]), part)


def wait_for_partition(disk: Path) -> Path:
    part = Path(f"{disk}1")
    wait_until(part.exists, f"the partition {part}")
    return part


def test_lvm_across_two_luns(serve: Serve, image: Image, scratch: Path) -> None:
    target = serve([image("a.img", 128 * MiB), image("b.img", 128 * MiB)])
    nodes = [lun.node for lun in target.luns]
    # Without udev's help, device mapper makes its nodes itself; the guest's LVM knows no other disks.
    run("pvcreate", "--config", "devices/use_devicesfile=0", "-y", *nodes)
    run("vgcreate", "--config", "devices/use_devicesfile=0", "vgtest", *nodes)
    try:
        run(
            "lvcreate",
            "--config",
            "devices/use_devicesfile=0",
            "-y",
            "-n",
            "striped",
            "-i",
            "2",
            "-l",
            "100%FREE",
            "vgtest",
        )
        volume = Path("/dev/vgtest/striped")
        wait_until(volume.exists, "the logical volume")
        run("mkfs.ext4", "-q", volume)
        with mounted(volume, scratch / "mnt") as where:
            wrote = fill(where, 8)
        with mounted(volume, scratch / "mnt", "-o", "ro") as where:
            assert sums_of(where) == wrote
    finally:
        run("vgremove", "--config", "devices/use_devicesfile=0", "-ff", "-y", "vgtest", check=False)
    assert target.stop() == 0


def test_fio_verifies_mixed_sizes_at_depth_16(serve: Serve, image: Image, scratch: Path) -> None:
    target = serve([image("a.img", 96 * MiB)])
    output = run(
        "fio",
        "--name=verify",
        f"--filename={target.luns[0].node}",
        "--rw=randrw",
        "--bsrange=512-1m",
        "--blockalign=512",
        "--iodepth=16",
        "--ioengine=libaio",
        "--direct=1",
        "--size=96m",
        "--io_size=96m",
        "--verify=crc32c",
        "--verify_backlog=64",
        "--verify_fatal=1",
        "--randseed=7",
        limit=600,
    )
    assert "err= 0" in output
    assert target.stop() == 0
    assert "still in use" not in target.output


def test_fstrim_makes_the_image_smaller(serve: Serve, image: Image, scratch: Path) -> None:
    disk = image("a.img", 200 * MiB)
    target = serve([disk])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        (where / "big").write_bytes(os.urandom(64 * MiB))
        os.sync()
        full = disk.stat().st_blocks * 512
        assert full > 64 * MiB
        (where / "big").unlink()
        os.sync()
        run("fstrim", "-v", where)
    assert disk.stat().st_blocks * 512 < full - 48 * MiB


def test_the_image_holds_what_was_written_and_nothing_of_ours_is_left(serve: Serve, image: Image) -> None:
    before = target_objects()
    disk = image("a.img", 4 * MiB)
    target = serve([disk])
    data = os.urandom(4 * MiB)
    fd = os.open(target.luns[0].node, os.O_WRONLY | os.O_EXCL)
    try:
        assert os.pwrite(fd, data, 0) == len(data)
        os.fsync(fd)
    finally:
        os.close(fd)
    assert target.stop() == 0
    assert disk.read_bytes() == data
    assert target_objects() == before
    assert not target.luns[0].sysfs.exists()


def test_names_by_id_are_the_same_after_a_restart(serve: Serve, image: Image) -> None:
    disk = image("a.img")

    def names() -> set[str]:
        target = serve([disk])
        node = target.luns[0].node
        wait_until(lambda: ids(node), "a link in /dev/disk/by-id")
        found = ids(node)
        assert target.stop() == 0
        return found

    assert names() == names()


def ids(node: Path) -> set[str]:
    folder = Path("/dev/disk/by-id")
    settle()
    return {link.name for link in folder.iterdir() if link.resolve() == node} if folder.is_dir() else set()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"logical": "512", "physical": "512"}),
        (("--physical-block-size", "4096"), {"logical": "512", "physical": "4096"}),
        (("--block-size", "4096"), {"logical": "4096", "physical": "4096"}),
    ],
    ids=["512n", "512e", "4Kn"],
)
def test_linux_sees_honest_limits(
    options: tuple[str, ...], expected: dict[str, str], serve: Serve, image: Image, scratch: Path
) -> None:
    target = serve([image("a.img", 64 * MiB)], options=options)
    queue = target.luns[0].sysfs / "queue"
    assert {kind: (queue / f"{kind}_block_size").read_text().strip() for kind in expected} == expected
    assert int((queue / "max_sectors_kb").read_text()) >= 1024, "one command moves 1 MiB"
    assert int((queue / "discard_max_bytes").read_text()) > 0
    assert int((queue / "write_zeroes_max_bytes").read_text()) > 0
    assert (queue / "write_cache").read_text().strip() == "write back"
    assert (queue / "fua").read_text().strip() == "1"
    run("mkfs.ext4", "-q", target.luns[0].node)
    with mounted(target.luns[0].node, scratch / "mnt") as where:
        assert sums_of(where) == {}
        assert fill(where, 2) == sums_of(where)


def test_a_read_only_disk_is_read_only_to_linux(serve: Serve, image: Image) -> None:
    disk = image("a.img")
    target = serve([disk], options=("--read-only",))
    assert (target.luns[0].sysfs / "ro").read_text().strip() == "1"
    with pytest.raises(OSError, match="Read-only file system"):
        os.close(os.open(target.luns[0].node, os.O_RDWR))


def test_blkdiscard_and_write_zeroes(serve: Serve, image: Image) -> None:
    disk = image("a.img", 16 * MiB)
    disk.write_bytes(os.urandom(16 * MiB))
    target = serve([disk])
    node = target.luns[0].node
    run("blkdiscard", "-z", "-o", "0", "-l", str(4 * MiB), node)
    run("blkdiscard", "-o", str(8 * MiB), "-l", str(4 * MiB), node)
    assert target.stop() == 0
    content = disk.read_bytes()
    assert content[: 4 * MiB] == bytes(4 * MiB)
    assert content[8 * MiB : 12 * MiB] == bytes(4 * MiB)
    assert content[4 * MiB : 8 * MiB].count(0) < MiB
