"""Commands past cmd_time_out (rule 11): completed late, without harm."""

from tests.tcmu.server import READ_10, Server, always
from vscsihba.tcmu.kernel import BLOCK


def test_rule_11_the_initiator_is_told_at_once(server: Server) -> None:
    tag = server.one(data_in=512)
    server.loopback.expire(tag)
    answer = server.loopback.answers.pop(tag)
    assert (answer.status, answer.sense[2], answer.sense[12]) == (2, 2, 8)


def test_rule_11_a_late_answer_is_dropped(server: Server) -> None:
    tag = server.one(data_in=512)
    server.loopback.expire(tag)
    server.loopback.answers.clear()
    server.answer_all()
    assert server.loopback.answers == {}
    assert not server.loopback.broken


def test_rule_11_id_and_buffers_stay_taken_until_the_answer(server: Server) -> None:
    tag = server.one(data_in=64 * BLOCK)
    server.loopback.expire(tag)
    assert (server.loopback.outstanding, len(server.loopback.kernel._free)) == (1, 0)
    server.answer_all()
    assert (server.loopback.outstanding, len(server.loopback.kernel._free)) == (0, 64)


def test_rule_11_a_command_that_expired_before_it_was_fetched_is_served_all_the_same(server: Server) -> None:
    tag = server.loopback.submit(READ_10, data_out=bytes(512))
    server.loopback.expire(tag)
    assert server.fetch(always) == 1
    server.ring.publish()
    assert server.loopback.outstanding == 0


def test_rule_11_the_others_are_not_held_up(server: Server) -> None:
    stuck = server.one()
    server.loopback.expire(stuck)
    server.loopback.answers.clear()
    for _ in range(100):
        tag = server.loopback.submit(READ_10)
        server.fetch(always)
        assert server.result(tag).status == 0
    server.answer(stuck)
    server.ring.publish()
    assert server.loopback.outstanding == 0
