"""POPULATE TOKEN, WRITE USING TOKEN and RECEIVE ROD TOKEN INFORMATION."""

import errno
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scsi.disk import BLOCK, Answer, Disk, everything, invalid_field
from vscsihba.block import Buffer, OnUnit, Read, Write, WriteZeroes
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.copy.token_copy import LONGEST_TIMEOUT, MOST_RANGES
from vscsihba.scsi.sense import CheckCondition

Ranges = list[tuple[int, int]]
REVOKED = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED)
ZERO_TOKEN = bytes.fromhex("ffff0001 0000 01f8").ljust(512, b"\0")
IMMED, DELETE = 0x01, 0x02
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
IN_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
UNKNOWN = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)


def descriptors(ranges: Ranges) -> bytes:
    body = b"".join(struct.pack(">QI4x", *one) for one in ranges)
    return len(body).to_bytes(2, "big") + body


def send(disk: Disk, action: int, out: bytes, identifier: int) -> Answer:
    return disk.run(struct.pack(">BB4xIIxx", 0x83, action, identifier, len(out)), out=out)


def populate(
    disk: Disk, ranges: Ranges, identifier: int = 1, timeout: int = 0, kind: int = 0, flags: int = 0
) -> Answer:
    body = struct.pack(">BxIIxx", flags, timeout, kind) + descriptors(ranges)
    return send(disk, 0x10, len(body).to_bytes(2, "big") + body, identifier)


def write(
    disk: Disk, token: bytes, ranges: Ranges, offset: int = 0, flags: int = 0, identifier: int = 2
) -> Answer:
    body = struct.pack(">B5xQ", flags, offset) + token + bytes(6) + descriptors(ranges)
    return send(disk, 0x11, len(body).to_bytes(2, "big") + body, identifier)


def information(disk: Disk, identifier: int) -> tuple[int, int, int, int, bytes, bytes]:
    """Return service action, status, blocks transferred, segments, sense data and token."""
    data = disk.run(struct.pack(">BBI4xIxx", 0x84, 7, identifier, 4096)).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[15] == 0xF1
    blocks, segments = struct.unpack_from(">QH", data, 16)
    end = 32 + data[13]
    length = int.from_bytes(data[end : end + 4], "big")
    token = data[end + 4 : end + 4 + length]
    assert len(token) in (0, 514)
    return data[4], data[5], blocks, segments, data[32:end], token[2:]


@pytest.fixture
def disk() -> Disk:
    disk = everything()
    disk.medium[:] = bytes(block for block in range(64) for _ in range(BLOCK))
    return disk


def blocks(disk: Disk) -> list[int]:
    size = disk.lu.block_size
    return [disk.medium[at * size] for at in range(disk.lu.blocks)]


def token_of(disk: Disk, ranges: Ranges, **options: int) -> bytes:
    assert populate(disk, ranges, **options).good
    action, status, count, segments, sense, token = information(disk, 1)
    assert (action, status, sense) == (0x10, 0x01, b"")
    assert (count, segments) == (sum(length for _, length in ranges), 0)
    assert len(token) == 512
    return token


def test_token_copies_within_a_unit(disk: Disk) -> None:
    token = token_of(disk, [(2, 3), (10, 2)])
    assert write(disk, token, [(50, 4), (60, 1)]).good
    assert blocks(disk)[50:54] == [2, 3, 4, 10]
    assert blocks(disk)[60] == 11
    assert information(disk, 2)[:4] == (0x11, 0x01, 5, 0)


