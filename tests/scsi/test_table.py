"""Every row of the opcode table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scsi.disk import BLOCK, everything, invalid_field
from vscsihba.block import Buffer
from vscsihba.scsi import FAST_PATH_OPCODES, TABLE, Asc, Command, Data, MediumAccess, SenseKey, Status, lookup
from vscsihba.scsi.cdb import Cdb
from vscsihba.scsi.command import NAMING_FIELDS
from vscsihba.scsi.commands.target_core import handled_by_target_core
from vscsihba.scsi.copy.manager import CopyOperation
from vscsihba.scsi.opcodes import SERVICE_ACTIONS

ROWS = list(TABLE.values())
ranges = [row for row in ROWS if {"lba", "blocks"} <= row.layout.fields.keys()]
OURS = [row for row in ROWS if row.run is not handled_by_target_core]
readers = [row for row in OURS if "allocation_length" in row.layout.fields]


VALID = {
    "MODE SENSE(6)": {"page_code": 0x3F},
    "MODE SENSE(10)": {"page_code": 0x3F},
    "LOG SENSE": {"pc": 1},
    "READ BUFFER(10)": {"mode": 3},
}
"""Values without which a command is refused."""

COPY_ACTIONS = {"RECEIVE COPY STATUS(LID1)": 0x00, "RECEIVE ROD TOKEN INFORMATION": 0x10}
"""Commands that report on an operation, and the operation's service action."""


