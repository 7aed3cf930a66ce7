"""Timestamp, identifying information, task management functions, security protocols."""

import errno
import struct

import pytest

from tests.scsi.disk import Answer, Disk, invalid_field
from vscsihba.scsi import Asc, SenseKey

TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def timestamp(disk: Disk) -> tuple[int, int]:
    data = disk.run("a3 0f 00000000 000000ff 00 00").data
    assert data[:2] == b"\x00\x0a"
    assert len(data) == 12
    return data[2] & 7, int.from_bytes(data[4:10], "big")


def test_timestamp_is_the_hosts_until_it_is_set() -> None:
    now = [5_000]
    disk = Disk(clock=lambda: now[0])
    assert timestamp(disk) == (3, 5_000)
    now[0] += 1
    assert timestamp(disk) == (3, 5_001)
    out = bytes(4) + (1_000_000).to_bytes(6, "big") + bytes(2)
    assert disk.run("a4 0f 00000000 0000000c 00 00", out=out).good
    now[0] += 10
    assert timestamp(disk) == (2, 1_000_010)


@pytest.mark.parametrize(("length", "sent"), [(11, 11), (12, 11)])
def test_timestamp_cut_short_is_refused(length: int, sent: int) -> None:
    answer = Disk().run(struct.pack(">BB4xIxx", 0xA4, 0x0F, length), out=bytes(sent))
    assert answer.condition == TOO_SHORT


def test_timestamp_of_no_length_changes_nothing() -> None:
    disk = Disk()
    assert disk.run("a4 0f 00000000 00000000 00 00", out=b"").good
    assert timestamp(disk)[0] == 3


def name(disk: Disk, kind: int, out: bytes) -> Answer:
    return disk.run(struct.pack(">BB4xIBx", 0xA4, 0x06, len(out), kind << 1), out=out)


def asked(disk: Disk, kind: int) -> bytes:
    data = disk.run(struct.pack(">BB4xIBx", 0xA3, 0x05, 512, kind << 1)).data
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[4:]


def test_identifying_information_is_kept() -> None:
    kept: list[bytes] = []
    disk = Disk(on_save=kept.append)
    assert asked(disk, 0) == b""
    assert name(disk, 0, b"\x01\x00\x02").good
    assert name(disk, 2, b"the cellar\0").good
    again = Disk(saved_state=kept[-1])
    assert asked(again, 0) == b"\x01\x00\x02"
    assert asked(again, 2) == b"the cellar\0"
    assert name(again, 2, b"").good
    assert asked(again, 2) == b""


def test_identifying_information_that_cannot_be_kept_is_as_before() -> None:
    def full(_state: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room")

    disk = Disk(on_save=full)
    assert not name(disk, 0, b"new").good
    assert asked(disk, 0) == b""


def test_identifying_information_types() -> None:
    assert asked(Disk(), 0x7F) == bytes.fromhex("00 00 0040 04 00 0100")


def test_identifying_information_wrong_fields() -> None:
    assert invalid_field(name(Disk(), 1, b"x")) == (10, 7)
    assert invalid_field(name(Disk(), 0, bytes(65))) == (6, None)
    assert invalid_field(Disk().run(struct.pack(">BB4xIBx", 0xA3, 0x05, 512, 1 << 1))) == (10, 7)
    for text in (b"no end", b"two\0ends\0"):
        assert name(Disk(), 2, text).condition == (
            SenseKey.ILLEGAL_REQUEST,
            Asc.INVALID_FIELD_IN_PARAMETER_LIST,
        )


def test_task_management_functions() -> None:
    assert Disk().run("a3 0d 00 000000 000000ff 00 00").data == bytes.fromhex("88 00 00 00")
    assert Disk().run("a3 0d 80 000000 000000ff 00 00").data == bytes.fromhex("88 00 00 0c") + bytes(12)


def test_security_protocol_list() -> None:
    assert Disk().run("a2 00 0000 00 00 00000100 00 00").data == bytes.fromhex("000000000000 0001 00")
    assert Disk().run("a2 00 0001 00 00 00000100 00 00").data == bytes(4)


def test_security_protocol_length_in_512_bytes() -> None:
    data = Disk().run("a2 00 0000 80 00 00000001 00 00").data
    assert data == bytes.fromhex("000000000000 0001") + bytes(504)


def test_security_protocol_that_is_not_offered_is_refused() -> None:
    assert invalid_field(Disk().run("a2 01 0000 00 00 00000100 00 00")) == (1, None)
    assert invalid_field(Disk().run("a2 00 0002 00 00 00000100 00 00")) == (2, None)
