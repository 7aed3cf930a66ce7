"""Attaching to a ring: rules 1, 2 and 5."""

import select

from tests.tcmu.server import READ_10, Server, always


def readable(server: Server) -> bool:
    return bool(select.select([server.loopback.transport], [], [], 0)[0])


def test_rule_1_what_was_notified_before_is_not_notified_again(server: Server) -> None:
    server.loopback.submit(READ_10)
    server.loopback.transport.attach()
    assert not readable(server)
    assert server.ring.pending()
    assert server.fetch() == 1


def test_rule_2_a_command_between_acknowledge_and_drain_is_not_lost(server: Server) -> None:
    server.loopback.submit(READ_10)
    server.loopback.transport.acknowledge()
    server.loopback.submit(READ_10)
    assert server.fetch() == 2


def test_rule_2_a_command_after_drain_is_notified(server: Server) -> None:
    server.loopback.submit(READ_10)
    server.loopback.transport.acknowledge()
    server.fetch()
    server.loopback.submit(READ_10)
    assert readable(server)
    assert server.ring.pending()


def test_rule_2_notifications_coalesce(server: Server) -> None:
    for _ in range(3):
        server.loopback.submit(READ_10)
    server.loopback.transport.acknowledge()
    assert not readable(server)
    assert server.fetch() == 3


def test_rule_2_acknowledging_nothing_is_harmless(server: Server) -> None:
    server.loopback.transport.acknowledge()
    assert server.fetch() == 0
    assert not server.ring.pending()


def test_rule_5_both_positions_start_at_cmd_tail(server: Server) -> None:
    server.one()
    server.answer_all()
    second = server.one(data_in=512)
    server.loopback.transport.attach()
    server.fetched.clear()
    assert server.fetch() == 1
    assert list(server.fetched) == [second]
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_rule_5_fetching_does_not_wait_for_answers(server: Server) -> None:
    tags = [server.one() for _ in range(5)]
    assert list(server.fetched) == tags == list(server.ring.open_tags)
    assert not server.loopback.answers


def test_an_unpublished_answer_is_fetched_again_by_the_next_server(server: Server) -> None:
    """A process can die anywhere: a command that the kernel has not consumed is still open.

    An in-place completion overwrites iov_cnt, but the iovecs are intact and can be counted.
    """
    tag = server.loopback.submit(READ_10, data_in=512)
    server.fetch(always)
    server.loopback.transport.attach()
    assert server.fetch() == 1
    assert [len(view) for view in server.fetched[tag].views] == [512]
    server.answer(tag, 8)
    assert server.result(tag).status == 8
    assert not server.loopback.broken