def each(rows: list[Command]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def build(row: Command, **values: int) -> bytearray:
    """Return a CDB of `row` with the given fields set, and others so that it is valid."""
    cdb = bytearray(row.length)
    cdb[0] = row.opcode
    whole = int.from_bytes(cdb, "big")
    values = {**VALID.get(row.name, {}), **values}
    if row.service_action is not None:
        values = {"service_action": row.service_action, **values}
    if row.opcode == 0x7F:
        values = {"additional_cdb_length": row.length - 8, **values}
    for name, value in values.items():
        assert value < 1 << row.layout.fields[name].width, f"{name}={value} does not fit"
        whole = row.layout.with_value(whole, name, value)
    return bytearray(whole.to_bytes(row.length, "big"))


@each(ROWS)
def test_row_is_found_by_its_own_cdb(row: Command) -> None:
    assert lookup(bytes(build(row))) is row


@each(ROWS)
def test_row_has_the_length_of_its_group(row: Command) -> None:
    group = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
    assert row.length == group.get(row.opcode >> 5, row.length)


@each(ROWS)
def test_row_opcode_is_all_service_actions_or_none(row: Command) -> None:
    assert (row.opcode in SERVICE_ACTIONS) == (row.service_action is not None)


@each(ROWS)
def test_usage_data_holds_codes_and_masks(row: Command) -> None:
    usage = row.usage_data
    assert len(usage) == row.length
    assert usage[0] == row.opcode
    if row.service_action is not None and row.opcode != 0x7F:
        assert usage[1] & 0x1F == row.service_action
    if row.opcode == 0x7F:
        assert usage[7:10] == bytes([0x18, 0, row.service_action or 0])
    assert int.from_bytes(usage, "big") & row.layout.reserved == 0


@each(ROWS)
def test_reserved_bits_are_refused_where_they_are(row: Command) -> None:
    disk = everything()
    for bit in range(8 * row.length):
        if not row.layout.reserved >> bit & 1:
            continue
        cdb = int.from_bytes(build(row), "big") | 1 << bit
        answer = disk.run(cdb.to_bytes(row.length, "big"), out=b"")
        owner = row.layout.owner(bit)
        place = (owner.byte, owner.bit_pointer) if owner else (row.length - 1 - bit // 8, bit % 8)
        assert invalid_field(answer) == place


@each(ROWS)
def test_naca_is_refused(row: Command) -> None:
    cdb = build(row)
    at = 1 if row.opcode == 0x7F else row.length - 1
    cdb[at] |= 0x04
    assert invalid_field(everything().run(bytes(cdb), out=b"")) == (at, 2)


@each(ROWS)
def test_bytes_after_the_cdb_are_ignored(row: Command) -> None:
    cdb = bytes(build(row))
    assert everything().run(cdb, room=64).condition == everything().run(cdb + b"\xff" * 8, room=64).condition


@each(ROWS)
def test_short_cdb_is_refused(row: Command) -> None:
    cdb = bytes(build(row))
    shortest = 10 if row.opcode == 0x7F else 2 if row.service_action is not None else 1
    for length in range(shortest, row.length):
        assert invalid_field(everything().run(cdb[:length])) == (length, None)


@each(readers)
def test_allocation_length_truncates(row: Command) -> None:
    def ask(length: int, room: int = 0xFFFF) -> bytes:
        field = row.layout.fields["allocation_length"]
        length = min(length, (1 << field.width) - 1)
        disk = everything()
        if row.name in COPY_ACTIONS:
            disk.lu.copies.begin(0, CopyOperation(COPY_ACTIONS[row.name]))
        answer = disk.run(bytes(build(row, allocation_length=length)), room=room)
        assert answer.good
        return answer.data

    whole = ask(0xFFFF)
    exact = len(whole)
    assert exact > 0
    assert ask(0) == b""
    assert ask(1) == whole[:1]
    assert ask(exact) == whole
    assert ask(exact + 1) == whole
    assert ask(exact, room=exact - 1) == whole[:-1]


@each(ranges)
def test_lba_range_is_checked(row: Command) -> None:
    out_of_range = (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
    disk = everything(blocks=64)
    highest = (1 << row.layout.fields["lba"].width) - 1

    def ask(lba: int, blocks: int) -> tuple[int, int] | None:
        cdb = bytes(build(row, lba=lba, blocks=blocks))
        return disk.run(cdb, out=bytes(BLOCK)).condition

    def first_missing(lba: int, blocks: int) -> int | None:
        return disk.run(bytes(build(row, lba=lba, blocks=blocks)), out=bytes(BLOCK)).information

    assert first_missing(63, 2) == 64
    assert first_missing(70, 2) == 70
    assert ask(63, 1) != out_of_range, "the last block"
    assert ask(63, 2) == out_of_range, "one past the end"
    assert ask(64, 1) == out_of_range
    assert ask(65, 0) == out_of_range, "no blocks, beyond the end"
    assert ask(highest, 1) == out_of_range, "would wrap around"


@each([row for row in ROWS if row.medium in (MediumAccess.WRITABLE, MediumAccess.REPLACED)])
def test_write_protected_medium_is_never_changed(row: Command) -> None:
    disk = everything(read_only=True)
    answer = disk.run(bytes(build(row)), out=bytes(BLOCK))
    assert answer.condition == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert disk.operations == []


@each([row for row in ROWS if row.data is Data.OUT and row.medium is not MediumAccess.WRITABLE])
def test_command_that_is_no_write_leaves_the_medium_alone(row: Command) -> None:
    disk = everything()
    before = bytes(disk.medium)
    disk.run(bytes(build(row)), out=b"\xff" * BLOCK)
    assert disk.medium == before


@given(cdb=st.binary(max_size=40), length=st.integers(0, 3000))
@settings(deadline=None, max_examples=300)
def test_any_bytes_get_a_response(cdb: bytes, length: int) -> None:
    everything().run(cdb, out=bytes(length))


@given(data=st.data(), row=st.sampled_from(ROWS), length=st.integers(0, 3000))
@settings(deadline=None, max_examples=500)
def test_any_fields_get_a_response(data: st.DataObject, row: Command, length: int) -> None:
    values = {
        name: data.draw(st.integers(0, 3) | st.integers(0, (1 << field.width) - 1)) % (1 << field.width)
        for name, field in row.layout.fields.items()
        if not field.mark and name not in NAMING_FIELDS
    }
    disk = everything()
    memory = bytearray(data.draw(st.binary(min_size=min(length, 64), max_size=min(length, 64))).ljust(length))
    response = disk.drive(disk.lu.execute(bytes(build(row, **values)), Buffer([memoryview(memory)])))
    assert response.status in list(Status)
    assert bool(response.sense) == (response.status == Status.CHECK_CONDITION)
    assert (response.data_in is not None) == (row.data is Data.IN)
    assert response.data_in is None or 0 <= response.data_in <= length


@pytest.mark.parametrize("opcode", FAST_PATH_OPCODES)
def test_fast_path_reads_what_the_table_reads(opcode: int) -> None:
    unpack, is_write = FAST_PATH_OPCODES[opcode]
    row = TABLE[opcode, None]
    cdb = build(row, lba=0x12345678, blocks=0x9ABC, fua=1, dpo=1)
    cdb[row.layout.fields["group_number"].byte] = 0xFF
    cdb[-1] = 0x04
    decoded = Cdb(row, bytes(cdb))
    assert unpack(b"??" + cdb, 2) == (0x18, decoded["lba"], decoded["blocks"], 0x04)
    assert is_write == (row.medium is MediumAccess.WRITABLE)
