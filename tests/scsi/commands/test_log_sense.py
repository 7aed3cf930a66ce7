"""LOG SENSE, LOG SELECT and the log pages."""

import errno
import struct

import pytest

from tests.scsi.disk import BLOCK, Disk, invalid_field
from vscsihba.block import AskSpace, Read, Space, Write
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.log_pages import PAGES
from vscsihba.scsi.mode_pages import LOGICAL_BLOCK_PROVISIONING, READ_WRITE_ERROR_RECOVERY

READ, WRITE = "28 00 00000000 00 0002 00", "2a 00 00000000 00 0003 00"


def page(disk: Disk, code: int, subpage: int = 0, pointer: int = 0) -> bytes:
    answer = disk.run(struct.pack(">BBBBxHHx", 0x4D, 0, 0x40 | code, subpage, pointer, 4096))
    assert answer.good
    assert answer.data[0] == code | (0x40 if subpage else 0)
    assert answer.data[1] == subpage
    assert int.from_bytes(answer.data[2:4], "big") == len(answer.data) - 4
    return answer.data[4:]


def parameters(disk: Disk, code: int) -> dict[int, int]:
    """Return a page's parameters as numbers."""
    body = page(disk, code)
    values, at = {}, 0
    while at < len(body):
        parameter, _, length = struct.unpack_from(">HBB", body, at)
        values[parameter] = int.from_bytes(body[at + 4 : at + 4 + length], "big")
        at += 4 + length
    assert at == len(body)
    return values


def test_log_sense_lists_every_page() -> None:
    assert page(Disk(), 0) == bytes([0, *(key[0] for key in PAGES)])
    assert page(Disk(), 0, 0xFF)[:4] == bytes([0, 0, 0, 0xFF])


@pytest.mark.parametrize("key", PAGES, ids=[name for name, *_ in PAGES.values()])
def test_log_sense_every_page_can_be_read(key: tuple[int, int]) -> None:
    parameters(Disk(), key[0])


@pytest.mark.parametrize(
    ("cdb", "pointer"),
    [
        ("4d 00 77 00 00 0000 00ff 00", (2, 5)),
        ("4d 00 42 07 00 0000 00ff 00", (3, None)),
        ("4d 00 02 00 00 0000 00ff 00", (2, 7)),
        ("4d 00 42 00 00 0007 00ff 00", (5, None)),
        ("4d 01 42 00 00 0000 00ff 00", (1, 0)),
    ],
)
def test_log_sense_wrong_field_is_refused(cdb: str, pointer: tuple[int, int | None]) -> None:
    assert invalid_field(Disk().run(cdb)) == pointer


def test_log_sense_from_a_parameter_on() -> None:
    assert page(Disk(), 0x02, pointer=5)[:2] == bytes([0, 5])


def test_log_error_counters_count() -> None:
    disk = Disk()
    disk.run(READ)
    disk.run(WRITE, out=bytes(3 * BLOCK))
    disk.run("2f 00 00000000 00 0004 00", out=b"")
    assert parameters(disk, 0x03)[5] == 2 * BLOCK
    assert parameters(disk, 0x02)[5] == 3 * BLOCK
    assert parameters(disk, 0x05)[5] == 4 * BLOCK
    disk.faults[Read] = disk.faults[Write] = OSError(errno.EIO, "lost")
    disk.run(READ)
    disk.run(WRITE, out=bytes(3 * BLOCK))
    disk.run("2f 00 00000000 00 0004 00", out=b"")
    disk.faults[Read] = OSError(errno.EBADF, "what?")
    disk.run(READ)
    assert [parameters(disk, code)[6] for code in (0x02, 0x03, 0x05)] == [1, 1, 1]
    assert parameters(disk, 0x06) == {0: 1}


def test_log_general_statistics_count_commands_and_blocks() -> None:
    disk = Disk()
    disk.run(READ)
    disk.run(READ)
    disk.run(WRITE, out=bytes(3 * BLOCK))
    assert struct.unpack_from(">QQQQ", page(disk, 0x19), 4) == (2, 1, 3, 4)


