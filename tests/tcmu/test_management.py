"""Task management entries (rules 6 and 10)."""

import pytest

from tests.tcmu.server import READ_10, Server, always, never
from vscsihba.errors import RingCorruptError
from vscsihba.tcmu import abi
from vscsihba.tcmu.management import read_management
from vscsihba.transport import TaskManagement


def test_rule_10_open_commands_are_named(server: Server) -> None:
    tags = tuple(server.one() for _ in range(3))
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET, tags)
    assert server.fetch() == 0
    assert server.managed == [TaskManagement("LOGICAL UNIT RESET", tags)]
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_rule_10_answered_and_unknown_commands_are_not_named(server: Server) -> None:
    done, left = server.one(), server.one()
    server.answer(done)
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK_SET, (done, left, 9999))
    server.fetch()
    assert server.managed == [TaskManagement("ABORT TASK SET", (left,))]


def test_management_is_taken_once(server: Server) -> None:
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK)
    server.ring.drain(never, server.park)
    assert len(server.ring.take_management()) == 1
    assert server.ring.take_management() == []


def test_drain_stops_at_management_until_it_was_taken(server: Server) -> None:
    """A reset must be acted on before the commands that were sent after it."""
    before = server.loopback.submit(READ_10)
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET, (before,))
    after = server.loopback.submit(READ_10)
    assert server.ring.drain(never, server.park) == 1
    assert server.ring.take_management() == [TaskManagement("LOGICAL UNIT RESET", (before,))]
    assert server.ring.pending()
    assert server.ring.drain(never, server.park) == 1
    assert list(server.fetched) == [before, after]


def test_management_comes_in_order(server: Server) -> None:
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK)
    server.loopback.submit(READ_10)
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET_PRO)
    assert server.fetch() == 1
    assert [met.function for met in server.managed] == ["ABORT TASK", "PREEMPT AND ABORT"]


def test_unheard_of_function_keeps_its_number(server: Server) -> None:
    server.loopback.manage(77)
    server.fetch()
    assert server.managed == [TaskManagement("function 77", ())]


@pytest.mark.parametrize("cut", [always, never])
def test_rule_6_management_between_commands_is_skipped_on_completion(server: Server, cut: type) -> None:
    first = server.loopback.submit(READ_10)
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK, (first,))
    second = server.loopback.submit(READ_10)
    server.fetch(cut)
    for tag in list(server.fetched):
        server.answer(tag)
    server.ring.publish()
    assert sorted(server.loopback.answers) == [first, second]


def test_rule_6_trailing_management_moves_the_tail_when_nothing_is_open(server: Server) -> None:
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET)
    server.fetch()
    server.ring.publish()
    assert server.loopback.kicks == 1
    assert server.loopback.kernel._cleaned == server.loopback.kernel._head


def test_trailing_management_waits_behind_an_open_command(server: Server) -> None:
    tag = server.one()
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET, (tag,))
    server.fetch()
    server.ring.publish()
    assert server.loopback.kicks == 0
    server.answer_all()
    assert server.loopback.kicks == 1
    assert server.loopback.kernel._cleaned == server.loopback.kernel._head


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
def test_any_number_of_commands_can_be_named(server: Server, count: int) -> None:
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK, range(1, count + 1))
    tag = server.loopback.submit(READ_10)
    server.fetch(always)
    assert server.result(tag).status == 0


def test_entry_that_names_more_than_it_holds_is_corrupt(server: Server) -> None:
    server.loopback.manage(abi.TCMU_TMR_ABORT_TASK, (1, 2, 3, 4))
    at = abi.MAILBOX_SIZE + abi.tcmu_tmr_entry.cmd_cnt.offset
    server.loopback.memory[at] = 5
    with pytest.raises(RingCorruptError, match="names 5 commands"):
        server.fetch()


def test_ids_are_read_from_behind_the_entry() -> None:
    entry = abi.tcmu_tmr_entry(tmr_type=abi.TCMU_TMR_ABORT_TASK, cmd_cnt=2)
    memory = memoryview(bytes(16) + bytes(entry) + bytes((1, 0, 2, 0)))
    assert read_management(memory, 16, 36) == ("ABORT TASK", (1, 2))
