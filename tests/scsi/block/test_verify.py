"""VERIFY."""

import pytest

from tests.scsi.disk import BLOCK, Disk, invalid_field, wrong_data_length
from vscsihba.block import BlockOp, BlockResult, Read, Write
from vscsihba.scsi import Asc, SenseKey
from vscsihba.scsi.block.verify import first_difference

VERIFIES = {10: "2f {:02x} 00000002 00 0003 00", 12: "af {:02x} 00000002 00000003 00 00",
            16: "8f {:02x} 0000000000000002 00000003 00 00"}  # fmt: skip
DATA = bytes(range(256)) * 6


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.medium[2 * BLOCK : 5 * BLOCK] = DATA
    return disk


@pytest.mark.parametrize("cdb", VERIFIES.values(), ids=VERIFIES)
def test_verify_bytchk_01_compares(disk: Disk, cdb: str) -> None:
    assert disk.run(cdb.format(0x02), out=DATA).good


@pytest.mark.parametrize("cdb", VERIFIES.values(), ids=VERIFIES)
def test_verify_bytchk_01_names_the_differing_block(disk: Disk, cdb: str) -> None:
    wrong = bytearray(DATA)
    wrong[BLOCK + 9] ^= 1
    answer = disk.run(cdb.format(0x02), out=bytes(wrong))
    assert answer.condition == (SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION)
    assert answer.information == 3


def test_verify_bytchk_00_only_reads(disk: Disk) -> None:
    assert disk.run(VERIFIES[10].format(0), out=b"").good


def test_verify_bytchk_00_finds_what_cannot_be_read(disk: Disk) -> None:
    disk.bad_offsets = {4 * BLOCK}
    answer = disk.run(VERIFIES[10].format(0), out=b"")
    assert answer.condition == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert answer.information == 4


def test_verify_bytchk_11_repeats_one_block(disk: Disk) -> None:
    disk.medium[2 * BLOCK : 5 * BLOCK] = b"\x77" * 3 * BLOCK
    assert disk.run(VERIFIES[16].format(0x06), out=b"\x77" * BLOCK).good
    disk.medium[4 * BLOCK] = 0
    answer = disk.run(VERIFIES[16].format(0x06), out=b"\x77" * BLOCK)
    assert answer.condition == (SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION)
    assert answer.information == 4


def test_verify_bytchk_10_is_reserved(disk: Disk) -> None:
    assert invalid_field(disk.run(VERIFIES[10].format(0x04), out=DATA)) == (1, 2)


def test_verify_with_too_little_data_is_refused(disk: Disk) -> None:
    assert wrong_data_length(disk.run(VERIFIES[10].format(0x02), out=DATA[:-1]))


@pytest.mark.parametrize("flags", [0x00, 0x02, 0x06])
def test_verify_longer_than_the_limit_is_refused(flags: int) -> None:
    disk = Disk(max_transfer=2 * BLOCK)
    assert invalid_field(disk.run(VERIFIES[10].format(flags), out=DATA)) == (7, None)


def test_verify_longer_than_a_piece() -> None:
    disk = Disk(blocks=5000, max_transfer=5000 * BLOCK)
    disk.medium[4999 * BLOCK] = 1
    answer = disk.run("af 06 00000000 00001388 00 00", out=bytes(BLOCK))
    assert answer.information == 4999


@pytest.mark.parametrize("at", [0, 1, 510, 511])
def test_first_difference(at: int) -> None:
    other = bytearray(512)
    other[at] = 1
    assert first_difference(bytes(512), bytes(other)) == at


WRITE_AND_VERIFIES = {10: "2e {:02x} 00000002 00 0003 00", 12: "ae {:02x} 00000002 00000003 00 00",
                      16: "8e {:02x} 0000000000000002 00000003 00 00"}  # fmt: skip


@pytest.mark.parametrize("cdb", WRITE_AND_VERIFIES.values(), ids=WRITE_AND_VERIFIES)
@pytest.mark.parametrize("flags", [0x00, 0x02, 0x12])
def test_write_and_verify_writes_past_the_cache_and_reads_back(cdb: str, flags: int) -> None:
    disk = Disk()
    assert disk.run(cdb.format(flags), out=DATA).good
    assert disk.medium[2 * BLOCK : 5 * BLOCK] == DATA
    assert [type(op) for op in disk.operations] == [Write, Read]
    assert isinstance(disk.operations[0], Write)
    assert disk.operations[0].fua


def test_write_and_verify_finds_what_was_not_written() -> None:
    class Liar(Disk):
        def perform(self, operation: BlockOp) -> BlockResult:
            return None if isinstance(operation, Write) else super().perform(operation)

    answer = Liar().run(WRITE_AND_VERIFIES[10].format(0x02), out=DATA)
    assert answer.condition == (SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION)
    assert answer.information == 2


@pytest.mark.parametrize("flags", [0x04, 0x06])
def test_write_and_verify_reserved_bytchk_is_refused(flags: int) -> None:
    disk = Disk()
    assert invalid_field(disk.run(WRITE_AND_VERIFIES[10].format(flags), out=DATA)) == (1, 2)
    assert disk.operations == []
