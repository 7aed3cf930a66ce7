"""Events of a trace as text and JSON."""

import json

from tests.capture.tracing import command
from vscsihba.capture import lines
from vscsihba.records import Direction, Kind
from vscsihba.scsi import Asc, Sense, SenseKey

SENSE = Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR).encode()
READ = command(
    "88 00 00 00 00 00 07 5b cd 15 00 00 08 00 00 00",
    tag=0x10007,
    begun=10.0002,
    storage=0.0005,
    length=1048576,
    direction=Direction.IN,
    returned=1048576,
)


def test_a_read_of_a_large_disk_has_80_columns() -> None:
    front = lines.front(READ, times=False)
    assert front.endswith("   3:1     7 1048576   1.000  ")
    assert lines.text(READ) == "READ(16) lba=123456789 blocks=2048"
    assert len(front + lines.text(READ)) <= 80
    assert len(lines.HEADING) <= 80
    assert lines.HEADING.index("COMMAND") == len(front)


def test_single_times_are_in_milliseconds_where_they_are_known() -> None:
    assert lines.front(READ, times=True).endswith("    0.200    0.500   1.000  ")
    assert lines.front(command("00" * 6), times=True).endswith("        -        -   1.000  ")
    assert lines.TIMES_HEADING.index("COMMAND") == len(lines.front(READ, times=True))


def test_a_failed_command_says_why() -> None:
    failed = command("28 00 00 00 00 00 00 00 08 00", status=2, sense=SENSE)
    assert lines.text(failed) == (
        "READ(10) lba=0 blocks=8: CHECK CONDITION, MEDIUM ERROR, UNRECOVERED READ ERROR"
    )


def test_the_stale_bytes_behind_a_cdb_are_not_shown() -> None:
    assert lines.text(command("12 00 00 00 60 00 ff ff")) == "INQUIRY allocation_length=96"


def test_commands_of_a_tape_are_not_decoded_as_those_of_a_disk() -> None:
    read = command("08 00 00 02 00 00 ff ff", device_type=1)
    assert lines.text(read) == "opcode 08h 00 00 02 00 00"
    assert lines.text(command("12 00 00 00 60 00", device_type=1)) == "INQUIRY allocation_length=96"


def test_task_management_says_how_many_commands_it_ends() -> None:
    reset = command("", kind=Kind.MANAGEMENT, sense=b"LOGICAL UNIT RESET", data=bytes(16))
    assert lines.text(reset) == "LOGICAL UNIT RESET of 2 commands"
    assert lines.as_json(reset)["tags"] == [0, 0]


def test_json_has_all_parts() -> None:
    shown = json.loads(json.dumps(lines.as_json(READ)))
    assert shown == {
        "event": "command",
        "time": 1000.25,
        "hba": 3,
        "lun": 1,
        "tag": 0x10007,
        "name": "READ(16)",
        "cdb": READ.cdb.hex(),
        "detail": "lba=123456789 blocks=2048",
        "direction": "in",
        "length": 1048576,
        "transferred": 1048576,
        "status": "GOOD",
        "sense": "",
        "sense_data": "",
        "seconds": 0.001,
        "queued": 0.0002,
        "storage": 0.0005,
        "data": "",
    }
