"""READ BUFFER and WRITE BUFFER."""

import struct

import pytest

from tests.scsi.disk import Answer, Disk, invalid_field
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.commands.buffers import DATA_SIZE, ECHO_SIZE

DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B


def read(disk: Disk, mode: int, buffer_id: int = 0, offset: int = 0, length: int = 0xFFFF) -> Answer:
    cdb = struct.pack(">BBI", 0x3C, mode, buffer_id << 24 | offset) + length.to_bytes(3, "big") + b"\0"
    return disk.run(cdb, room=length)


def write(disk: Disk, mode: int, out: bytes, buffer_id: int = 0, offset: int = 0) -> Answer:
    cdb = struct.pack(">BBI", 0x3B, mode, buffer_id << 24 | offset) + len(out).to_bytes(3, "big") + b"\0"
    return disk.run(cdb, out=out)


def test_buffer_descriptors() -> None:
    disk = Disk()
    assert read(disk, DESCRIPTOR).data == b"\0" + DATA_SIZE.to_bytes(3, "big")
    assert read(disk, DESCRIPTOR, buffer_id=1).data == bytes(4)
    assert read(disk, ECHO_DESCRIPTOR).data == ECHO_SIZE.to_bytes(4, "big")


def test_data_buffer_returns_what_was_written() -> None:
    disk = Disk()
    assert write(disk, DATA, b"abcdef", offset=100).good
    assert read(disk, DATA, offset=102, length=3).data == b"cde"


def test_echo_buffer_returns_what_was_written() -> None:
    disk = Disk()
    assert write(disk, ECHO, b"abc").good
    assert read(disk, ECHO).data == b"abc"


def test_echo_buffer_before_anything_was_written() -> None:
    assert read(Disk(), ECHO).condition == (SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)


def test_buffer_limits() -> None:
    disk = Disk()
    assert write(disk, DATA, bytes(DATA_SIZE)).good
    assert invalid_field(write(disk, DATA, bytes(2), offset=DATA_SIZE - 1)) == (6, None)
    assert invalid_field(write(disk, DATA, b"", offset=DATA_SIZE + 1)) == (3, None)
    assert invalid_field(read(disk, DATA, offset=DATA_SIZE + 1)) == (3, None)
    assert invalid_field(write(disk, ECHO, bytes(ECHO_SIZE + 1))) == (6, None)
    assert invalid_field(write(disk, DATA, b"", buffer_id=1)) == (2, None)
    assert invalid_field(read(disk, DATA, buffer_id=1)) == (2, None)


@pytest.mark.parametrize("mode", [0x00, 0x01, 0x04, 0x05, 0x07, 0x0E, 0x1A])
def test_buffer_mode_that_is_not_offered_is_refused(mode: int) -> None:
    assert invalid_field(read(Disk(), mode)) == (1, 4)
    assert invalid_field(write(Disk(), mode, b"")) == (1, 4)


def test_write_buffer_with_too_little_data_is_refused() -> None:
    assert invalid_field(Disk().run("3b 02 00 000000 000004 00", out=b"abc")) == (6, None)
