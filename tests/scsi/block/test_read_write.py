"""READ, WRITE and SYNCHRONIZE CACHE."""

import errno

import pytest

from tests.scsi.disk import BLOCK, THIN, Disk, everything, invalid_field, wrong_data_length
from vscsihba.block import Capabilities, Flush, Read, Write
from vscsihba.scsi import Asc, SenseKey

HEAD_32, TAIL_32 = "7f 00 00000000 00 18", "0000000000000002 00000000 0000 0000 00000003"
READS = {6: "08 00 00 02 03 00", 10: "28 00 00000002 00 0003 00", 12: "a8 00 00000002 00000003 00 00",
         16: "88 00 0000000000000002 00000003 00 00", 32: f"{HEAD_32} 0009 00 00 {TAIL_32}"}  # fmt: skip
WRITES = {6: "0a 00 00 02 03 00", 10: "2a 00 00000002 00 0003 00", 12: "aa 00 00000002 00000003 00 00",
          16: "8a 00 0000000000000002 00000003 00 00", 32: f"{HEAD_32} 000b 00 00 {TAIL_32}"}  # fmt: skip
DATA = bytes(range(256)) * 6


def with_flags(cdb: str, flags: int) -> bytes:
    changed = bytearray.fromhex(cdb)
    changed[1] |= flags
    return bytes(changed)


@pytest.mark.parametrize("cdb", READS.values(), ids=READS)
def test_read_returns_the_blocks(cdb: str) -> None:
    disk = everything()
    disk.medium[2 * BLOCK : 5 * BLOCK] = DATA
    answer = disk.run(cdb)
    assert answer.good
    assert answer.data == DATA
    assert (disk.lu.stats.reads, disk.lu.stats.read_bytes) == (1, len(DATA))


@pytest.mark.parametrize("cdb", WRITES.values(), ids=WRITES)
def test_write_stores_the_blocks(cdb: str) -> None:
    disk = everything()
    assert disk.run(cdb, out=DATA).good
    assert disk.medium[2 * BLOCK : 5 * BLOCK] == DATA
    assert disk.medium.count(0) == len(disk.medium) - len(DATA) + DATA.count(0)
    assert (disk.lu.stats.writes, disk.lu.stats.write_bytes) == (1, len(DATA))


def test_read_6_of_0_blocks_means_256() -> None:
    disk = Disk(blocks=256)
    assert len(disk.run("08 00 00 00 00 00", room=256 * BLOCK).data) == 256 * BLOCK


def test_write_6_of_0_blocks_means_256() -> None:
    disk = Disk(blocks=256)
    assert disk.run("0a 00 00 00 00 00", out=b"\xaa" * 256 * BLOCK).good
    assert disk.medium == b"\xaa" * 256 * BLOCK


@pytest.mark.parametrize("cdb", ["28 00 00000002 00 0000 00", "28 00 00000040 00 0000 00"])
def test_read_of_no_blocks_reads_nothing(cdb: str) -> None:
    disk = Disk()
    assert disk.run(cdb).data == b""
    assert disk.operations == []


@pytest.mark.parametrize("room", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 3 * BLOCK + 1])
def test_read_into_a_buffer_of_another_length(room: int) -> None:
    disk = Disk()
    disk.medium[2 * BLOCK : 5 * BLOCK] = DATA
    assert disk.run(READS[10], room=room).data == DATA[:room]


def test_write_with_too_little_data_is_refused() -> None:
    disk = Disk()
    assert wrong_data_length(disk.run(WRITES[10], out=DATA[:-1]))
    assert disk.operations == []


def test_write_leaves_surplus_data_alone() -> None:
    disk = Disk()
    assert disk.run(WRITES[10], out=DATA + b"\xff" * BLOCK).good
    assert disk.medium[5 * BLOCK :] == bytes(59 * BLOCK)


def test_read_longer_than_the_limit_is_refused() -> None:
    disk = Disk(max_transfer=2 * BLOCK)
    assert invalid_field(disk.run(READS[10])) == (7, None)


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("cdb", [READS[10], READS[16], WRITES[10], WRITES[12]])
def test_protection_is_refused(cdb: str, bits: int) -> None:
    assert invalid_field(Disk().run(with_flags(cdb, bits << 5), out=DATA)) == (1, 7)


def test_write_fua_reaches_the_medium() -> None:
    disk = Disk()
    disk.run(with_flags(WRITES[10], 0x08), out=DATA)
    assert [op.fua for op in disk.operations if isinstance(op, Write)] == [True]


