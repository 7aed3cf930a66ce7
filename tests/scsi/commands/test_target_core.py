"""Commands that Linux's target core completes before they reach a ring."""

import pytest

from tests.scsi.disk import Disk, everything
from vscsihba.scsi import TABLE, Asc, Command, SenseKey
from vscsihba.scsi.commands.target_core import handled_by_target_core

ROWS = [row for row in TABLE.values() if row.run is handled_by_target_core]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_target_core_command_that_came_through_is_refused(row: Command) -> None:
    cdb = bytes([row.opcode, row.service_action or 0]) + bytes(row.length - 2)
    for disk in (everything(), Disk()):
        answer = disk.run(cdb, out=b"")
        assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)


def test_target_core_commands_are_reported_only_behind_one() -> None:
    assert [row for row in everything().lu.table.values() if row.run is handled_by_target_core] == ROWS
    assert not [row for row in Disk().lu.table.values() if row.run is handled_by_target_core]
