from pathlib import Path

import pytest

from vscsihba.configfs import openers_of, paths, users_of

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
