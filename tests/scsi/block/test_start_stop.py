"""START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL and power conditions."""

import errno

import pytest

from tests.scsi.disk import Disk, invalid_field
from vscsihba.block import Flush
from vscsihba.scsi import Asc, SenseKey

READY = "00" * 6
EJECT, LOAD = "1b 00 00 00 02 00", "1b 00 00 00 03 00"
PREVENT, ALLOW = "1e 00 00 00 01 00", "1e 00 00 00 00 00"
SENSE = "03 00 00 00 ff 00"
READ = "28 00 00000000 00 0001 00"
NO_MEDIUM = (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
PREVENTED = (SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)


def polled(disk: Disk) -> int:
    return int.from_bytes(disk.run(SENSE).data[12:14], "big")


def test_eject_takes_the_medium_away() -> None:
    disk = Disk(removable=True)
    assert disk.run(EJECT).good
    assert not disk.lu.fast_path_clear
    assert disk.operations == [Flush()]
    for cdb in (READY, READ, "25" + "00" * 9, "35" + "00" * 9):
        assert disk.run(cdb).condition == NO_MEDIUM
    assert disk.run("12 00 00 00ff 00").good
    assert disk.run("1a 00 3f 00 ff 00").good


def test_load_brings_the_medium_back() -> None:
    disk = Disk(removable=True)
    disk.run(EJECT)
    assert disk.run(LOAD).good
    assert disk.run(READY).good
    assert disk.lu.fast_path_clear


def test_eject_is_refused_where_nothing_is_removable() -> None:
    assert invalid_field(Disk().run(EJECT)) == (4, 1)


def test_prevented_removal() -> None:
    disk = Disk(removable=True)
    assert disk.run(PREVENT).good
    assert disk.run(EJECT).condition == PREVENTED
    assert disk.run(READY).good
    assert disk.run(ALLOW).good
    assert disk.run(EJECT).good
    disk.run(PREVENT)
    assert disk.run(LOAD).condition == PREVENTED


def test_prevention_ends_with_a_reset() -> None:
    disk = Disk(removable=True)
    disk.run(PREVENT)
    disk.lu.reset()
    disk.run(READY)
    assert disk.run(EJECT).good


def test_prevention_value_of_other_devices_is_refused() -> None:
    assert invalid_field(Disk(removable=True).run("1e 00 00 00 02 00")) == (4, 1)


def test_prevention_is_unknown_where_nothing_is_removable() -> None:
    assert Disk().run(PREVENT).condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)


@pytest.mark.parametrize(
    "cdb", ["1b 00 00 00 00 00", "1b 01 00 00 00 00", "1b 00 00 00 30 00", "1b 00 00 00 b0 00"]
)
def test_stop_flushes(cdb: str) -> None:
    disk = Disk()
    assert disk.run(cdb).good
    assert disk.operations == [Flush()]
    assert disk.run(READY).good, "there is no motor: a stopped unit serves on"


def test_stop_without_flush() -> None:
    disk = Disk()
    assert disk.run("1b 00 00 00 04 00").good
    assert disk.operations == []


def test_eject_that_cannot_flush_keeps_the_medium() -> None:
    disk = Disk(removable=True)
    disk.faults[Flush] = OSError(errno.EIO, "lost")
    assert disk.run(EJECT).condition == (SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)
    assert disk.run(READY).good


def test_allowing_removal_flushes_first() -> None:
    disk = Disk(removable=True)
    disk.run(PREVENT)
    disk.run(ALLOW)
    assert disk.operations == [Flush()]
    disk.run(ALLOW)
    assert disk.operations == [Flush()]


def test_stop_that_cannot_flush_fails() -> None:
    disk = Disk()
    disk.faults[Flush] = OSError(errno.EIO, "lost")
    assert disk.run("1b 00 00 00 00 00").condition == (SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)


@pytest.mark.parametrize(
    ("condition", "asc"),
    [
        (0x2, Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND),
        (0x3, Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND),
        (0xA, Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND),
        (0xB, Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND),
    ],
)
def test_power_condition_is_polled_and_ends_with_a_read(condition: int, asc: Asc) -> None:
    disk = Disk()
    assert disk.run(bytes([0x1B, 0, 0, 0, condition << 4, 0])).good
    assert not disk.lu.fast_path_clear
    assert polled(disk) == asc
    assert disk.run(READY).good
    assert polled(disk) == asc, "TEST UNIT READY moves no data"
    assert disk.run(READ).good
    assert polled(disk) == 0
    assert disk.lu.fast_path_clear


@pytest.mark.parametrize("cdb", ["1b 00 00 00 10 00", "1b 00 00 00 01 00", "1b 00 00 00 70 00"])
def test_power_condition_active(cdb: str) -> None:
    disk = Disk()
    disk.run("1b 00 00 00 20 00")
    assert disk.run(cdb).good
    assert disk.lu.fast_path_clear


@pytest.mark.parametrize("condition", [4, 5, 6, 8, 9, 12, 13, 14, 15])
def test_power_condition_that_does_not_exist_changes_nothing(condition: int) -> None:
    disk = Disk(removable=True)
    assert disk.run(bytes([0x1B, 1, 0, 0, condition << 4 | 2, 0])).good
    assert disk.lu.fast_path_clear
    assert disk.run(READY).good
