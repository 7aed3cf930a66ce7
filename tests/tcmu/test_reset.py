"""action/reset_ring under a running server: head = tail = 0, everything completed with BUSY."""

from collections.abc import Callable

import pytest

from tests.tcmu.server import READ_10, Server, always, never
from vscsihba.errors import TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.completions import Completion


def advance(server: Server, commands: int) -> None:
    """Move the tail to the middle of the ring."""
    for _ in range(commands):
        server.loopback.submit(READ_10)
        server.fetch(always)
        server.ring.publish()
    server.loopback.answers.clear()


@pytest.fixture(params=[0, 1, 17, 31], ids=lambda n: f"tail {n}")
def busy(request: pytest.FixtureRequest, server: Server) -> Server:
    """A server with three open commands, whose ring was then reset."""
    advance(server, request.param)
    for _ in range(3):
        server.one(data_in=512)
    server.loopback.reset_ring()
    assert [answer.status for answer in server.loopback.answers.values()] == [8, 8, 8]
    server.loopback.answers.clear()
    # The kernel uses the lowest free id: the same ones come again.
    server.loopback.kernel._next_id = min(server.fetched)
    return server


def serves_on(server: Server, cut: Callable[..., bool] = never) -> None:
    server.fetched.clear()
    tags = [server.loopback.submit(READ_10, data_in=512) for _ in range(5)]
    assert server.fetch(cut) == 5
    for tag in list(server.fetched)[::-1]:
        server.answer(tag)
    server.ring.publish()
    assert {tag: server.loopback.answers[tag].status for tag in tags} == dict.fromkeys(tags, 0)
    assert server.loopback.outstanding == 0
    assert not server.loopback.broken


@pytest.mark.parametrize("cut", [always, never])
def test_rule_15_reattach_begins_anew(busy: Server, cut: Callable[..., bool]) -> None:
    assert busy.ring.reattach() == tuple(busy.fetched)
    assert busy.ring.open_tags == ()
    serves_on(busy, cut)


def test_rule_15_drain_notices(busy: Server) -> None:
    assert busy.fetch() == 0
    serves_on(busy)


def test_rule_15_publish_notices(busy: Server) -> None:
    """The old tail in an emptied ring would let the kernel consume entries that do not exist."""
    kicks = busy.loopback.kicks
    busy.ring.publish()
    assert busy.loopback.kicks == kicks
    serves_on(busy)


def test_rule_15_complete_notices_and_does_nothing(busy: Server) -> None:
    before = bytes(busy.loopback.memory)
    for tag in list(busy.fetched):
        busy.answer(tag, 2, bytes(96), data_in=0)
    assert bytes(busy.loopback.memory) == before
    serves_on(busy)


def test_rule_15_a_late_completion_does_not_reach_the_new_command_of_the_same_id(busy: Server) -> None:
    late = list(busy.fetched)
    busy.fetch()
    new = [busy.loopback.submit(READ_10, data_in=512) for _ in range(3)]
    assert new == late
    busy.fetch()
    for tag in late:
        busy.answer(tag, 2)
    busy.ring.publish()
    assert busy.loopback.answers == {}
    busy.answer_all()
    assert [busy.loopback.answers[tag].status for tag in new] == [0, 0, 0]


def test_rule_15_a_late_completion_is_ignored_once(busy: Server) -> None:
    (tag, *_) = busy.ring.reattach()
    busy.ring.complete(tag, 0)
    with pytest.raises(TransportError, match="is not open"):
        busy.ring.complete(tag, 0)


def test_rule_15_late_completions_together_are_ignored(busy: Server) -> None:
    lost = busy.ring.open_tags
    busy.loopback.reset_ring()
    answered = dict(busy.loopback.answers)
    busy.ring.complete_good([(tag, 512) for tag in lost])
    busy.ring.publish()
    assert busy.loopback.answers == answered
    assert not busy.loopback.broken


def test_a_late_refusal_does_nothing(busy: Server) -> None:
    (tag, *_) = busy.ring.reattach()
    busy.ring.refuse(tag)
    serves_on(busy)


def test_management_from_before_is_forgotten(server: Server) -> None:
    advance(server, 3)
    server.loopback.manage(abi.TCMU_TMR_LUN_RESET, (server.one(),))
    server.ring.drain(never, server.park)
    server.loopback.reset_ring()
    server.fetch()
    assert server.ring.take_management() == []


def test_management_after_names_new_commands(busy: Server) -> None:
    busy.fetch()
    busy.fetched.clear()
    tag = busy.loopback.submit(READ_10)
    busy.loopback.manage(abi.TCMU_TMR_ABORT_TASK, (tag,))
    busy.fetch()
    (met,) = busy.managed
    assert met.tags == tuple(busy.fetched)
    assert met.tags != (tag,)


def test_reset_while_commands_are_handed_out(server: Server) -> None:
    """A reset that `accept` notices in the middle of a batch ends the batch."""
    advance(server, 4)
    tags = [server.loopback.submit(READ_10) for _ in range(3)]

    def accept(tag: int, _cdb: bytes, _views: list[memoryview]) -> None:
        server.loopback.reset_ring()
        server.ring.complete(tag, 0)

    assert server.ring.drain(never, accept) == 1
    assert [server.loopback.answers.pop(tag).status for tag in tags] == [8, 8, 8]
    serves_on(server)


def test_an_idle_ring_may_be_reset(server: Server) -> None:
    advance(server, 5)
    server.loopback.reset_ring()
    serves_on(server)
    server.loopback.reset_ring()
    serves_on(server)


def test_a_broken_ring_is_whole_after_a_reset(server: Server) -> None:
    server.one()
    server.ring._completions.write(77, Completion(), [])
    with pytest.raises(TransportError):
        server.ring.publish()
    server.loopback.reset_ring()
    server.ring.reattach()
    serves_on(server)
