"""Sense data for an errno."""

import errno

import pytest

from tests.scsi.disk import Disk
from vscsihba.block import Read, Unmap
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.faults import SENSE_OF_ERRNO

READ = "28 00 00000000 00 0001 00"


@pytest.mark.parametrize("number", SENSE_OF_ERRNO, ids=errno.errorcode.__getitem__)
def test_fault_of_the_table(number: int) -> None:
    disk = Disk()
    disk.faults[Read] = OSError(number, "fault")
    assert disk.run(READ).condition == SENSE_OF_ERRNO[number]


def test_fault_without_a_place_has_no_information() -> None:
    disk = Disk()
    disk.faults[Read] = OSError(errno.EIO, "lost")
    answer = disk.run(READ)
    assert answer.condition == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert answer.information is None


def test_fault_unheard_of_is_ours() -> None:
    disk = Disk()
    disk.faults[Read] = OSError(errno.EXDEV, "what?")
    assert disk.run(READ).condition == (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)


def test_fault_without_errno_is_ours() -> None:
    disk = Disk()
    disk.faults[Read] = OSError("what?")
    assert disk.run(READ).condition == (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)


def test_fault_of_unmap_is_a_write_error() -> None:
    disk = Disk()
    disk.faults[Unmap] = OSError(errno.EIO, "lost")
    answer = disk.run(
        "42 00 00000000 00 0018 00", out=bytes.fromhex("0016 0010 00000000") + bytes(11) + b"\x01" + bytes(4)
    )
    assert answer.condition == (SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)


def test_bug_passes_through() -> None:
    disk = Disk()
    disk.bad_offsets = {"not a number"}  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        disk.run(READ)
