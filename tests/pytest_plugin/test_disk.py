from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hba.rig import CHECK_CONDITION, READ
from vscsihba.capture.saved import saved_commands
from vscsihba.errors import ConfigError, UsageError
from vscsihba.hba import LoopbackPort, VirtualHba
from vscsihba.pytest_plugin.disk import Disk, document, make_disk

BAD = {"handler": "error", "error": "medium"}


class DiskPort(LoopbackPort):
    """A port with a disk for each LUN."""

    def disk(self, lun: int, timeout: float) -> Path:
        return Path(f"/dev/disk-of-{lun}")


@pytest.fixture
def port() -> DiskPort:
    return DiskPort()


@pytest.fixture
def hba(port: DiskPort) -> Iterator[VirtualHba]:
    with VirtualHba(255, port=port) as entered:
        yield entered


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Disks that were told to drop their cache, in place of the ioctl."""
    paths: list[Path] = []
    monkeypatch.setattr(Disk, "forget", lambda disk: paths.append(disk.path))
    return paths


def read(port: DiskPort, lun: int = 0) -> int:
    return port.run(lun, READ, data_in=512).status


def test_a_fault_is_on_inside_its_context_only(
    hba: VirtualHba, port: DiskPort, tmp_path: Path, forgotten: list[Path]
) -> None:
    disk = make_disk(hba, tmp_path, "1MiB", faults={"bad": BAD})
    assert read(port) == 0
    with disk.fault("bad"):
        assert read(port) == CHECK_CONDITION
    assert read(port) == 0
    assert forgotten == [disk.path]


def test_a_fault_ends_with_the_test_that_fails_in_it(
    hba: VirtualHba, port: DiskPort, tmp_path: Path, forgotten: list[Path]
) -> None:
    disk = make_disk(hba, tmp_path, faults={"bad": BAD})
    with pytest.raises(ZeroDivisionError), disk.fault("bad"):
        _ = 1 / 0
    assert read(port) == 0


def test_faults_are_of_one_disk_each(
    hba: VirtualHba, port: DiskPort, tmp_path: Path, forgotten: list[Path]
) -> None:
    first, second = (make_disk(hba, tmp_path, faults={"bad": BAD}) for _ in range(2))
    assert (first.number, second.number) == (0, 1)
    with first.fault("bad"):
        assert (read(port, 0), read(port, 1)) == (CHECK_CONDITION, 0)


def test_a_fault_that_it_was_not_made_with(hba: VirtualHba, tmp_path: Path) -> None:
    disk = make_disk(hba, tmp_path, faults={"bad": BAD})
    with pytest.raises(UsageError, match="no fault 'worse'; its faults are: bad"), disk.fault("worse"):
        pass


def test_a_capture_has_the_commands_of_its_disk(hba: VirtualHba, port: DiskPort, tmp_path: Path) -> None:
    disk, other = make_disk(hba, tmp_path, "1MiB"), make_disk(hba, tmp_path, "1MiB")
    read(port, disk.number)
    with disk.capture(snaplen=16) as capture:
        read(port, disk.number)
        read(port, other.number)
    read(port, disk.number)
    (command,) = capture.commands
    assert (command.name, command.status, len(command.record.data)) == ("READ(10)", "GOOD", 16)
    assert (command.hba, command.record.lun) == (hba.id, disk.number)
    capture.save(tmp_path / "disk.pcapng")
    assert [found.cdb for found in saved_commands(tmp_path / "disk.pcapng")] == [command.cdb.ljust(16, b"\0")]


def test_a_removed_disk_leaves_its_number_free(hba: VirtualHba, port: DiskPort, tmp_path: Path) -> None:
    make_disk(hba, tmp_path).remove()
    assert port.loopbacks == {}
    assert make_disk(hba, tmp_path).number in {0, 1}


def test_layers_and_faults_are_stacked_from_the_top() -> None:
    layers = [{"handler": "readonly"}, {"handler": "log", "path": "x"}]
    assert document(None, "/srv/a.img", layers, {"bad": BAD}, {"bad": Path("/run/bad")}) == {
        **BAD,
        "trigger": "/run/bad",
        "next": {"handler": "readonly", "next": {"handler": "log", "path": "x", "next": "/srv/a.img"}},
    }


def test_the_bottom_is_memory() -> None:
    assert document(None, None, [], {}, {}) == {"handler": "memory", "size": "64MiB"}
    assert document(4096, None, [], {}, {}) == {"handler": "memory", "size": 4096}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"size": "1MiB", "source": "a.img"}, "a size or a source"),
        ({"layers": [{"handler": "readonly", "next": "a.img"}]}, "'next'"),
        ({"faults": {"bad": {**BAD, "trigger": "x"}}}, "'trigger'"),
        ({"faults": {"../bad": BAD}}, "is not a valid name"),
    ],
)
def test_what_cannot_be_meant(hba: VirtualHba, tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_disk(hba, tmp_path, **how)
    assert hba.luns == {}


def test_a_handler_that_cannot_be_switched(hba: VirtualHba, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trigger"):
        make_disk(hba, tmp_path, faults={"bad": {"handler": "readonly"}})