def test_log_start_stop_and_power_transitions() -> None:
    disk = Disk(removable=True)
    for cdb in ("1b 00 00 00 00 00", "1b 00 00 00 02 00", "1b 00 00 00 03 00", "1b 00 00 00 20 00", READ):
        assert disk.run(cdb).good
    assert parameters(disk, 0x0E) == {4: 2, 6: 1}
    assert parameters(disk, 0x1A) == {1: 1, 2: 1, 8: 0}


def test_log_informational_exceptions_have_no_temperature() -> None:
    assert parameters(Disk(), 0x2F) == {0: 0x0000FF00}


def test_log_select_clears_the_log_and_not_the_engines_counters() -> None:
    disk = Disk()
    disk.run(READ)
    assert disk.run("4c 02 40 00 00 0000 0000 00").good
    assert parameters(disk, 0x03)[5] == 0
    assert disk.lu.stats.read_bytes == 2 * BLOCK
    disk.run(READ)
    assert parameters(disk, 0x03)[5] == 2 * BLOCK


def test_log_select_without_pcr_changes_nothing() -> None:
    disk = Disk()
    disk.run(READ)
    assert disk.run("4c 00 40 00 00 0000 0000 00").good
    assert parameters(disk, 0x03)[5] == 2 * BLOCK


def test_log_provisioning_shows_space_once_it_is_known() -> None:
    disk = Disk()
    assert page(disk, 0x0C) == b""
    disk.space = Space(available=10 << 20, used=3 << 20)
    assert page(disk, 0x0C) == bytes.fromhex("0001 03 08 0000000a 01000000 0002 03 08 00000003 01000000")


def watch_space(disk: Disk, threshold: int) -> None:
    recovery = bytearray(disk.lu.mode_pages.current[READ_WRITE_ERROR_RECOVERY])
    recovery[7] |= 0x80
    provisioning = bytearray(disk.lu.mode_pages.current[LOGICAL_BLOCK_PROVISIONING])
    provisioning[16] |= 0x80
    provisioning[20:24] = threshold.to_bytes(4, "big")
    data = bytes(4) + bytes(recovery) + bytes(provisioning)
    assert disk.run(bytes([0x15, 0x10, 0, 0, len(data), 0]), out=data).good


def test_space_threshold_is_reported_once_each_time_it_is_crossed() -> None:
    disk = Disk()
    watch_space(disk, 5)
    reached = (SenseKey.UNIT_ATTENTION, Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)
    seen = []
    for available in (9, 5, 4, 7, 2):
        disk.space = Space(available << 20, 0)
        assert disk.run(WRITE, out=bytes(3 * BLOCK)).good
        seen.append(disk.run("00" * 6).condition)
    assert seen == [None, reached, None, None, reached]


def test_space_is_looked_at_when_it_may_have_changed_and_not_else() -> None:
    disk = Disk()
    watch_space(disk, 5)
    assert not disk.lu.fast_path_clear, "the fast path would not look"
    disk.space = Space(0, 0)
    assert disk.run(READ).good
    assert disk.run(READ).good


def test_space_that_cannot_be_told_is_no_trouble() -> None:
    disk = Disk()
    watch_space(disk, 5)
    disk.faults[AskSpace] = OSError(errno.EIO, "lost")
    assert disk.run(WRITE, out=bytes(3 * BLOCK)).good
    assert disk.run(WRITE, out=bytes(3 * BLOCK)).good
    assert page(disk, 0x0C) == b""


def test_space_threshold_is_not_reported_unless_enabled() -> None:
    disk = Disk()
    disk.space = Space(0, 0)
    assert disk.run(WRITE, out=bytes(3 * BLOCK)).good
    assert disk.lu.fast_path_clear
    assert AskSpace() not in disk.operations
