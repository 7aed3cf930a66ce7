"""The journal in memory and in a file: records come back, damage is noticed."""

import errno
import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tcmu.conftest import MakeServer
from tests.tcmu.process import is_mapped
from tests.tcmu.server import READ_10, SENSE, Server
from vscsihba.errors import HostError, JournalDamagedError
from vscsihba.tcmu.completions import Completion
from vscsihba.tcmu.journal import DISTRUSTED, VOID, Journal, make_journal
from vscsihba.tcmu.journal_file import JournalFile, discard
from vscsihba.tcmu.record import ACCEPTED, BEGUN, DONE, SIZE, UNITS


def entry(cmd_id: int, length: int) -> memoryview:
    return memoryview(struct.pack("=IH", length, cmd_id) + bytes(n * cmd_id % 251 for n in range(length - 6)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "disk.journal"


@pytest.fixture
def server(make_server: MakeServer, path: Path) -> Iterator[Server]:
    """A server with an unpublished completion and three open commands, one of them begun."""
    server = make_server(ring_size=3968, blocks=64, journal=path)
    tags = [server.one(data_in=512) for _ in range(4)]
    server.answer(tags[2], 2, SENSE)
    server.ring.begun(tags[1])
    yield server
    server.loopback.transport.close()


LENGTHS = st.lists(
    st.integers(112, 6000) | st.sampled_from([367, 368, 369, 880, 881]), min_size=1, max_size=40
)
"""Lengths of entries: any, and those that just fill one unit of the table, or two."""


def recorded(memory: bytearray) -> list[tuple[int, bytes]]:
    """Return ids and entries of a table's records, in order of arrival."""
    return [(record.cmd_id, record.entry) for record in Journal(memoryview(memory)).load()]


@given(LENGTHS, LENGTHS)
@settings(deadline=None, max_examples=60)
def test_units_that_were_given_back_are_used_again(lengths: list[int], more: list[int]) -> None:
    """Records come in order of arrival whatever units they use, and none changes another's units."""
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    entries: dict[int, bytes] = {}

    def accept(first: int, lengths: list[int]) -> None:
        for cmd_id, length in enumerate(lengths, start=first):
            entries[cmd_id] = bytes(entry(cmd_id, length))
            assert journal.accept(cmd_id, 128 * cmd_id, memoryview(entries[cmd_id]))

    accept(1, lengths)
    for cmd_id in list(entries)[::2]:
        journal.forget(cmd_id)
        del entries[cmd_id]
    accept(100, more)
    assert recorded(memory) == list(entries.items())
    taken = sum(-(-(144 + len(stored)) // 512) for stored in entries.values())
    assert len(journal.free) == UNITS - taken
    successor = Journal(memoryview(memory))
    successor.adopt(successor.load())
    assert len(successor.free) == UNITS - taken
    journal = successor
    accept(200, lengths)
    assert recorded(memory) == list(entries.items())


def test_records_are_numbered_in_order_of_arrival() -> None:
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    for cmd_id in range(3):
        journal.accept(cmd_id, 128, entry(cmd_id, 128))
    journal.forget(1)
    journal = Journal(memoryview(memory))
    journal.adopt(journal.load())
    journal.accept(3, 128, entry(3, 128))
    assert [(record.cmd_id, record.sequence) for record in journal.load()] == [(0, 0), (2, 2), (3, 3)]
    journal = Journal(memoryview(memory))
    journal.adopt([])
    journal.accept(4, 128, entry(4, 128))
    assert [(record.cmd_id, record.sequence) for record in journal.load()] == [(4, 0)]


def test_a_successor_uses_every_free_unit_and_no_other() -> None:
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    journal.accept(1, 128, entry(1, 1000))
    journal.accept(2, 128, entry(2, 128))
    journal.complete(2, 256, Completion())  # it counts, so the successor does not adopt it
    journal = Journal(memoryview(memory))
    journal.adopt(journal.load()[:1])
    assert recorded(memory) == [(1, bytes(entry(1, 1000)))]
    for cmd_id in range(2, UNITS - 3 + 2):
        assert journal.accept(cmd_id, 128, entry(cmd_id, 128))
    assert not journal.accept(0, 128, entry(0, 128))
    assert [cmd_id for cmd_id, _ in recorded(memory)] == list(range(1, UNITS - 3 + 2))
    journal.begin(1)
    journal.forget(2)
    assert [record.state for record in Journal(memoryview(memory)).load()][:2] == [BEGUN, ACCEPTED]


def test_a_restart_clears_everything_and_is_void_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A successor in between finds no records, not half of them with the old position."""
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    journal.move_to(256)
    journal.accept(1, 128, entry(1, 1000))
    journal.complete(2, 384, Completion())
    moves: list[tuple[int, int]] = []
    real = journal.move_to

    def move_to(position: int) -> None:
        moves.append((position, len(recorded(memory))))
        real(position)

    monkeypatch.setattr(journal, "move_to", move_to)
    journal.restart(512)
    assert moves == [(VOID, 1), (512, 0)]
    assert (journal.position, journal.intent, len(journal.free)) == (512, 0, UNITS)
    journal.begin(1)
    journal.complete(1, 640, Completion())
    journal.forget(1)
    assert (recorded(memory), len(journal.free)) == ([], UNITS)
    for cmd_id in range(UNITS):
        assert journal.accept(cmd_id, 128, entry(cmd_id, 128))


def test_the_layout_is_that_of_earlier_versions(path: Path) -> None:
    """Predecessor and successor may be of different versions of this program."""
    first, second = bytes(entry(7, 128)), bytes(entry(8, 400))
    with closing(JournalFile(path, "a")) as opened:
        journal = opened.journal
        journal.accept(7, 128, memoryview(first))
        journal.accept(8, 256, memoryview(second))
        journal.begin(8)
        journal.complete(7, 384, Completion(1, 2, 77, SENSE))
        journal.move_to(256)
    expected = bytearray(802_816)
    header = struct.pack("=8sI32s", b"vscsihba", 1, hashlib.sha256(b"a").digest())
    struct.pack_into("=44sI", expected, 0, header, zlib.crc32(header))
    struct.pack_into("=QI", expected, 64, 256 | (256 ^ 0xFFFFFFFF) << 32, 384)
    struct.pack_into("=II", expected, 4096, 0x444F4E45, 0x4245474E)
    struct.pack_into("=I", expected, 10_240 + 4, 2)
    for unit, (at, stored) in enumerate([(128, first), (256, second)]):
        head = struct.pack("=QII", unit, at, len(stored))
        struct.pack_into("=16sI", expected, 16_384 + 512 * unit, head, zlib.crc32(head + stored))
        struct.pack_into("=368s", expected, 16_384 + 512 * unit + 144, stored[:368])
    completion = struct.pack("=BB2xI96s", 1, 2, 77, SENSE)
    struct.pack_into("=104sI", expected, 16_384 + 32, completion, zlib.crc32(completion))
    struct.pack_into("=32s", expected, 16_384 + 1024, second[368:])
    stored = path.read_bytes()
    assert len(stored) == len(expected)
    assert [at for at in range(len(stored)) if stored[at] != expected[at]] == []
    assert DISTRUSTED == 1


@given(st.lists(st.integers(112, 6000), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_records_come_back_in_order(lengths: list[int]) -> None:
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    entries = {cmd_id: entry(cmd_id, length) for cmd_id, length in enumerate(lengths, start=1)}
    for cmd_id, stored in entries.items():
        assert journal.accept(cmd_id, 128 * cmd_id, stored)
    for cmd_id in list(entries)[::3]:
        journal.forget(cmd_id)
        del entries[cmd_id]
    for cmd_id in list(entries)[::2]:
        journal.begin(cmd_id)
    records = Journal(memoryview(memory)).load()
    assert [(record.cmd_id, record.at, record.entry) for record in records] == [
        (cmd_id, 128 * cmd_id, bytes(stored)) for cmd_id, stored in entries.items()
    ]
    assert [record.state for record in records] == [(BEGUN, ACCEPTED)[n % 2] for n in range(len(records))]


def test_room_is_given_back() -> None:
    journal = make_journal()
    large = entry(1, 5000)
    for turn in range(3 * UNITS):
        assert journal.accept(turn % 7, 128, large)
        journal.forget(turn % 7)
    assert len(journal.free) == UNITS


def test_no_room() -> None:
    journal = make_journal()
    for cmd_id in range(UNITS):
        assert journal.accept(cmd_id, 128, entry(1, 128))
    assert not journal.accept(UNITS, 128, entry(1, 128))
    journal.forget(3)
    assert not journal.accept(UNITS, 128, entry(1, 500))
    assert journal.accept(UNITS, 128, entry(1, 128))


def test_an_answer_comes_back() -> None:
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    journal.accept(7, 128, entry(7, 128))
    journal.complete(7, 256, Completion(2, 2, 77, SENSE))
    (record,) = Journal(memoryview(memory)).load()
    assert (record.state, record.completion) == (DONE, Completion(2, 2, 77, SENSE.ljust(96, b"\0")))


UNIT_0 = SIZE - UNITS * 512
LINK_0 = 4096 + 4 * UNITS


@pytest.mark.parametrize(
    ("at", "form", "value", "words"),
    [
        (UNIT_0 + 32, "B", 0x10, "the completion in record 0 of the journal is damaged"),
        (UNIT_0 + 135, "B", 0x10, "the completion in record 0 of the journal is damaged"),
        (UNIT_0 + 136, "B", 0x10, "the completion in record 0 of the journal is damaged"),
        (UNIT_0 + 139, "B", 0x10, "the completion in record 0 of the journal is damaged"),
        (UNIT_0 + 16, "B", 0x10, "record 0 of the journal is damaged"),
        (LINK_0, "I", 0, "record 0 of the journal is damaged"),
        (LINK_0, "I", UNITS, "record 0 of the journal is damaged"),
        (LINK_0, "I", 0xFFFFFFFF, "record 0 of the journal is damaged"),
        (LINK_0 + 4 * 2, "I", 1, "two records of the journal share a place"),
    ],
)
def test_a_damaged_record_is_noticed(at: int, form: str, value: int, words: str) -> None:
    """The table has a completed record of two units, and another one that goes on with the same bytes."""
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    for cmd_id in (1, 2):
        journal.accept(cmd_id, 128, memoryview(struct.pack("=IH394x", 400, cmd_id)))
    journal.complete(1, 256, Completion(0, 2, 0, SENSE))
    assert len(journal.load()) == 2
    struct.pack_into(form, memory, at, value ^ (memory[at] if form == "B" else 0))
    with pytest.raises(JournalDamagedError, match=f"^{words}$"):
        journal.load()


@pytest.mark.parametrize("unit", [UNITS, UNITS + 1, 0xFFFFFFFF])
def test_a_record_that_leads_out_of_the_table_is_damaged(unit: int) -> None:
    """The first link of a record of three units is checked before the second one is looked up."""
    memory = bytearray(SIZE)
    journal = Journal(memoryview(memory))
    journal.accept(1, 128, entry(1, 1000))
    struct.pack_into("=I", memory, LINK_0, unit)
    with pytest.raises(JournalDamagedError, match="record 0 of the journal is damaged"):
        journal.load()


def refused(server: Server) -> str:
    """Check that a successor refuses the journal, changes nothing, and can begin anew; return the message."""
    loopback = server.loopback
    loopback.transport.attach()
    before = bytes(loopback.memory)
    with pytest.raises(JournalDamagedError) as caught:
        server.ring.recover()
    assert bytes(loopback.memory) == before
    assert loopback.answers == {}
    loopback.reset_ring()
    server.ring.restart()
    server.fetched.clear()
    tag = server.one()
    loopback.transport.attach()
    (again,) = server.ring.recover()
    assert again.tag == tag
    server.ring.complete(tag, 0)
    server.ring.publish()
    assert loopback.outstanding == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (64, "position"),
        (68, "position"),
        (4096, "record 0 .* damaged"),
        (4096 + 4 * UNITS - 1, "is damaged"),
        (SIZE - UNITS * 512, "record 0 .* damaged"),
        (SIZE - UNITS * 512 + 12, "record 0 .* damaged"),
        (SIZE - UNITS * 512 + 144 + 5, "record 0 .* damaged"),
        (SIZE - UNITS * 512 + 512 + 144 + 50, "record 1 .* damaged"),
    ],
)
def test_damage_is_noticed(server: Server, path: Path, offset: int, words: str) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    assert re.search(words, refused(server))


@pytest.mark.parametrize("name", ["tail", "head"])
def test_a_ring_of_another_time_is_noticed(server: Server, name: str) -> None:
    offset = {"tail": 64, "head": 12}[name]
    struct.pack_into("=I", server.loopback.memory, offset, {"tail": 384, "head": 256}[name])
    assert "contradicts the ring" in refused(server)


@pytest.mark.parametrize("slot", [1, 3])
def test_a_request_that_is_another_one_is_noticed(server: Server, slot: int) -> None:
    server.loopback.memory[128 + slot * 128 + 113] ^= 1
    assert "is a different one" in refused(server)


def replace_record(server: Server, at: int, recorded_at: int, cdb_at: int) -> None:
    """Change the record of the slot at byte `at`: another place, or another place of the CDB."""
    journal = server.ring._journal
    changed = bytearray(server.loopback.memory[at : at + 128])
    struct.pack_into("=Q", changed, 24, at + cdb_at)
    (cmd_id,) = struct.unpack_from("=H", changed, 4)
    journal.forget(cmd_id)
    assert journal.accept(cmd_id, recorded_at, memoryview(changed))


@pytest.mark.parametrize("cdb_at", [-8, 111, 128])
def test_a_record_with_its_cdb_elsewhere_is_noticed(server: Server, cdb_at: int) -> None:
    replace_record(server, 512, 512, cdb_at)
    assert "is recorded with a CDB at" in refused(server)


def test_a_record_of_another_place_is_noticed(server: Server) -> None:
    (cdb_off,) = struct.unpack_from("=Q", server.loopback.memory, 512 + 24)
    replace_record(server, 512, 504, cdb_off - 512)
    assert "is a different one" in refused(server)


def test_a_command_that_is_recorded_and_answered_is_noticed(server: Server) -> None:
    struct.pack_into("=H", server.loopback.memory, 128 + 4, 1)
    assert "recorded and completed" in refused(server)


def test_two_answers_under_way_are_noticed(server: Server) -> None:
    journal = server.ring._journal
    for cmd_id in (1, 2):
        journal.complete(cmd_id, 999, Completion())
    assert "two completions" in refused(server)


@pytest.mark.parametrize("content", [b"", b"x", bytes(SIZE), b"vscsihba" * (SIZE // 8)])
def test_a_file_that_says_nothing_is_distrusted_until_the_ring_was_reset(
    server: Server, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    server.loopback.transport.attach()
    assert server.ring._journal.position == DISTRUSTED
    assert "no known device" in refused(server)


def test_the_journal_of_an_older_device_is_not_believed(server: Server, path: Path) -> None:
    server.loopback.identity = "the next device of this name"
    server.loopback.transport.attach()
    assert server.ring.recover() == []
    assert server.ring.open_tags == ()


def test_file_is_private_and_whole(path: Path) -> None:
    with closing(JournalFile(path, "a")) as opened:
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == SIZE
        assert status.st_blocks * 512 >= SIZE
        assert is_mapped(path)
        opened.journal.move_to(4711)
    assert not is_mapped(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with closing(JournalFile(path, "a")) as opened:
        assert opened.journal.position == 4711
    with closing(JournalFile(path, "b")) as opened:
        assert opened.journal.is_void
    opened.close()


def test_no_descriptor_stays_open(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for identity in ("a", "a", "b"):
        JournalFile(path, identity).close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        JournalFile(tmp_path / "run" / "hba" / "disk.journal", "a").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run" / "hba").stat().st_mode) == 0o700


def test_a_half_made_file_of_a_killed_process_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    left = path.with_name(path.name + ".new")
    left.write_text("half")
    JournalFile(path, "a").close()
    assert not left.exists()


def test_a_forked_child_has_no_journal(path: Path) -> None:
    with closing(JournalFile(path, "a")):
        child = os.fork()
        if child == 0:
            os._exit(1 if is_mapped(path) else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match=str(path)):
        JournalFile(path, "a")


def test_no_room_for_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(HostError, match="No space left"):
        JournalFile(path, "a")


def test_discard(path: Path) -> None:
    JournalFile(path, "a").close()
    discard(path)
    discard(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(HostError, match=str(path)):
        discard(path)


def test_a_fresh_journal_goes_on_from_the_tail(make_server: MakeServer, path: Path) -> None:
    """The first server with a journal follows one without."""
    server = make_server(ring_size=3968, blocks=64)
    server.one()
    server.answer_all()
    waiting = server.loopback.submit(READ_10)
    server.loopback.journal = path
    server.loopback.transport.attach()
    assert server.ring.recover() == []
    assert server.fetch() == 1
    assert list(server.fetched) == [waiting]
