"""UNMAP and WRITE SAME."""

import struct

import pytest

from tests.scsi.disk import BLOCK, Answer, Disk, invalid_field, wrong_data_length
from vscsihba.block import Capabilities, Extent, Unmap, Write, WriteZeroes
from vscsihba.scsi import Asc, SenseKey

THICK = Capabilities(flush=True)


def unmap(disk: Disk, *ranges: tuple[int, int], header: tuple[int, int] | None = None) -> object:
    body = b"".join(struct.pack(">QI4x", *one) for one in ranges)
    data = struct.pack(">HH4x", *(header or (len(body) + 6, len(body)))) + body
    return disk.run(b"\x42" + bytes(6) + struct.pack(">HB", len(data), 0), out=data).condition


def same(disk: Disk, flags: int, lba: int, blocks: int, out: bytes) -> Answer:
    return disk.run(struct.pack(">BBQIxx", 0x93, flags, lba, blocks), out=out)


def test_unmap_deallocates_each_descriptor() -> None:
    disk = Disk()
    assert unmap(disk, (2, 3), (10, 0), (63, 1)) is None
    assert disk.operations == [Unmap(Extent(2 * BLOCK, 3 * BLOCK)), Unmap(Extent(63 * BLOCK, BLOCK))]


def test_unmap_does_neighbours_as_one() -> None:
    disk = Disk()
    assert unmap(disk, (0, 1), (1, 2), (3, 0), (3, 1), (8, 1), (0, 1)) is None
    assert disk.operations == [
        Unmap(Extent(0, 4 * BLOCK)),
        Unmap(Extent(8 * BLOCK, BLOCK)),
        Unmap(Extent(0, BLOCK)),
    ]


def test_unmap_checks_all_before_it_does_any() -> None:
    disk = Disk()
    assert unmap(disk, (0, 1), (63, 2)) == (
        SenseKey.ILLEGAL_REQUEST,
        Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
    )
    assert disk.operations == []


def test_unmap_of_nothing_at_the_end() -> None:
    assert unmap(Disk(), (64, 0)) is None


def test_unmap_without_descriptors() -> None:
    assert unmap(Disk()) is None


def test_unmap_without_parameters_does_nothing() -> None:
    assert Disk().run("42 00 00000000 00 0000 00", out=b"").good


@pytest.mark.parametrize(("length", "sent"), [(7, 7), (24, 23)])
def test_unmap_with_a_short_parameter_list(length: int, sent: int) -> None:
    answer = Disk().run(struct.pack(">B6xHB", 0x42, length, 0), out=bytes(sent))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def test_unmap_ignores_a_descriptor_cut_short() -> None:
    disk = Disk()
    assert unmap(disk, (0, 1), (5, 1), header=(37, 31)) is None
    assert disk.operations == [Unmap(Extent(0, BLOCK))]


def test_unmap_beyond_the_limits_is_refused() -> None:
    refused = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    assert unmap(Disk(), *[(0, 1)] * 257) == refused
    assert unmap(Disk(blocks=8), (0, (1 << 20) + 1)) == refused


def test_unmap_on_a_medium_that_cannot() -> None:
    refused = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
    assert unmap(Disk(capabilities=THICK), (0, 1)) == refused


def test_unmap_anchor_is_refused() -> None:
    assert invalid_field(Disk().run("42 01 00000000 00 0000 00", out=b"")) == (1, 0)


def test_write_same_repeats_the_block() -> None:
    disk = Disk()
    pattern = bytes(range(256)) * 2
    assert same(disk, 0, 2, 5, pattern).good
    assert disk.medium[2 * BLOCK : 7 * BLOCK] == pattern * 5
    assert not any(disk.medium[: 2 * BLOCK])
    assert not any(disk.medium[7 * BLOCK :])


def test_write_same_10_reads_its_own_fields() -> None:
    disk = Disk()
    assert disk.run("41 00 00000003 00 0002 00", out=b"\x11" * BLOCK).good
    assert disk.medium[3 * BLOCK : 5 * BLOCK] == b"\x11" * 2 * BLOCK


def test_write_same_longer_than_a_piece() -> None:
    disk = Disk(blocks=5000)
    assert same(disk, 0, 1, 4999, b"\x22" * BLOCK).good
    assert disk.medium == bytes(BLOCK) + b"\x22" * 4999 * BLOCK
    assert all(isinstance(op, Write) for op in disk.operations)


@pytest.mark.parametrize(("flags", "may_unmap"), [(0x00, False), (0x08, True)])
def test_write_same_of_zeroes_sends_none(flags: int, may_unmap: bool) -> None:
    disk = Disk()
    assert same(disk, flags, 2, 3, bytes(BLOCK)).good
    assert disk.operations == [WriteZeroes(Extent(2 * BLOCK, 3 * BLOCK), may_unmap=may_unmap)]


def test_write_same_ndob_needs_no_data() -> None:
    disk = Disk()
    disk.medium[:] = b"\xff" * len(disk.medium)
    assert same(disk, 0x01, 4, 1, b"").good
    assert disk.medium[4 * BLOCK : 5 * BLOCK] == bytes(BLOCK)


def test_write_same_of_0_blocks_is_refused() -> None:
    disk = Disk()
    assert disk.run("12 01 b0 00ff 00").data[4] == 0x01
    assert invalid_field(same(disk, 0, 60, 0, b"\x33" * BLOCK)) == (10, None)


def test_write_same_with_unmap_still_writes_what_is_not_zero() -> None:
    disk = Disk()
    assert same(disk, 0x08, 60, 4, b"\xff" * BLOCK).good
    assert disk.medium[60 * BLOCK :] == b"\xff" * 4 * BLOCK


@pytest.mark.parametrize("length", [0, BLOCK // 2, BLOCK * 2])
def test_write_same_wants_exactly_one_block(length: int) -> None:
    assert wrong_data_length(same(Disk(), 0, 0, 1, bytes(length)))


def test_write_same_beyond_the_limit_is_refused() -> None:
    disk = Disk(blocks=32769)
    assert invalid_field(same(disk, 0, 0, 32769, bytes(BLOCK))) == (10, None)
    assert same(disk, 0, 1, 32768, bytes(BLOCK)).good


def test_write_same_unmap_on_a_medium_that_cannot() -> None:
    assert invalid_field(same(Disk(capabilities=THICK), 0x08, 0, 1, bytes(BLOCK))) == (1, 3)


def test_write_same_anchor_is_refused() -> None:
    assert invalid_field(same(Disk(), 0x18, 0, 1, bytes(BLOCK))) == (1, 4)