def test_write_without_fua_may_stay_in_the_cache() -> None:
    disk = Disk()
    disk.run(WRITES[10], out=DATA)
    assert [op.fua for op in disk.operations if isinstance(op, Write)] == [False]


def test_write_without_write_cache_reaches_the_medium() -> None:
    disk = Disk(write_cache=False)
    assert disk.lu.write_through
    disk.run(WRITES[10], out=DATA)
    assert [op.fua for op in disk.operations if isinstance(op, Write)] == [True]


def test_read_fua_flushes_first() -> None:
    disk = Disk()
    disk.run(with_flags(READS[10], 0x18))
    assert [type(op) for op in disk.operations] == [Flush, Read]


def test_read_fua_without_volatile_cache_needs_no_flush() -> None:
    disk = Disk(capabilities=Capabilities())
    disk.run(with_flags(READS[10], 0x08))
    assert [type(op) for op in disk.operations] == [Read]


def test_read_error_names_the_block() -> None:
    disk = Disk()
    disk.bad_offsets = {3 * BLOCK + 7}
    answer = disk.run(READS[10])
    assert answer.condition == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert answer.information == 3
    assert answer.data == b""
    assert disk.lu.stats.errors == 1


def test_write_error_names_the_block() -> None:
    disk = Disk()
    disk.bad_offsets = {4 * BLOCK}
    answer = disk.run(WRITES[10], out=DATA)
    assert answer.condition == (SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)
    assert answer.information == 4


def test_write_without_space_is_data_protect() -> None:
    disk = Disk()
    disk.faults[Write] = OSError(errno.ENOSPC, "full")
    answer = disk.run(WRITES[10], out=DATA)
    assert answer.condition == (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)


@pytest.mark.parametrize("cdb", ["35 00 00000000 00 0000 00", "91 00 0000000000000003 00000002 00 00"])
def test_synchronize_cache_flushes(cdb: str) -> None:
    disk = Disk()
    assert disk.run(cdb).good
    assert disk.operations == [Flush()]


def test_synchronize_cache_immed_answers_first() -> None:
    disk = Disk()
    response = disk.drive(disk.lu.execute(bytes.fromhex("35 02 00000000 00 0000 00"), disk.no_data()))
    assert disk.operations == []
    assert response.background is not None
    disk.drive(response.background)
    assert disk.operations == [Flush()]


def test_synchronize_cache_immed_failure_is_a_deferred_error() -> None:
    disk = Disk()
    disk.faults[Flush] = OSError(errno.EIO, "lost")
    assert disk.run("35 02 00000000 00 0000 00").good
    assert not disk.lu.fast_path_clear
    answer = disk.run(READS[10])
    assert answer.condition == (SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)
    assert answer.sense[0] == 0x71
    assert disk.lu.fast_path_clear
    assert disk.run(READS[10]).good


def test_four_kib_blocks_are_counted_in_four_kib() -> None:
    disk = Disk(blocks=8, block_size=4096, capabilities=THIN)
    assert disk.run("2a 00 00000007 00 0001 00", out=b"\x55" * 4096).good
    assert disk.medium[7 * 4096 :] == b"\x55" * 4096


def test_variable_length_cdb_of_another_length_is_refused() -> None:
    cdb = bytearray.fromhex(READS[32])
    cdb[7] = 0x10
    assert invalid_field(everything().run(bytes(cdb))) == (7, None)


ATOMIC = "9c 00 0000000000000002 0000 0003 00 00"


def test_write_atomic_is_one_write() -> None:
    disk = everything()
    assert disk.run(ATOMIC, out=DATA).good
    assert [type(op) for op in disk.operations] == [Write]
    assert disk.medium[2 * BLOCK : 5 * BLOCK] == DATA


def test_write_atomic_is_limited_by_what_the_medium_can() -> None:
    disk = Disk(capabilities=Capabilities(atomic_write=2 * BLOCK))
    assert invalid_field(disk.run(ATOMIC, out=DATA)) == (12, None)
    assert int.from_bytes(disk.run("12 01 b0 00ff 00").data[44:48], "big") == 2


def test_write_atomic_is_unknown_where_the_medium_cannot() -> None:
    answer = Disk().run(ATOMIC, out=DATA)
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)


def test_write_atomic_boundary_is_refused() -> None:
    assert invalid_field(everything().run("9c 00 0000000000000002 0001 0003 00 00", out=DATA)) == (10, None)


def test_variable_length_cdb_is_unknown_unless_asked_for() -> None:
    answer = Disk().run(READS[32])
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
