"""Fetching commands: order, CDB, data buffer, fast path (rules 5, 7, 8)."""

from collections.abc import Callable

import pytest

from tests.tcmu.conftest import MakeServer
from tests.tcmu.server import READ_10, Server, always, never
from vscsihba.tcmu.kernel import BLOCK


def cdb(opcode: int, length: int) -> bytes:
    return bytes((opcode, *(n % 256 for n in range(1, length))))


def test_commands_come_in_ring_order(server: Server) -> None:
    tags = [server.loopback.submit(cdb(opcode, 6)) for opcode in range(20)]
    assert server.fetch() == 20
    assert list(server.fetched) == tags
    assert [command.cdb[0] for command in server.fetched.values()] == list(range(20))


@pytest.mark.parametrize("length", [6, 10, 12, 16, 32, 260])
def test_cdb_comes_whole(server: Server, length: int) -> None:
    server.loopback.submit(cdb(0x7F, length))
    server.fetch()
    (command,) = server.fetched.values()
    assert command.cdb[:length] == cdb(0x7F, length)
    assert len(command.cdb) == -(-length // 8) * 8


def test_rule_8_a_vendor_specific_operation_code_is_handed_out_like_any(server: Server) -> None:
    server.loopback.submit(cdb(0xC0, 10))
    assert server.fetch() == 1


def test_rule_7_a_cdb_is_a_copy(server: Server) -> None:
    first, second = server.one(), server.one()
    kept = server.fetched[first].cdb
    server.answer(second)
    server.answer(first)
    server.ring.publish()
    assert kept[: len(READ_10)] == READ_10


@pytest.mark.parametrize("length", [1, 512, BLOCK, BLOCK + 1, 3 * BLOCK, 17 * BLOCK - 512])
def test_data_out_arrives(server: Server, length: int) -> None:
    data = bytes(n * 7 % 251 for n in range(length))
    tag = server.one(data_out=data)
    assert server.fetched[tag].data == data


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 6, 20])
def test_scattered_buffer_is_in_order(server: Server, pieces: int) -> None:
    """A completion overwrites iovecs 0 to 3 and half of 4: both sides of that edge."""
    server.loopback.kernel._free = [2 * n for n in range(pieces)][::-1]
    data = b"".join(bytes([n]) * BLOCK for n in range(pieces))
    tag = server.one(data_out=data)
    assert len(server.fetched[tag].views) == pieces
    assert server.fetched[tag].data == data


def test_command_without_data_has_no_views(server: Server) -> None:
    tag = server.one()
    assert server.fetched[tag].views == []


@pytest.mark.parametrize("cut", [always, never])
def test_no_more_commands_are_fetched_than_are_asked_for(
    server: Server, cut: Callable[[int, list[memoryview], int, int], bool]
) -> None:
    for _ in range(5):
        server.loopback.submit(READ_10)
    for most, fetched in ((2, 2), (0, 0), (1, 1), (3, 2), (1, 0)):
        assert server.ring.drain(cut, server.park, most) == fetched
    server.answer_all()
    assert len(server.loopback.answers) == 5


def test_entries_are_pending_until_they_were_fetched(server: Server) -> None:
    assert not server.ring.pending()
    for _ in range(3):
        server.loopback.submit(READ_10)
        assert server.ring.pending()
        server.fetch()
        assert not server.ring.pending()


def test_cut_sees_cdb_and_buffer_in_place(server: Server) -> None:
    seen = []

    def cut(cdb_at: int, views: list[memoryview], length: int, _cmd_id: int) -> bool:
        seen.append((bytes(server.ring.memory[cdb_at : cdb_at + 10]), len(views), length))
        return True

    server.loopback.submit(READ_10, data_in=1536)
    server.loopback.submit(READ_10)
    assert server.fetch(cut) == 2
    assert seen == [(READ_10, 1, 1536), (READ_10, 0, 0)]
    assert not server.fetched


def test_cut_that_raises_leaves_the_command_to_be_fetched_again(server: Server) -> None:
    def cut(_cdb_at: int, _views: list[memoryview], _length: int, _cmd_id: int) -> bool:
        raise KeyboardInterrupt

    tag = server.loopback.submit(READ_10)
    with pytest.raises(KeyboardInterrupt):
        server.fetch(cut)
    assert server.fetch(always) == 1
    assert server.result(tag).status == 0


def test_accept_that_raises_leaves_the_command_open(server: Server) -> None:
    def accept(_tag: int, _cdb: bytes, _views: list[memoryview]) -> None:
        raise KeyboardInterrupt

    before, tag, after = (server.loopback.submit(READ_10) for _ in range(3))
    with pytest.raises(KeyboardInterrupt):
        server.ring.drain(lambda cdb_at, *_: cdb_at < 256, accept)
    assert server.ring.open_tags == (tag,)
    assert server.fetch() == 1
    assert list(server.fetched) == [after]
    server.ring.complete(tag, 0x18)
    server.answer_all()
    assert [server.loopback.answers[each].status for each in (before, tag, after)] == [0, 0x18, 0]


def test_accept_may_answer_at_once(server: Server) -> None:
    def accept(tag: int, _cdb: bytes, _views: list[memoryview]) -> None:
        server.ring.complete(tag, 0)

    tags = [server.loopback.submit(READ_10) for _ in range(3)]
    server.ring.drain(lambda *_: False, accept)
    server.ring.publish()
    assert list(server.loopback.answers) == tags


def test_all_of_a_big_ring_is_fetched_over_many_laps(make_server: MakeServer) -> None:
    server = make_server(ring_size=8192, blocks=4)
    for lap in range(50):
        tags = [server.loopback.submit(cdb(n % 256, 6 + lap % 11)) for n in range(20)]
        assert server.fetch(always) == 20
        server.ring.publish()
        assert list(server.loopback.answers) == tags
        server.loopback.answers.clear()
    assert server.loopback.outstanding == 0
