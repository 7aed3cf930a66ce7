"""COMPARE AND WRITE and ORWRITE."""

import struct

import pytest

from tests.scsi.disk import BLOCK, Answer, Disk, invalid_field, wrong_data_length
from vscsihba.block import Write
from vscsihba.scsi import TABLE, Asc, SenseKey

OLD, NEW = b"\xaa" * 2 * BLOCK, b"\xbb" * 2 * BLOCK


def caw(disk: Disk, lba: int, blocks: int, out: bytes, flags: int = 0) -> Answer:
    return disk.run(struct.pack(">BBQ3xBxx", 0x89, flags, lba, blocks), out=out)


def orw(disk: Disk, lba: int, blocks: int, out: bytes, flags: int = 0) -> Answer:
    return disk.run(struct.pack(">BBQIxx", 0x8B, flags, lba, blocks), out=out)


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.medium[3 * BLOCK : 5 * BLOCK] = OLD
    return disk


def test_compare_and_write_writes_when_equal(disk: Disk) -> None:
    assert caw(disk, 3, 2, OLD + NEW).good
    assert disk.medium[3 * BLOCK : 5 * BLOCK] == NEW
    assert disk.medium.count(0xBB) == len(NEW)


@pytest.mark.parametrize("at", [0, 1, BLOCK, 2 * BLOCK - 27, 2 * BLOCK - 1])
def test_compare_and_write_miscompare_names_the_byte(disk: Disk, at: int) -> None:
    disk.medium[3 * BLOCK + at] = 0x00
    before = bytes(disk.medium)
    answer = caw(disk, 3, 2, OLD + NEW)
    assert answer.condition == (SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION)
    assert answer.information == at
    assert disk.medium == before


def test_compare_and_write_of_no_blocks(disk: Disk) -> None:
    assert caw(disk, 3, 0, b"").good
    assert disk.operations == []


@pytest.mark.parametrize("length", [0, BLOCK, 2 * BLOCK - 1])
def test_compare_and_write_with_too_little_data_is_refused(disk: Disk, length: int) -> None:
    assert wrong_data_length(caw(disk, 3, 1, bytes(length)))


@pytest.mark.parametrize(("blocks", "length"), [(1, 2 * BLOCK + 1), (1, 4 * BLOCK), (0, 512 * BLOCK)])
def test_compare_and_write_with_more_data_than_blocks_is_refused(
    disk: Disk, blocks: int, length: int
) -> None:
    assert invalid_field(caw(disk, 3, blocks, bytes(length))) == (13, None)


def test_compare_and_write_beyond_the_limit_is_refused() -> None:
    disk = Disk(blocks=512, max_transfer=200 * BLOCK)
    assert disk.run("12 01 b0 00ff 00").data[5] == 100
    assert invalid_field(caw(disk, 0, 101, bytes(202 * BLOCK))) == (13, None)
    assert caw(disk, 0, 100, bytes(200 * BLOCK)).good


@pytest.mark.parametrize(("flags", "fua"), [(0x00, False), (0x08, True), (0x10, False)])
def test_compare_and_write_fua(disk: Disk, flags: int, fua: bool) -> None:
    assert caw(disk, 3, 2, OLD + NEW, flags).good
    assert [op.fua for op in disk.operations if isinstance(op, Write)] == [fua]


def test_orwrite_sets_bits(disk: Disk) -> None:
    assert orw(disk, 3, 2, b"\x55\x00" * BLOCK).good
    assert disk.medium[3 * BLOCK : 5 * BLOCK] == b"\xff\xaa" * BLOCK


def test_orwrite_of_no_blocks(disk: Disk) -> None:
    assert orw(disk, 3, 0, b"").good
    assert disk.operations == []


def test_orwrite_with_too_little_data_is_refused(disk: Disk) -> None:
    assert wrong_data_length(orw(disk, 3, 2, bytes(2 * BLOCK - 1)))


@pytest.mark.parametrize("opcode", [0x89, 0x8B])
def test_read_modify_write_runs_alone(opcode: int) -> None:
    assert TABLE[opcode, None].exclusive


def test_compare_and_write_is_never_repeated() -> None:
    assert not TABLE[0x89, None].idempotent
