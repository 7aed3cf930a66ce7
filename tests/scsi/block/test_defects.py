"""READ DEFECT DATA and REASSIGN BLOCKS."""

import errno
import struct

import pytest

from tests.scsi.disk import BLOCK, Disk
from vscsihba.block import Read, Write
from vscsihba.scsi import Asc, SenseKey

TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        ("37 00 1d 00000000 00ff 00", "00 1d 0000"),
        ("37 00 05 00000000 00ff 00", "00 05 0000"),
        ("b7 1d 00000000 000000ff 00 00", "00 1d 0000 00000000"),
    ],
)
def test_read_defect_data_is_empty(cdb: str, data: str) -> None:
    assert Disk().run(cdb).data == bytes.fromhex(data)


def test_reassign_blocks_leaves_readable_blocks_alone() -> None:
    disk = Disk()
    disk.medium[:] = b"\x11" * len(disk.medium)
    assert disk.run("07 00 00 00 00 00", out=struct.pack(">HHII", 0, 8, 3, 5)).good
    assert [type(op) for op in disk.operations] == [Read, Read]
    assert disk.medium == b"\x11" * len(disk.medium)


def test_reassign_blocks_renews_what_cannot_be_read() -> None:
    disk = Disk()
    disk.medium[:] = b"\x11" * len(disk.medium)
    disk.faults[Read] = OSError(errno.EIO, "lost")
    assert disk.run("07 02 00 00 00 00", out=struct.pack(">HHQ", 0, 8, 3)).good
    assert isinstance(disk.operations[-1], Write)
    assert disk.medium[3 * BLOCK : 4 * BLOCK] == bytes(BLOCK)
    assert disk.medium.count(0) == BLOCK


def test_reassign_blocks_passes_other_trouble_on() -> None:
    disk = Disk()
    disk.faults[Read] = OSError(errno.ENOMEM, "busy")
    answer = disk.run("07 00 00 00 00 00", out=struct.pack(">HHI", 0, 4, 3))
    assert answer.condition == (SenseKey.ABORTED_COMMAND, Asc.INSUFFICIENT_RESOURCES)


def test_reassign_blocks_checks_all_before_it_does_any() -> None:
    disk = Disk()
    answer = disk.run("07 00 00 00 00 00", out=struct.pack(">HHII", 0, 8, 3, 64))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    assert disk.operations == []


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        ("07 00 00 00 00 00", "0000"),
        ("07 00 00 00 00 00", "0000 0008 00000001"),
        ("07 00 00 00 00 00", "0000 0005 0000000100"),
        ("07 02 00 00 00 00", "0000 0004 00000001"),
        ("07 01 00 00 00 00", "00010004 00000001"),
    ],
)
def test_reassign_blocks_with_a_wrong_length(cdb: str, data: str) -> None:
    assert Disk().run(cdb, out=bytes.fromhex(data)).condition == TOO_SHORT
