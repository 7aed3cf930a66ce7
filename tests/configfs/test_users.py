"""Users of a disk: noticed by the kernel, and named as far as they can be seen."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vscsihba.configfs import claims, openers_of, paths, users, users_of
from vscsihba.configfs.claims import is_claimed

SDA = Path("/dev/sda")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    block = tmp_path / "sys/class/block"
    (tmp_path / "proc/self").mkdir(parents=True)
    for name, number in (("sda", "8:0"), ("sda/sda1", "8:1"), ("dm-0", "253:0")):
        (block / name).mkdir(parents=True)
        (block / name / "dev").write_text(f"{number}\n")
    (block / "sda/sda1/partition").write_text("1\n")
    monkeypatch.setattr(paths, "SYSFS", tmp_path / "sys")
    monkeypatch.setattr(paths, "PROC", tmp_path / "proc")
    return tmp_path / "proc"


def hold(proc: Path, name: str) -> None:
    """Let dm-0, called vg-lv, hold a device."""
    block = proc.parent / "sys/class/block"
    (block / name / "holders").mkdir()
    (block / name / "holders/dm-0").symlink_to(block / "dm-0")
    (block / "dm-0/dm").mkdir()
    (block / "dm-0/dm/name").write_text("vg-lv\n")


def mount(proc: Path, *lines: str) -> None:
    (proc / "self/mountinfo").write_text("".join(f"{line}\n" for line in lines))


def test_users_of_a_free_disk_are_none(proc: Path) -> None:
    mount(proc, "20 1 0:19 / /sys rw - sysfs sysfs rw", "broken")
    assert users_of(SDA) == []


def test_users_of_a_disk_that_is_gone_are_none(proc: Path) -> None:
    assert users_of(Path("/dev/sdz")) == []


def test_users_of_a_mounted_partition_name_each_place_once(proc: Path) -> None:
    mount(
        proc,
        r"30 1 8:1 / /srv/my\040data rw,relatime shared:1 - ext4 /dev/sda1 rw",
        "31 1 8:1 /sub /mnt rw - ext4 /dev/sda1 rw",
        "32 1 8:1 / /mnt rw - ext4 /dev/sda1 rw",
        "33 1 8:17 / /other rw - ext4 /dev/sdb1 rw",
    )
    assert users_of(SDA) == ["/dev/sda1 is mounted on /srv/my data", "/dev/sda1 is mounted on /mnt"]


def test_users_of_btrfs_are_known_by_its_source(proc: Path) -> None:
    mount(proc, "30 1 0:45 / /srv rw - btrfs /dev/sda rw")
    assert users_of(SDA) == ["/dev/sda is mounted on /srv"]


def test_users_of_a_physical_volume_reach_up_to_the_mount(proc: Path) -> None:
    hold(proc, "sda/sda1")
    mount(proc, "30 1 253:0 / /srv rw - xfs /dev/mapper/vg-lv rw")
    assert users_of(SDA) == ["/dev/sda1 is held by dm-0 (vg-lv)", "/dev/mapper/vg-lv is mounted on /srv"]


def test_users_of_swap(proc: Path) -> None:
    (proc / "swaps").write_text("Filename Type Size\n/dev/sda1 partition 1024 0 -2\n")
    assert users_of(SDA) == ["/dev/sda1 is used as swap"]


def test_users_of_swap_on_a_logical_volume(proc: Path) -> None:
    hold(proc, "sda")
    (proc / "swaps").write_text("Filename Type Size\n/dev/dm-0 partition 1024 0 -2\n")
    assert users_of(SDA) == ["/dev/sda is held by dm-0 (vg-lv)", "/dev/mapper/vg-lv is used as swap"]


def test_openers_of_are_named(proc: Path) -> None:
    for pid, name, node in (("12", "fio", "/dev/sda"), ("13", "cat", "/etc/motd"), ("14", "dd", "/dev/sdb")):
        (proc / pid / "fd").mkdir(parents=True)
        (proc / pid / "comm").write_text(f"{name}\n")
        (proc / pid / "fd/3").symlink_to(node)
    (proc / "15").mkdir()
    assert openers_of(SDA) == ["fio (pid 12)"]
    assert openers_of(SDA, Path("/dev/sdb")) == ["fio (pid 12)", "dd (pid 14)"]
    assert openers_of() == []


# Those that only the kernel knows, or that hide.


@pytest.fixture
def kernel_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | None], None]:
    def says(claimed: bool | None) -> None:
        monkeypatch.setattr(users, "is_claimed", lambda _node: claimed)

    return says


def process(proc: Path, pid: int, name: str, namespace: str, *mounted: str) -> None:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/mnt").symlink_to(namespace)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "mountinfo").write_text("".join(f"{line}\n" for line in mounted))


def test_a_mount_in_another_namespace_is_named_with_one_of_its_processes(proc: Path) -> None:
    mount(proc, "20 1 0:19 / /sys rw - sysfs sysfs rw")
    (proc / "self/ns").mkdir()
    (proc / "self/ns/mnt").symlink_to("mnt:[1]")
    process(proc, 11, "sh", "mnt:[1]", "30 1 8:0 / /never rw - ext4 /dev/sda rw")
    process(proc, 12, "sleep", "mnt:[2]", "30 1 8:0 / /mnt rw - ext4 /dev/sda rw")
    process(proc, 13, "sleep", "mnt:[2]", "30 1 8:0 / /mnt rw - ext4 /dev/sda rw")
    assert users_of(SDA) == ["/dev/sda is mounted on /mnt in the mount namespace of sleep (pid 12)"]


def test_a_namespace_that_may_not_be_named_is_looked_into_all_the_same(proc: Path) -> None:
    mount(proc, "20 1 0:19 / /sys rw - sysfs sysfs rw")
    process(proc, 12, "sleep", "mnt:[2]", "30 1 8:0 / /mnt rw - ext4 /dev/sda rw")
    (proc / "12/ns/mnt").unlink()
    assert users_of(SDA) == ["/dev/sda is mounted on /mnt in the mount namespace of sleep (pid 12)"]


def test_further_devices_of_a_file_system_are_in_use(proc: Path) -> None:
    mount(
        proc,
        "30 1 8:16 / /srv rw - xfs /dev/sdb rw,attr2,logdev=/dev/sda1,noquota",
        "31 1 0:50 / /many rw - bcachefs /dev/sdc:/dev/sda rw",
    )
    assert users_of(SDA) == [
        "/dev/sda is mounted on /many",
        "/dev/sda1 belongs to the file system that is mounted on /srv",
    ]


def test_a_device_of_btrfs_is_in_use(proc: Path) -> None:
    mount(proc, "30 1 0:45 / /srv rw - btrfs /dev/sdb rw")
    (proc.parent / "sys/fs/btrfs/5-6-7/devices/sda1").mkdir(parents=True)
    assert users_of(SDA) == ["/dev/sda1 is part of the btrfs file system 5-6-7"]


def test_an_external_journal_is_in_use_and_an_internal_one_is_not(proc: Path) -> None:
    (proc / "fs/jbd2/sda1-8").mkdir(parents=True)
    assert users_of(SDA) == []
    (proc / "fs/jbd2/sda").mkdir()
    assert users_of(SDA) == ["/dev/sda is the external journal of an ext4 file system"]


def test_a_backstore_of_another_target_is_in_use(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CONFIGFS", proc.parent / "config")
    there = proc.parent / "config/target/core/iblock_0/theirs"
    there.mkdir(parents=True)
    (there / "udev_path").write_text("/dev/sda\n")
    assert users_of(SDA) == ["/dev/sda is a backstore of another target (iblock_0/theirs)"]


def test_a_loop_device_is_a_user_though_it_claims_nothing(
    proc: Path, kernel_says: Callable[[bool | None], None]
) -> None:
    kernel_says(False)
    loop = proc.parent / "sys/block/loop3/loop"
    loop.mkdir(parents=True)
    (loop / "backing_file").write_text("/dev/sda1\n")
    assert users_of(SDA) == ["/dev/sda1 is behind /dev/loop3"]


@pytest.mark.parametrize(("enabled", "named"), [("1", True), ("0", False)])
def test_a_namespace_of_an_nvme_target_is_a_user_though_it_claims_nothing(
    proc: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel_says: Callable[[bool | None], None],
    enabled: str,
    named: bool,
) -> None:
    kernel_says(False)
    monkeypatch.setattr(paths, "CONFIGFS", proc.parent / "config")
    dev = proc.parent / "dev"
    monkeypatch.setattr(paths, "DEV", dev)
    (dev / "disk").mkdir(parents=True)
    (dev / "sda").touch()
    (dev / "disk/by-id").symlink_to(dev / "sda")
    namespaces = proc.parent / "config/nvmet/subsystems/nqn.2026-11.example:store/namespaces"
    for number, node in ((1, dev / "sdb"), (2, dev / "disk/by-id")):
        (namespaces / str(number)).mkdir(parents=True)
        (namespaces / str(number) / "device_path").write_text(f"{node}\n")
        (namespaces / str(number) / "enable").write_text(f"{enabled}\n")
    said = f"{dev}/sda is namespace 2 of the NVMe subsystem nqn.2026-11.example:store"
    assert users_of(SDA) == [said] * named


def test_a_claim_by_a_hidden_user_is_reported(proc: Path, kernel_says: Callable[[bool | None], None]) -> None:
    kernel_says(True)
    (told,) = users_of(SDA)
    assert told.startswith(
        "/dev/sda is claimed for exclusive use (O_EXCL) by the kernel: a file system of a hid"
    )
    (proc / "33/fd").mkdir(parents=True)
    (proc / "33/comm").write_text("mkfs.ext4\n")
    (proc / "33/fd/3").symlink_to("/dev/sda1")
    assert users_of(SDA) == ["/dev/sda is claimed for exclusive use (O_EXCL): mkfs.ext4 (pid 33) has it open"]


def test_a_disk_that_the_kernel_says_is_free_is_free(
    proc: Path, kernel_says: Callable[[bool | None], None]
) -> None:
    mount(proc, "30 1 8:0 / /lazily-unmounted-and-gone rw - ext4 /dev/sda rw")
    kernel_says(False)
    assert users_of(SDA) == []
    kernel_says(None)
    assert len(users_of(SDA)) == 1


@pytest.mark.parametrize(
    ("refusal", "claimed"), [(errno.EBUSY, True), (errno.ENXIO, None), (errno.EACCES, None), (0, False)]
)
def test_the_kernels_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: int, claimed: bool | None
) -> None:
    asked: list[int] = []

    def ask(path: Path, flags: int) -> int:
        asked.append(flags)
        if refusal:
            raise OSError(refusal, os.strerror(refusal), str(path))
        return os.dup(0)

    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    with monkeypatch.context() as opening:
        opening.setattr(os, "open", ask)
        assert is_claimed(tmp_path) is claimed
    assert [flags & (os.O_EXCL | os.O_NONBLOCK | os.O_ACCMODE) for flags in asked] == [
        os.O_EXCL | os.O_NONBLOCK | os.O_RDONLY
    ]


def test_a_file_that_is_no_block_device_cannot_be_claimed(tmp_path: Path) -> None:

    assert is_claimed(tmp_path) is None
    assert is_claimed(tmp_path / "none") is None


def test_a_disk_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(claims, "_ask", lambda _node: go.wait(60))
    assert is_claimed(SDA, patience=0.01) is None
    go.set()
