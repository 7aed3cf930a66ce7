"""Names of block devices, from a sysfs and a database of udev that the tests write."""

import os
from pathlib import Path

import pytest

from vscsihba.handlers.shared.block_identity import block_identity, lasting_path

Files = dict[str, str]


class Machine:
    """Block devices as sysfs shows them.

    Args:
        root: Where.
    """

    def __init__(self, root: Path) -> None:
        self.sys, self.udev, self._devices = root / "dev-block", root / "udev", root / "devices"
        for made in (self.sys, self.udev, self._devices):
            made.mkdir(parents=True)

    def add(self, name: str, number: str, files: Files, udev: str = "") -> None:
        """Let a device turn up; a partition's name begins with its disk's and a slash."""
        home = self._devices / name
        for file, text in {"dev": number, **files}.items():
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            (home / file).write_text(text + "\n")
        (self.sys / number).symlink_to(home)
        if udev:
            (self.udev / f"b{number}").write_text(udev)

    def identity(self, major: int, minor: int) -> str | None:
        return block_identity(os.makedev(major, minor), sys=self.sys, udev=self.udev)


DEVICES: dict[str, tuple[Files, str, str | None]] = {
    "scsi": ({"device/wwid": "naa.5000c500a1b2c3d4"}, "", "wwid:naa.5000c500a1b2c3d4"),
    "ata": ({"device/wwid": "t10.ATA     DISK     SERIAL1"}, "", "wwid:t10.ATA DISK SERIAL1"),
    "nvme": ({"wwid": "eui.0025388b71", "device/serial": "of the controller"}, "", "wwid:eui.0025388b71"),
    "virtio": ({"serial": "disk-7"}, "", "serial:disk-7"),
    "mmc": ({"device/cid": "0353445344"}, "", "cid:0353445344"),
    "lvm": ({"dm/uuid": "LVM-abc", "dm/name": "vg-lv"}, "", "dm-uuid:LVM-abc"),
    "dm without uuid": ({"dm/uuid": "", "dm/name": "mine"}, "", "dm-name:mine"),
    "md": ({"md/level": "raid1"}, "E:MD_UUID=1:2:3:4\n", "udev:MD_UUID:1:2:3:4"),
    "loop": ({"loop/backing_file": "/srv/a.img", "loop/offset": "512"}, "", "loop:512:/srv/a.img"),
    "only udev": ({}, "I:5\nE:ID_SERIAL=WD-1\nE:DEVTYPE=disk\n", "udev:ID_SERIAL:WD-1"),
    "zvol": ({}, "S:zvol/tank/b\nS:zvol/tank/a\nS:disk/by-path/x\n", "udev:zvol/tank/a"),
    "nothing": ({"size": "8"}, "S:disk/by-path/x\n", None),
}


@pytest.mark.parametrize("kind", DEVICES)
def test_is_the_devices_own(tmp_path: Path, kind: str) -> None:
    files, udev, identity = DEVICES[kind]
    machine = Machine(tmp_path)
    machine.add("sdb", "8:16", files, udev)
    assert machine.identity(8, 16) == identity


def test_goes_with_the_disk_when_names_are_handed_out_anew(tmp_path: Path) -> None:
    before, after = Machine(tmp_path / "before"), Machine(tmp_path / "after")
    one, two = {"device/wwid": "naa.5001"}, {"device/wwid": "naa.5002"}
    before.add("sdb", "8:16", one)
    before.add("sdc", "8:32", two)
    after.add("sdb", "8:16", two)
    after.add("sdc", "8:32", one)
    assert before.identity(8, 16) == after.identity(8, 32) != after.identity(8, 16)


def test_of_a_partition(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("sdb", "8:16", {"device/wwid": "naa.5001"})
    machine.add("sdb/sdb1", "8:17", {"partition": "1", "start": "2048"})
    machine.add("sdb/sdb2", "8:18", {"partition": "2", "start": "4096"})
    assert machine.identity(8, 17) == "wwid:naa.5001:partition@2048"
    assert machine.identity(8, 18) == "wwid:naa.5001:partition@4096"
    machine.add("vda", "254:0", {})
    machine.add("vda/vda1", "254:1", {"partition": "1", "start": "2048", "uevent": "PARTN=1\nPARTUUID=a-1"})
    assert machine.identity(254, 1) == "partuuid:a-1"
    machine.add("vda/vda2", "254:2", {"partition": "2", "start": "9"}, "E:ID_PART_ENTRY_UUID=a-2\n")
    assert machine.identity(254, 2) == "partuuid:a-2"
    machine.add("vda/vda3", "254:3", {"partition": "3", "start": "99"})
    assert machine.identity(254, 3) is None


def test_of_a_device_that_is_gone(tmp_path: Path) -> None:
    assert Machine(tmp_path).identity(8, 16) is None


@pytest.mark.parametrize(
    ("links", "better"),
    [
        (
            ["disk/by-path/x", "disk/by-id/ata-b", "disk/by-id/wwn-0x5", "disk/by-id/ata-a"],
            "disk/by-id/wwn-0x5",
        ),
        (
            ["disk/by-uuid/1", "disk/by-partuuid/2", "disk/by-id/ata-b", "disk/by-id/ata-a"],
            "disk/by-id/ata-a",
        ),
        (["disk/by-uuid/1", "disk/by-partuuid/2"], "disk/by-partuuid/2"),
        (["disk/by-path/x", "disk/by-diskseq/1"], None),
        ([], None),
    ],
)
def test_a_path_that_lasts(tmp_path: Path, links: list[str], better: str | None) -> None:
    machine = Machine(tmp_path)
    machine.add("sdb", "8:16", {}, "".join(f"S:{link}\n" for link in links))
    node, link = tmp_path / "sdb", tmp_path / "link"
    node.touch()
    link.symlink_to(node)
    number = os.makedev(8, 16)
    found = lasting_path(str(node), number, udev=machine.udev)
    assert found == (better and f"/dev/{better}")
    assert lasting_path(str(link), number, udev=machine.udev) is None