def test_token_describes_itself(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    assert token[:8] == bytes.fromhex("00800001 0000 01f8")
    assert token[16:24] == bytes.fromhex("e4 00 0000 01 03 00 08")
    assert token[24:32] == disk.lu.identity.naa
    assert int.from_bytes(token[48:64], "big") == 3 * BLOCK


def test_tokens_differ(disk: Disk) -> None:
    assert token_of(disk, [(2, 3)]) != token_of(disk, [(2, 3)])


def test_token_with_an_offset(disk: Disk) -> None:
    assert write(disk, token_of(disk, [(2, 3), (10, 5)]), [(50, 3)], offset=4).good
    assert blocks(disk)[50:53] == [11, 12, 13]


def test_token_copies_to_another_unit(disk: Disk) -> None:
    other = Disk(name="other")
    other.join(7, disk)
    assert write(other, token_of(disk, [(2, 3)]), [(0, 3)]).good
    assert blocks(other)[:4] == [2, 3, 4, 0]


def test_token_of_a_unit_that_is_not_visible(disk: Disk) -> None:
    assert write(Disk(name="other"), token_of(disk, [(2, 3)]), [(0, 3)]).condition == UNKNOWN


def test_token_that_was_never_given_out(disk: Disk) -> None:
    token = bytearray(token_of(disk, [(2, 3)]))
    token[8] ^= 1
    assert write(disk, bytes(token), [(0, 3)]).condition == UNKNOWN
    token[:4] = bytes.fromhex("00010000")
    unsupported = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
    assert write(disk, bytes(token), [(0, 3)]).condition == unsupported


def test_token_of_zeroes(disk: Disk) -> None:
    assert write(disk, ZERO_TOKEN, [(5, 2), (9, 0)]).good
    assert blocks(disk)[4:8] == [4, 0, 0, 7]
    assert [type(op) for op in disk.operations] == [WriteZeroes]


def test_token_expires() -> None:
    now = [0]
    disk = Disk(clock=lambda: now[0])
    token = token_of(disk, [(2, 3)], timeout=5)
    now[0] = 5_000
    assert write(disk, token, [(10, 3)]).good
    now[0] = 5_001
    assert disk.lu.tokens.find(token, 5_000)
    with pytest.raises(CheckCondition) as caught:
        disk.lu.tokens.find(token, 5_001)
    assert caught.value.sense.asc == Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED
    assert write(disk, token, [(10, 3)]).condition == UNKNOWN, "an expired token is soon forgotten"
    assert disk.lu.fast_path_clear


def test_token_is_deleted_if_asked_to(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    assert write(disk, token, [(10, 3)], flags=DELETE).good
    assert blocks(disk)[10:13] == [2, 3, 4]
    assert write(disk, token, [(10, 3)]).condition == UNKNOWN


def test_tokens_do_not_pile_up(disk: Disk) -> None:
    first = token_of(disk, [(2, 3)])
    for _ in range(64):
        populate(disk, [(2, 3)])
    assert write(disk, first, [(0, 3)]).condition == UNKNOWN


def test_token_immed_failure_is_told_to_who_asks(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    disk.faults[Write] = OSError(errno.EIO, "lost")
    assert write(disk, token, [(10, 3)], flags=IMMED).good
    _, status, _, _, sense, _ = information(disk, 2)
    assert status == 0x02
    assert sense[:4] == bytes.fromhex("72 0a 0d01")
    assert write(disk, token, [(10, 3)]).condition == (SenseKey.COPY_ABORTED, Asc.THIRD_PARTY_DEVICE_FAILURE)


CHANGES = {
    "WRITE": ("2a 00 00000004 00 0001 00", bytes(BLOCK)),
    "WRITE SAME": ("41 00 00000000 00 0003 00", b"\x01" * BLOCK),
    "UNMAP": ("42 00 00000000 00 0018 00", struct.pack(">HH4xQI4x", 22, 16, 1, 2)),
    "FORMAT UNIT": ("04 00 00 00 00 00", b""),
    "CRYPTOGRAPHIC ERASE": ("48 03 00000000 00 0000 00", b""),
}


@pytest.mark.parametrize(("cdb", "out"), CHANGES.values(), ids=CHANGES)
def test_token_is_revoked_when_its_data_changes(disk: Disk, cdb: str, out: bytes) -> None:
    token = token_of(disk, [(2, 3)])
    assert not disk.lu.fast_path_clear, "while there are tokens, no write goes unnoticed"
    assert disk.run(cdb, out=out).good
    assert write(disk, token, [(10, 3)]).condition == REVOKED
    assert disk.lu.fast_path_clear


def test_token_survives_changes_elsewhere(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    for lba in (1, 5):
        assert disk.run(struct.pack(">BxIxHx", 0x2A, lba, 1), out=bytes(BLOCK)).good
    assert write(disk, token, [(10, 3)]).good


def test_token_is_revoked_by_a_copy_from_another_unit(disk: Disk) -> None:
    other = Disk(name="other")
    other.join(7, disk)
    token = token_of(disk, [(2, 3)])
    other.lu.notice(OnUnit(7, Write(4 * BLOCK, [memoryview(bytes(BLOCK))])))
    assert write(disk, token, [(10, 3)]).condition == REVOKED


def test_token_revoked_while_it_is_copied(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    body = struct.pack(">B5xQ", 0, 0) + token + bytes(6) + descriptors([(10, 3)])
    out = len(body).to_bytes(2, "big") + body
    cdb = struct.pack(">BB4xIIxx", 0x83, 0x11, 2, len(out))
    steps = disk.lu.execute(cdb, Buffer([memoryview(bytearray(out))]))
    operation = next(steps)
    assert isinstance(operation, Read)
    disk.run("2a 00 00000003 00 0001 00", out=bytes(BLOCK))
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value.status == 2
    assert blocks(disk)[10:13] == [10, 11, 12], "torn data is never written"


def test_token_copied_over_its_own_data_is_refused(disk: Disk) -> None:
    refused = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE)
    assert write(disk, token_of(disk, [(2, 3)]), [(4, 2)]).condition == refused


def test_token_that_ends_early_copies_what_there_is(disk: Disk) -> None:
    token = token_of(disk, [(2, 3)])
    assert write(disk, token, [(10, 5)]).good
    assert blocks(disk)[10:15] == [2, 3, 4, 13, 14]
    assert information(disk, 2)[1:3] == (0x03, 3)
    answer = write(disk, token, [(10, 1)], offset=3)
    assert answer.condition == IN_LIST
    assert answer.field == (8, None)


def test_token_between_block_sizes(disk: Disk) -> None:
    large = Disk(blocks=8, block_size=4096, name="large")
    large.join(1, disk)
    disk.join(2, large)
    assert write(large, token_of(disk, [(0, 3), (8, 7)]), [(0, 1), (4, 2)]).good
    assert [large.medium[at * BLOCK] for at in range(8)] == [0, 1, 2, 8, 9, 10, 11, 12]
    assert [large.medium[4 * 4096 + at * BLOCK] for at in range(8)] == [13, 14, 0, 0, 0, 0, 0, 0]
    assert write(disk, token_of(large, [(0, 1)]), [(40, 3)], offset=3).good
    assert blocks(disk)[40:43] == [8, 9, 10]


def test_token_larger_than_a_piece() -> None:
    disk = Disk(blocks=16384)
    disk.medium[:] = bytes(at % 251 for at in range(8192)) * 1024
    assert write(disk, token_of(disk, [(0, 5000), (6000, 1000)]), [(8192, 6000)]).good
    expected = disk.medium[: 5000 * BLOCK] + disk.medium[6000 * BLOCK : 7000 * BLOCK]
    assert disk.medium[8192 * BLOCK : 14192 * BLOCK] == expected


def test_token_wrong_parameters(disk: Disk) -> None:
    outside = (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    assert populate(disk, [(60, 5)]).condition == outside
    assert write(disk, ZERO_TOKEN, [(60, 5)]).condition == outside
    assert populate(disk, []).condition == IN_LIST
    assert populate(disk, [(0, 1)], timeout=LONGEST_TIMEOUT + 1).field == (4, None)
    assert populate(disk, [(0, 1)], kind=0x00010000, flags=0x02).field == (8, None)
    assert populate(disk, [(0, 1)], kind=0x00010000).good, "not marked as valid"
    assert populate(disk, [(0, 2), (1, 1)]).condition == IN_LIST
    assert write(disk, b"\xff" * 512, [(0, 1)]).condition == (
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH,
    )
    assert populate(disk, [(0, 1)] * (MOST_RANGES + 1)).condition == (
        SenseKey.ILLEGAL_REQUEST,
        Asc.TOO_MANY_SEGMENT_DESCRIPTORS,
    )
    large = Disk(blocks=8, name="large")
    large.lu.blocks = 1 << 30
    assert populate(large, [(0, 1 << 22)]).condition == IN_LIST


def test_token_parameters_cut_short(disk: Disk) -> None:
    assert send(disk, 0x10, bytes(15), 1).condition == TOO_SHORT
    assert send(disk, 0x11, bytes(535), 1).condition == TOO_SHORT
    assert send(disk, 0x10, b"", 1).good
    assert send(disk, 0x11, b"", 1).good
    for out, byte in (
        (bytes(32), 0),
        (b"\x00\x1e" + bytes(30), 14),
        (b"\x00\x1e" + bytes(13) + b"\x0f" + bytes(16), 14),
    ):
        answer = send(disk, 0x10, out, 1)
        assert answer.condition == IN_LIST
        assert answer.field == (byte, None)


def test_token_ranges_cut_short_are_ignored(disk: Disk) -> None:
    body = bytes(12) + b"\x00\x2f" + struct.pack(">QI4xQI4x", 2, 3, 7, 1)[:31]
    assert send(disk, 0x10, b"\x00\x3d" + body, 1).good
    assert information(disk, 1)[2] == 3


@pytest.mark.parametrize("kind", [0x00800000, 0x00800001])
def test_token_type_that_was_asked_for(disk: Disk, kind: int) -> None:
    token = token_of(disk, [(2, 3)], kind=kind, flags=0x02)
    assert int.from_bytes(token[:4], "big") == kind


def test_token_information_of_nothing_is_refused(disk: Disk) -> None:
    assert invalid_field(disk.run(struct.pack(">BBI4xIxx", 0x84, 7, 9, 255))) == (2, None)


def test_token_write_on_a_read_only_unit(disk: Disk) -> None:
    other = Disk(name="other", read_only=True)
    assert populate(other, [(0, 1)]).good
    answer = write(other, ZERO_TOKEN, [(0, 1)])
    assert answer.condition == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


@st.composite
def ranges(draw: st.DrawFn, low: int, high: int) -> Ranges:
    """Return ranges between two blocks, in any order, without overlaps."""
    edges = sorted(draw(st.sets(st.integers(low, high), min_size=2, max_size=10)))
    pieces = [(start, end - start) for start, end in pairwise(edges)]
    return list(draw(st.permutations(pieces)))[: draw(st.integers(1, len(pieces)))]


@given(ranges(0, 32), st.integers(0, 10), ranges(32, 64))
@settings(deadline=None, max_examples=200)
def test_token_copies_block_by_block(sources: Ranges, offset: int, destinations: Ranges) -> None:
    disk = Disk()
    disk.medium[:] = bytes(block for block in range(64) for _ in range(BLOCK))
    data = [lba + at for lba, count in sources for at in range(count)][offset:]
    places = [lba + at for lba, count in destinations for at in range(count)]
    answer = write(disk, token_of(disk, sources), destinations, offset)
    expected = list(range(64))
    assert answer.good == bool(data)
    for place, value in zip(places, data, strict=False):
        expected[place] = value
    assert blocks(disk) == expected
