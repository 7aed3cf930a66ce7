"""Completions in any order (rule 7): into slots of other commands, which are then reused and poisoned."""

import itertools

import pytest

from tests.tcmu.conftest import MakeServer
from tests.tcmu.server import READ_10, SENSE, Server, always
from vscsihba.errors import TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.kernel import BLOCK

PERMUTATIONS = list(itertools.permutations(range(4)))


@pytest.mark.parametrize("order", PERMUTATIONS, ids=lambda order: "".join(map(str, order)))
@pytest.mark.parametrize("each", [True, False], ids=["publish each", "publish once"])
def test_rule_7_every_permutation(server: Server, order: tuple[int, ...], *, each: bool) -> None:
    """Each command gets its own status, sense and data, whatever slot its completion is written to."""
    tags = [server.one(data_in=512 * (n + 1)) for n in range(4)]
    for n in order:
        server.fetched[tags[n]].fill(bytes([n + 1]) * 512 * (n + 1))
        if n == 2:
            server.answer(tags[n], 2, SENSE)
        else:
            server.answer(tags[n], data_in=512 * (n + 1) - n)
        if each:
            server.ring.publish()
    server.ring.publish()
    for n in (0, 1, 3):
        answer = server.loopback.answers[tags[n]]
        assert (answer.status, answer.residual) == (0, n)
        assert answer.data == bytes([n + 1]) * (512 * (n + 1) - n)
    failed = server.loopback.answers[tags[2]]
    assert (failed.status, failed.sense[: len(SENSE)], failed.data) == (2, SENSE, b"")


@pytest.mark.parametrize("order", PERMUTATIONS, ids=lambda order: "".join(map(str, order)))
def test_rule_7_completions_that_are_written_together(server: Server, order: tuple[int, ...]) -> None:
    """Reads and writes of four commands, the last of which stays open."""
    tags = [server.one(data_in=512 * (n + 1)) if n % 2 else server.one(data_out=b"w" * 512) for n in range(4)]
    for n in (1, 3):
        server.fetched[tags[n]].fill(bytes([n]) * 512 * (n + 1))
    done = order[:3]
    server.ring.complete_good([(tags[n], 512 * (n + 1) - n if n % 2 else 0) for n in done])
    assert server.ring.open_tags == (tags[order[3]],)
    server.ring.publish()
    answers = server.loopback.answers
    assert set(answers) == {tags[n] for n in done}
    for n in done:
        answer = answers[tags[n]]
        assert answer.status == 0
        if n % 2:
            assert (answer.data, answer.residual) == (bytes([n]) * (512 * (n + 1) - n), n)


def test_completions_together_end_at_a_command_that_is_not_open(server: Server) -> None:
    tags = [server.one(data_in=512) for _ in range(3)]
    with pytest.raises(TransportError, match="is not open"):
        server.ring.complete_good([(tags[1], 512), (tags[1], 512), (tags[0], 512)])
    assert server.ring.open_tags == (tags[0], tags[2])
    server.ring.publish()
    assert list(server.loopback.answers) == [tags[1]]


@pytest.mark.parametrize("order", PERMUTATIONS, ids=lambda order: "".join(map(str, order)))
def test_rule_7_entries_of_different_sizes(make_server: MakeServer, order: tuple[int, ...]) -> None:
    """A slot keeps its own length, whatever command is completed in it."""
    server = make_server(ring_size=3968, blocks=64)
    server.loopback.kernel._free = list(range(0, 64, 2))
    tags = [server.one(data_out=bytes([n]) * BLOCK * pieces) for n, pieces in enumerate((1, 9, 2, 6))]
    for n in order:
        assert set(server.fetched[tags[n]].data) == {n}
        server.answer(tags[n])
        server.ring.publish()
    assert server.loopback.outstanding == 0


def test_rule_7_slots_are_consumed_in_ring_order(server: Server) -> None:
    """The completion of the last command goes into the first slot: the tail moves at once."""
    tags = [server.one() for _ in range(3)]
    server.answer(tags[2])
    server.ring.publish()
    assert list(server.loopback.answers) == [tags[2]]


def test_rule_7_recycled_slots_are_not_read(server: Server) -> None:
    """A command that stays open over many laps is completed with its own bytes."""
    old = server.one(data_out=b"\x5a" * 2 * BLOCK)
    for _ in range(100):
        new = server.loopback.submit(READ_10, data_in=512)
        server.fetch(always)
        assert server.result(new).status == 0
    assert server.fetched[old].cdb[: len(READ_10)] == READ_10
    assert server.fetched[old].data == b"\x5a" * 2 * BLOCK
    server.answer(old)
    assert server.result(old).status == 0
    assert server.loopback.outstanding == 0


def test_in_place_answer_steals_the_slot_of_an_older_open_command(server: Server) -> None:
    old = server.one(data_in=512)
    new = server.loopback.submit(READ_10, data_in=512)
    server.fetch(always)
    server.ring.publish()
    assert list(server.loopback.answers) == [new]
    assert server.ring.open_tags == (old,)


def test_cut_and_slow_path_take_turns(server: Server) -> None:
    def cut(cdb_at: int, _views: list[memoryview], _length: int, _cmd_id: int) -> bool:
        return server.ring.memory[cdb_at] % 3 != 0

    tags = []
    for n in range(200):
        tags.append(server.loopback.submit(bytes((n, 0, 0, 0, 0, 0)), data_in=100))
        if n % 5 == 4:
            server.fetch(cut)
            for tag in [*server.fetched][:-1][::-1]:
                server.answer(tag, data_in=0)
            server.ring.publish()
    server.answer_all()
    assert sorted(server.loopback.answers) == tags
    assert all(answer.status == 0 for answer in server.loopback.answers.values())


def test_flags_of_an_answer_do_not_reach_the_next_command_in_the_slot(server: Server) -> None:
    """Rule 9: uflags are set from 0 each time; READ_LEN of one command does not reach the next."""
    first, second = server.one(data_in=512), server.one(data_in=512)
    server.fetched[second].fill(b"2" * 100)
    server.answer(second, data_in=100)
    server.fetched[first].fill(b"1" * 512)
    server.answer(first, data_in=512)
    server.ring.publish()
    assert (server.loopback.answers[second].data, server.loopback.answers[second].residual) == (
        b"2" * 100,
        412,
    )
    assert (server.loopback.answers[first].data, server.loopback.answers[first].residual) == (b"1" * 512, 0)


@pytest.mark.parametrize("status", [0, 2, 8])
@pytest.mark.parametrize("data_in", [0, 512])
def test_flags_that_are_in_a_slot_are_overwritten(server: Server, status: int, data_in: int) -> None:
    tag = server.one(data_in=data_in)
    server.loopback.memory[abi.MAILBOX_SIZE + abi.tcmu_cmd_entry_hdr.uflags.offset] = 0xFF
    server.fetched[tag].fill(b"x" * data_in)
    server.answer(tag, status, SENSE, data_in=data_in)
    answer = server.result(tag)
    assert (answer.status, answer.data) == (status, b"x" * data_in)
    assert answer.sense[:18] == (SENSE if status == 2 else b"")
