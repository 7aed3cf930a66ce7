"""The state of a logical unit, and its effect on commands."""

import errno

import pytest

from tests.scsi.disk import Disk
from vscsihba.block import Buffer, Geometry, Read
from vscsihba.scsi import Asc, LogicalUnit, SenseKey, Status

READY = "00" * 6
INQUIRY = "12 00 00 00ff 00"
SENSE = "03 00 00 00 ff 00"


def test_unknown_opcode() -> None:
    disk = Disk()
    answer = disk.run("ff" + "00" * 9)
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)
    assert answer.field is None
    assert disk.lu.stats.errors == 1


@pytest.mark.parametrize(("cdb", "pointer"), [("9e 1f" + "00" * 14, (1, 4)), ("a3 00" + "00" * 10, (1, 4))])
def test_unknown_service_action(cdb: str, pointer: tuple[int, int]) -> None:
    answer = Disk().run(cdb)
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert answer.field == pointer


def test_unit_attention_is_reported_once() -> None:
    disk = Disk()
    disk.lu.raise_unit_attention(Asc.INQUIRY_DATA_HAS_CHANGED)
    disk.lu.raise_unit_attention(Asc.INQUIRY_DATA_HAS_CHANGED)
    assert not disk.lu.fast_path_clear
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.INQUIRY_DATA_HAS_CHANGED)
    assert disk.lu.fast_path_clear
    assert disk.run(READY).good


def test_unit_attentions_keep_their_order() -> None:
    disk = Disk()
    disk.lu.raise_unit_attention(Asc.INQUIRY_DATA_HAS_CHANGED)
    disk.lu.resize(Geometry(512))
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.INQUIRY_DATA_HAS_CHANGED)
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.CAPACITY_DATA_HAS_CHANGED)


def test_unit_attention_lets_inquiry_pass() -> None:
    disk = Disk()
    disk.lu.power_on()
    assert disk.run(INQUIRY).good
    assert not disk.lu.fast_path_clear


def test_unit_attention_stops_a_command_before_it_acts() -> None:
    disk = Disk()
    disk.lu.power_on()
    assert not disk.run("2a 00 00000000 00 0001 00", out=b"\xff" * 512).good
    assert not any(disk.medium)


def test_request_sense_reports_and_clears_a_unit_attention() -> None:
    disk = Disk()
    disk.lu.power_on()
    data = disk.run(SENSE).data
    assert (data[2], int.from_bytes(data[12:14], "big")) == (SenseKey.UNIT_ATTENTION, Asc.POWER_ON_OCCURRED)
    assert disk.run(READY).good


def test_request_sense_with_nothing_to_report() -> None:
    assert Disk().run(SENSE).data == bytes.fromhex("70 00 00 00000000 0a" + "00" * 10)


def test_request_sense_descriptor_format() -> None:
    assert Disk().run("03 01 00 00 ff 00").data == bytes.fromhex("72 00 0000 00000000")


def test_reset_forgets_older_events() -> None:
    disk = Disk()
    disk.lu.raise_unit_attention(Asc.INQUIRY_DATA_HAS_CHANGED)
    disk.lu.reset()
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert disk.run(READY).good


def test_resize_changes_what_the_engine_reads() -> None:
    disk = Disk(blocks=64)
    disk.lu.resize(Geometry(128 * 512))
    assert disk.lu.blocks == 128
    disk.medium.extend(bytes(64 * 512))
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.CAPACITY_DATA_HAS_CHANGED)
    assert disk.run("28 00 0000007f 00 0001 00").good


def test_stats_count_each_command_once() -> None:
    disk = Disk()
    disk.run(READY)
    disk.run("28 00 00000000 00 0001 00")
    disk.run("2a 00 00000000 00 0001 00", out=bytes(512))
    disk.run("ff")
    stats = disk.lu.stats
    assert (stats.reads, stats.writes, stats.others, stats.errors) == (1, 1, 1, 1)


def test_engine_reads_plain_attributes() -> None:
    lu = Disk(max_transfer=1 << 20).lu
    for name in (
        "blocks",
        "block_size",
        "fast_path_clear",
        "writable",
        "write_through",
        "max_transfer_blocks",
    ):
        assert name in vars(lu)
        assert not hasattr(LogicalUnit, name)
    assert (lu.blocks, lu.block_size, lu.max_transfer_blocks) == (64, 512, 2048)
    assert (lu.fast_path_clear, lu.writable, lu.write_through) == (True, True, False)


def test_failure_of_a_command_that_began_before_a_reset_leaves_the_unit_attention_pending() -> None:
    disk = Disk()
    disk.lu.reset()
    response = disk.lu.failed(bytes.fromhex("28000000000000000100"), Read(0, ()), OSError(errno.EIO, "lost"))
    assert (response.status, response.data_in) == (Status.CHECK_CONDITION, 0)
    assert (response.sense[2], response.sense[12:14]) == (SenseKey.MEDIUM_ERROR, b"\x11\0")
    assert (disk.lu.stats.errors, disk.lu.counters.events.read_errors) == (1, 1)
    assert disk.run(READY).condition == (SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)


def test_response_of_an_unknown_command_has_no_valid_data() -> None:
    disk = Disk()
    response = disk.drive(disk.lu.execute(b"\xff", Buffer([memoryview(bytearray(8))])))
    assert response.data_in == 0
