"""Finding TCMU devices in sysfs."""

from pathlib import Path

import pytest

from vscsihba.tcmu.uio import UioDevice, discover, read_device


def make(sysfs: Path, entry: str, name: bytes, size: str = "0x40800000") -> Path:
    """Make the files of one uio device as drivers/uio/uio.c does."""
    folder = sysfs / entry
    (folder / "maps/map0").mkdir(parents=True)
    (folder / "name").write_bytes(name + b"\n")
    (folder / "maps/map0/size").write_text(size + "\n")
    return folder


def test_device_is_read_from_its_name(tmp_path: Path) -> None:
    entry = make(tmp_path, "uio3", b"tcm-user/5/disk0/vscsihba/hba0/lun0")
    assert read_device(entry) == UioDevice(Path("/dev/uio3"), 5, "disk0", "vscsihba", "hba0/lun0", 0x40800000)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"tcm-user/0/a", ("a", "", "")),
        (b"tcm-user/0/a/", ("a", "", "")),
        (b"tcm-user/0/a/glfs", ("a", "glfs", "")),
        (b"tcm-user/0/a/file/", ("a", "file", "")),
        (b"tcm-user/0/a/file//srv/x y.img ", ("a", "file", "/srv/x y.img ")),
        (b"tcm-user/0/a/file/two\nlines\n", ("a", "file", "two\nlines\n")),
        (b"tcm-user/0/a/file/\xff\xe4.img", ("a", "file", "\udcff\udce4.img")),
    ],
)
def test_configuration_is_taken_as_it_is(tmp_path: Path, name: bytes, parts: tuple[str, str, str]) -> None:
    device = read_device(make(tmp_path, "uio0", name))
    assert device is not None
    assert (device.name, device.subtype, device.config) == parts


@pytest.mark.parametrize(
    "name", [b"igb_uio", b"", b"tcm-user", b"tcm-user/", b"tcm-user/0", b"tcm-user/x/a", b"my/tcm-user/0/a"]
)
def test_other_uio_devices_are_none_of_ours(tmp_path: Path, name: bytes) -> None:
    assert read_device(make(tmp_path, "uio0", name)) is None


def test_device_that_goes_while_it_is_read(tmp_path: Path) -> None:
    entry = make(tmp_path, "uio0", b"tcm-user/0/a")
    (entry / "maps/map0/size").unlink()
    assert read_device(entry) is None
    assert read_device(tmp_path / "uio1") is None


def test_devices_come_by_number(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make(tmp_path, f"uio{number}", b"tcm-user/0/d%d" % number)
    make(tmp_path, "uio1", b"another driver")
    make(tmp_path, "uio_pci", b"tcm-user/0/no_number")
    assert [device.name for device in discover(tmp_path)] == ["d0", "d2", "d10"]


def test_machine_without_uio(tmp_path: Path) -> None:
    assert discover(tmp_path / "missing") == []
