"""Going on where a predecessor died, from the journal and the ring."""

import struct
from pathlib import Path

import pytest

from tests.tcmu.conftest import MakeServer
from tests.tcmu.server import READ_10, SENSE, Server, always, never
from vscsihba.errors import JournalDamagedError, RingCorruptError, TransportError
from vscsihba.tcmu import abi
from vscsihba.tcmu.completions import Completion
from vscsihba.tcmu.kernel import BLOCK
from vscsihba.tcmu.record import UNITS
from vscsihba.transport import Recovered

CHECK_CONDITION = 2
WRITE_10 = bytes((0x2A, *READ_10[1:]))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "disk.journal"


@pytest.fixture
def server(make_server: MakeServer, journal: Path) -> Server:
    return make_server(ring_size=3968, blocks=64, journal=journal)


def die(server: Server) -> list[Recovered]:
    """Kill the server and let a successor recover; recovered commands are completed like fetched ones."""
    server.fetched.clear()
    server.loopback.transport.attach()
    recovered = server.ring.recover()
    for command in recovered:
        server.park(command.tag, command.cdb, command.views)
    return recovered


def test_a_ring_without_a_past(server: Server) -> None:
    assert server.ring.recover() == []
    server.one()
    server.answer_all()
    assert die(server) == []
    assert server.one()


def test_nothing_works_before_the_journal_is_read(server: Server) -> None:
    server.one()
    server.loopback.transport.attach()
    for call in (server.fetch, server.ring.publish):
        with pytest.raises(TransportError, match="has not been read"):
            call()
    assert len(server.ring.recover()) == 1


def test_a_head_outside_the_ring_is_noticed_before_anything_is_read(server: Server) -> None:
    server.loopback.transport.attach()
    struct.pack_into("=I", server.loopback.memory, abi.CMD_HEAD_OFFSET, 3968)
    with pytest.raises(RingCorruptError, match="cmd_head 3968 leaves the ring"):
        server.ring.recover()


def test_rule_16_fetched_commands_are_recovered_in_order(server: Server) -> None:
    tags = [server.one(data_out=bytes([n]) * 512 * n) for n in range(1, 5)]
    recovered = die(server)
    assert [command.tag for command in recovered] == tags
    for n, command in enumerate(recovered, start=1):
        assert command.cdb[: len(READ_10)] == READ_10
        assert b"".join(command.views) == bytes([n]) * 512 * n
        assert not command.begun
    assert server.fetch() == 0
    server.answer_all()
    assert sorted(server.loopback.answers) == tags
    assert server.loopback.outstanding == 0


def test_rule_16_commands_not_fetched_yet_are_fetched(server: Server) -> None:
    taken = server.one()
    waiting = server.loopback.submit(READ_10, data_in=512)
    assert [command.tag for command in die(server)] == [taken]
    assert server.fetch() == 1
    assert list(server.fetched) == [taken, waiting]


@pytest.mark.parametrize("order", ["0123", "3210", "2031", "1302"])
@pytest.mark.parametrize("published", [True, False])
def test_rule_16_completions_in_the_slots_of_others(server: Server, order: str, *, published: bool) -> None:
    """A death after each completion: completed commands stay so, the others are recovered."""
    tags = [server.one(data_in=512 * (n + 1)) for n in range(4)]
    left = set(tags)
    for n in map(int, order):
        server.fetched[tags[n]].fill(bytes([n + 1]) * 512)
        server.answer(tags[n], data_in=512)
        left.remove(tags[n])
        if published:
            server.ring.publish()
        assert {command.tag for command in die(server)} == left
        assert server.fetch() == 0
    assert server.loopback.outstanding == 0
    for n, tag in enumerate(tags):
        answer = server.loopback.answers[tag]
        assert (answer.data, answer.residual) == (bytes([n + 1]) * 512, 512 * n)


def test_a_command_that_outlives_its_slot(server: Server) -> None:
    """Slots and ids are reused many times: the count still leads to the right entry."""
    old = server.one(data_out=b"\x5a" * 2 * BLOCK)
    for n in range(100):
        new = server.loopback.submit(READ_10, data_in=512)
        server.fetch(always if n % 3 else never)
        if new in server.fetched:
            server.answer(new)
        if n % 5:
            server.ring.publish()
        (command,) = die(server)
        assert command.tag == old
        assert b"".join(command.views) == b"\x5a" * 2 * BLOCK
        assert server.loopback.answers.pop(new).status == 0
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_unpublished_in_place_completions_are_executed_again(server: Server) -> None:
    tags = [server.loopback.submit(READ_10, data_in=512 * n) for n in range(4)]
    server.fetch(always)
    assert die(server) == []
    assert server.fetch() == 4
    assert [len(server.fetched[tag].data) for tag in tags] == [0, 512, 1024, 1536]


