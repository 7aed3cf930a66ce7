"""REPORT SUPPORTED OPERATION CODES."""

import struct

import pytest

from tests.scsi.disk import Disk, everything, invalid_field
from vscsihba.block import Capabilities
from vscsihba.scsi import TABLE


def ask(options: int, opcode: int = 0, service_action: int = 0, disk: Disk | None = None) -> bytes:
    cdb = struct.pack(">BBBBHIBB", 0xA3, 0x0C, options, opcode, service_action, 0xFFFF, 0, 0)
    answer = (disk or everything()).run(cdb, room=0xFFFF)
    if not answer.good:
        assert invalid_field(answer) != (1, 4)
    return answer.data


def test_report_all_commands() -> None:
    data = ask(0)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    listed = [struct.unpack_from(">BxHxBH", data, at) for at in range(4, len(data), 8)]
    assert [(op, sa if flags & 1 else None) for op, sa, flags, _ in listed] == list(TABLE)
    assert all(not flags & 2 for _, _, flags, _ in listed)
    assert [length for *_, length in listed] == [row.length for row in TABLE.values()]


def test_report_all_commands_with_timeouts() -> None:
    data = ask(0x80)
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == 20 * len(TABLE)
    for at in range(4, len(data), 20):
        assert data[at + 5] & 2
        assert data[at + 8 : at + 10] == b"\x00\x0a"


def test_report_one_command() -> None:
    data = ask(1, 0x28)
    assert data == bytes.fromhex("00 03 000a 28 18 ffffffff 00 ffff 00")


def test_report_one_command_with_timeouts() -> None:
    data = ask(0x81, 0x28)
    assert data[1] == 0x83
    assert data[14:16] == b"\x00\x0a"
    assert len(data) == 26


@pytest.mark.parametrize("options", [2, 3])
def test_report_one_service_action(options: int) -> None:
    data = ask(options, 0x9E, 0x10)
    assert data[:6] == bytes.fromhex("00 03 0010 9e 10")


@pytest.mark.parametrize(
    ("options", "opcode", "service_action"),
    [(1, 0xFF, 0), (2, 0xFF, 1), (3, 0xFF, 0), (2, 0x9E, 0x1F), (3, 0x9E, 0x1F), (3, 0x28, 1)],
)
def test_report_unsupported_command(options: int, opcode: int, service_action: int) -> None:
    assert ask(options, opcode, service_action) == bytes([0, 1, 0, 0])


@pytest.mark.parametrize(("options", "opcode"), [(1, 0x9E), (2, 0x28)])
def test_report_option_that_does_not_fit_is_refused(options: int, opcode: int) -> None:
    cdb = struct.pack(">BBBBHIBB", 0xA3, 0x0C, options, opcode, 0, 0xFFFF, 0, 0)
    assert invalid_field(Disk().run(cdb)) == (3, None)


def test_report_reserved_option_is_refused() -> None:
    assert invalid_field(Disk().run("a3 0c 04 00 0000 0000ffff 00 00")) == (2, 2)


def test_report_follows_what_the_medium_can() -> None:
    assert ask(1, 0x42)[1] == 3
    assert ask(1, 0x42, disk=Disk(capabilities=Capabilities()))[1] == 1
