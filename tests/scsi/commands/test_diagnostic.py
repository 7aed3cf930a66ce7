"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS and self-tests."""

import errno
import struct

import pytest

from tests.scsi.disk import BLOCK, Answer, Disk, invalid_field
from vscsihba.block import Buffer, Read
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.response import Background

DEFAULT, SHORT, EXTENDED = 0x04, 5 << 5, 6 << 5
BACKGROUND_SHORT, BACKGROUND_EXTENDED, ABORT = 1 << 5, 2 << 5, 4 << 5
PASSED, ABORTED, FAILED, RUNNING = 0x0, 0x1, 0x7, 0xF


def test_diagnostic_page() -> None:
    for cdb in ("1c 01 00 00ff 00", "1c 00 00 00ff 00"):
        assert Disk().run(cdb).data == bytes.fromhex("00 00 0001 00")
    assert invalid_field(Disk().run("1c 01 3f 00ff 00")) == (2, None)


def send(disk: Disk, flags: int) -> Answer:
    return disk.run(bytes([0x1D, flags, 0, 0, 0, 0]), out=b"")


def begin(disk: Disk, flags: int) -> Background:
    response = disk.drive(disk.lu.execute(bytes([0x1D, flags, 0, 0, 0, 0]), Buffer()))
    assert response.background is not None
    return response.background


def results(disk: Disk) -> list[tuple[int, int, int]]:
    """Return code, result and first failing LBA of each self-test, the newest first."""
    data = disk.run("4d 00 50 00 00 0000 0fff 00").data[4:]
    assert len(data) == 400
    tests = []
    for at in range(0, 400, 20):
        code, lba = data[at + 4], int.from_bytes(data[at + 8 : at + 16], "big")
        if any(data[at + 4 : at + 20]):
            tests.append((code >> 5, code & 0x0F, lba))
    return tests


@pytest.mark.parametrize("flags", [DEFAULT, SHORT, BACKGROUND_SHORT])
def test_self_test_short_reads_three_places(flags: int) -> None:
    disk = Disk()
    assert send(disk, flags).good
    assert [op.offset // BLOCK for op in disk.operations if isinstance(op, Read)] == [0, 32, 63]


@pytest.mark.parametrize("flags", [EXTENDED, BACKGROUND_EXTENDED])
def test_self_test_extended_reads_everything(flags: int) -> None:
    disk = Disk()
    assert send(disk, flags).good
    assert sum(len(op.views[0]) for op in disk.operations if isinstance(op, Read)) == 64 * BLOCK
    assert results(disk) == [(flags >> 5, PASSED, (1 << 64) - 1)]


def test_self_test_that_fails_in_the_foreground() -> None:
    disk = Disk()
    disk.bad_offsets = {63 * BLOCK}
    for flags in (DEFAULT, SHORT):
        assert send(disk, flags).condition == (SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST)
    assert results(disk) == [(5, FAILED, 63)], "the default test leaves no trace in the log"


def test_self_test_that_fails_in_the_background() -> None:
    disk = Disk()
    disk.bad_offsets = {32 * BLOCK}
    assert send(disk, BACKGROUND_SHORT).good
    assert results(disk) == [(1, FAILED, 32)]
    assert disk.lu.fast_path_clear


def test_self_test_runs_and_is_aborted() -> None:
    disk = Disk(blocks=65536 * 2)
    work = begin(disk, BACKGROUND_EXTENDED)
    next(work)
    assert results(disk)[0][:2] == (2, RUNNING)
    busy = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS)
    assert send(disk, BACKGROUND_SHORT).condition == busy
    assert send(disk, ABORT).good
    disk.operations.clear()
    disk.drive(work)
    assert len(disk.operations) < 32, "it stopped well before the end"
    assert results(disk)[0][:2] == (2, ABORTED)


def test_self_test_ends_with_a_reset() -> None:
    disk = Disk(blocks=65536)
    work = begin(disk, BACKGROUND_EXTENDED)
    next(work)
    disk.lu.reset()
    disk.run("00" * 6)
    disk.drive(work)
    assert results(disk)[0][:2] == (2, 0x2)


def test_self_test_abort_without_a_test_is_refused() -> None:
    assert invalid_field(send(Disk(), ABORT)) == (1, 7)


def test_self_test_log_keeps_the_last_twenty() -> None:
    disk = Disk()
    for _ in range(22):
        send(disk, SHORT)
    assert len(results(disk)) == 20


def test_self_test_log_tells_the_hours() -> None:
    now = [1000]
    disk = Disk(clock=lambda: now[0])
    now[0] += 7 * 3_600_000
    send(disk, SHORT)
    assert disk.run("4d 00 50 00 00 0000 0fff 00").data[10:12] == struct.pack(">H", 7)


@pytest.mark.parametrize("flags", [3 << 5, 7 << 5, 5 << 5 | 0x04])
def test_self_test_code_that_makes_no_sense_is_refused(flags: int) -> None:
    assert invalid_field(send(Disk(), flags)) == (1, 7)


def test_send_diagnostic_without_a_wish() -> None:
    disk = Disk()
    assert send(disk, 0x10).good
    assert disk.operations == []


@pytest.mark.parametrize(
    ("cdb", "out", "condition"),
    [
        ("1d 10 00 0004 00", "00000000", None),
        ("1d 10 00 0004 00", "40000000", (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)),
        ("1d 10 00 0004 00", "000000", (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)),
        ("1d 10 00 0003 00", "000000", (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)),
        ("1d 04 00 0004 00", "00000000", (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)),
    ],
)
def test_send_diagnostic_page(cdb: str, out: str, condition: tuple[int, int] | None) -> None:
    assert Disk().run(cdb, out=bytes.fromhex(out)).condition == condition


def test_self_test_reports_trouble_that_is_not_the_mediums() -> None:
    disk = Disk()
    disk.faults[Read] = OSError(errno.ENOMEM, "busy")
    assert send(disk, SHORT).condition == (SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST)