def test_in_place_completions_count_once_another_command_is_recorded(server: Server) -> None:
    first = server.loopback.submit(READ_10, data_in=512)
    server.fetch(always)
    second = server.one()
    assert [command.tag for command in die(server)] == [second]
    assert list(server.loopback.answers) == [first]
    assert server.fetch() == 0


def test_published_in_place_completions_count(server: Server) -> None:
    for count in (1, 3):
        for _ in range(count):
            server.loopback.submit(READ_10)
        assert server.fetch(always) == count
        server.ring.publish()
        waiting = server.loopback.submit(READ_10)
        assert die(server) == []
        assert server.fetch() == 1
        assert list(server.fetched) == [waiting]
        server.answer_all()


def test_successor_learns_that_a_command_had_begun(server: Server) -> None:
    tags = [server.one() for _ in range(3)]
    server.ring.begun(tags[1])
    assert [command.begun for command in die(server)] == [False, True, False]
    assert [command.begun for command in die(server)] == [False, True, False]


def test_begun_of_a_command_that_is_not_open_is_harmless(server: Server) -> None:
    server.ring.begun(server.one() + 1)
    assert not die(server)[0].begun


def test_the_predecessor_did_not_kick(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = server.one()
    monkeypatch.setattr(server.ring._completions, "_kick", lambda: None)
    server.answer(tag)
    server.ring.publish()
    assert server.loopback.answers == {}
    assert die(server) == []
    assert list(server.loopback.answers) == [tag]


def test_a_process_killed_before_its_completion_counts_has_recorded_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot is another command's, whose request is gone by then."""
    tags = [server.one(data_in=512) for _ in range(2)]
    server.fetched[tags[1]].fill(b"\x5a" * 512)

    def killed(_cmd_id: int, _position: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server.ring._journal, "settle", killed)
    with pytest.raises(KeyboardInterrupt):
        server.answer(tags[1], data_in=512)
    assert [command.tag for command in die(server)] == [tags[0]]
    assert server.loopback.answers.pop(tags[1]).data == b"\x5a" * 512
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_a_process_killed_between_completions_that_it_writes_together(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = [server.one(data_in=512) for _ in range(4)]
    for number, tag in enumerate(tags):
        server.fetched[tag].fill(bytes([number]) * 512)
    settle, settled = server.ring._journal.settle, list[int]()

    def killed(cmd_id: int, position: int) -> None:
        if settled:
            raise KeyboardInterrupt
        settled.append(cmd_id)
        settle(cmd_id, position)

    monkeypatch.setattr(server.ring._journal, "settle", killed)
    with pytest.raises(KeyboardInterrupt):
        server.ring.complete_good([(tags[3], 512), (tags[1], 512), (tags[2], 512)])
    assert [command.tag for command in die(server)] == [tags[0], tags[2]]
    answers = server.loopback.answers
    assert {tag: answer.data for tag, answer in answers.items()} == {
        tags[3]: b"\3" * 512,
        tags[1]: b"\1" * 512,
    }
    server.answer_all()
    assert server.loopback.outstanding == 0


def die_while_writing(server: Server, tags: list[int]) -> None:
    """Kill the server while the second command's completion is written into the first one's slot."""
    server.fetched[tags[1]].fill(b"\x5a" * 512)
    server.ring._journal.complete(tags[1], 256, Completion(0, 0, 512))
    server.loopback.memory[128 + abi.SENSE_OFFSET : 256] = bytes(256 - 128 - abi.SENSE_OFFSET)


@pytest.mark.parametrize("count", [2, 3])
def test_a_completion_that_was_half_written_is_written_again(server: Server, count: int) -> None:
    tags = [server.one(data_in=512) for _ in range(count)]
    die_while_writing(server, tags)
    assert [command.tag for command in die(server)] == [tags[0], *tags[2:]]
    answer = server.loopback.answers.pop(tags[1])
    assert (answer.status, answer.data) == (0, b"\x5a" * 512)
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_only_the_slot_being_written_may_be_torn(server: Server) -> None:
    tags = [server.one(data_in=512) for _ in range(3)]
    die_while_writing(server, tags)
    server.loopback.memory[256 + 113] ^= 1
    server.loopback.transport.attach()
    with pytest.raises(JournalDamagedError, match="is a different one"):
        server.ring.recover()


def test_sense_and_many_pieces_survive(make_server: MakeServer, journal: Path) -> None:
    """An entry with many iovecs takes several units of the journal."""
    server = make_server(ring_size=32 * 1024, blocks=400, journal=journal)
    server.loopback.kernel._free = list(range(0, 400, 2))
    pattern = bytes(range(256)) * 16
    large = server.one(data_out=pattern * 120)
    failed = server.one(data_in=512)
    server.answer(failed, 2, SENSE)
    (command,) = die(server)
    assert command.tag == large
    assert b"".join(command.views) == pattern * 120
    assert len(command.views) == 120
    assert server.loopback.answers[failed].sense[: len(SENSE)] == SENSE


def test_a_journal_that_is_full_refuses_with_task_set_full(make_server: MakeServer, journal: Path) -> None:
    server = make_server(ring_size=1 << 20, blocks=4, journal=journal)
    tags = [server.one() for _ in range(UNITS - 63 - 1)]
    refused = server.loopback.submit(READ_10, data_in=512)
    server.fetch()
    assert server.result(refused).status == 0x28
    assert [command.tag for command in die(server)] == tags
    server.answer(tags[3])
    assert server.one() in server.fetched
    server.answer_all()
    assert server.loopback.outstanding == 0


def test_a_command_too_large_for_the_journal_is_refused(make_server: MakeServer, journal: Path) -> None:
    """Without a record nothing may touch its buffer: it gets the kernel's own sense data."""
    server = make_server(ring_size=1 << 21, blocks=100_000, journal=journal)
    server.loopback.kernel._free = list(range(0, 100_000, 2))
    data = bytes(range(256)) * 16 * 49_999
    tag = server.loopback.submit(READ_10, data_out=data)
    assert server.fetch() == 1
    assert server.fetched == {}
    answer = server.result(tag)
    assert (answer.status, answer.sense[2], answer.sense[12]) == (2, 2, 8)


def test_a_reset_under_a_living_server_empties_the_journal(server: Server) -> None:
    server.one()
    server.answer_all()
    server.one()
    server.loopback.reset_ring()
    new = server.loopback.submit(READ_10)
    server.fetch()
    assert [command.tag for command in die(server)] == [new]


def test_a_reset_while_nobody_serves_is_noticed(server: Server) -> None:
    for _ in range(3):
        server.one()
        server.answer_all()
    server.one()
    server.loopback.reset_ring()
    server.loopback.transport.attach()
    with pytest.raises(JournalDamagedError, match="contradicts the ring"):
        server.ring.recover()
    assert server.ring.restart() == ()
    assert server.one()


@pytest.mark.parametrize("flags", [0xF, 0xF & ~abi.TCMU_MAILBOX_FLAG_CAP_READ_LEN])
def test_rule_17_complete_keep_buf_keeps_the_buffer(make_server: MakeServer, flags: int) -> None:
    server = make_server(flags=flags, blocks=64)
    tag = server.loopback.submit(WRITE_10, data_out=b"kept" * 16 * BLOCK)
    assert server.fetch() == 1
    views = server.fetched[tag].views
    assert server.ring.complete_keep_buf(tag, SENSE) == tag
    answer = server.result(tag)
    assert (answer.status, answer.sense[: len(SENSE)]) == (CHECK_CONDITION, SENSE)
    assert b"".join(views) == b"kept" * 16 * BLOCK, "it may still be written somewhere"
    assert server.loopback.outstanding == 1
    with pytest.raises(TransportError, match="data area is full"):
        server.loopback.submit(READ_10, data_in=1)
    with pytest.raises(TransportError, match="is not open"):
        server.ring.complete(tag, 0)
    server.loopback.free_kept_buf(tag)
    with pytest.raises(TransportError, match="not completed with KEEP_BUF"):
        server.loopback.free_kept_buf(tag)
    assert server.loopback.outstanding == 0


def test_complete_keep_buf_needs_the_kernel(make_server: MakeServer) -> None:
    server = make_server(flags=0xF & ~abi.TCMU_MAILBOX_FLAG_CAP_KEEP_BUF)
    with pytest.raises(TransportError, match="cannot keep a buffer"):
        server.ring.complete_keep_buf(server.one(), SENSE)


def test_complete_keep_buf_of_a_command_that_was_reset(server: Server) -> None:
    tag = server.one()
    server.loopback.reset_ring()
    assert server.ring.complete_keep_buf(tag, SENSE) is None


def test_rule_17_a_kept_buffer_is_freed_after_the_death_of_its_user(server: Server) -> None:
    """Published or not: nobody else would free it."""
    for published in (True, False):
        tag = server.one(data_in=64 * BLOCK)
        server.ring.complete_keep_buf(tag, SENSE)
        if published:
            server.ring.publish()
        assert die(server) == []
        assert server.loopback.answers.pop(tag).status == CHECK_CONDITION
        assert server.loopback.outstanding == 0
