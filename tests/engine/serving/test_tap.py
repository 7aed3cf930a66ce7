"""The tap of a LUN: every finished command, on each way that a command takes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.rig import CHECK_CONDITION, TASK_ABORTED, Rig, rw10
from tests.engine.slow import FLUSH, Held, slow_rig
from vscsihba import scsi
from vscsihba.engine.serving.tap import Tap, Taps, TraceBuffer
from vscsihba.records import UNKNOWN, Direction, Kind, Record, records
from vscsihba.tcmu import abi

DATA = bytes(range(256)) * 16


class Reader(TraceBuffer):
    """A buffer that is read as records."""

    def __init__(self, limit: int = 1 << 20, snaplen: int = 64) -> None:
        super().__init__(limit, snaplen)

    def read(self, kind: Kind = Kind.COMMAND) -> list[Record]:
        """Take out the records, and return those of a kind."""
        return [record for record in records(self.take_out()) if record.kind is kind]


def commands(rig: Rig) -> None:
    """Send a write, two reads, of which one takes the slow path (DPO), and one command that is refused."""
    assert rig.write(8, DATA).status == 0
    assert rig.read(8, 8).data == DATA
    assert rig.run(rw10(0x28, 8, 8, 0x10), data_in=4096).data == DATA
    assert rig.run(b"\xc9" + bytes(9), data_in=0).status == CHECK_CONDITION


@pytest.fixture(params=["memory", "file", "threads"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """LUNs with plain commands on the fast path, in memory or on a file, and on threads."""
    document: dict[str, object] = {"handler": "memory", "size": "1MiB"}
    if request.param == "file":
        (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
        document = {"handler": "file", "path": str(tmp_path / "disk.img")}
    serving = slow_rig(Held()) if request.param == "threads" else Rig(document)
    with serving as made:
        one = made[0] if isinstance(made, tuple) else made
        _attended(one)
        yield one


def _attended(rig: Rig) -> None:
    for _ in range(4):  # take the unit attentions
        rig.run(bytes(6))


def test_every_command_is_seen_with_its_data_and_times(rig: Rig) -> None:
    reader = Reader()
    rig.taps.observe(reader)
    commands(rig)
    write, read, slow, refused = reader.read()
    assert (write.cdb[:10], write.direction, write.length, write.returned) == (
        rw10(0x2A, 8, 8),
        Direction.OUT,
        4096,
        4096,
    )
    assert (read.cdb[:10], read.direction, read.returned) == (rw10(0x28, 8, 8), Direction.IN, 4096)
    assert write.data == read.data == slow.data == DATA[:64]
    assert refused.status == CHECK_CONDITION
    assert "INVALID COMMAND OPERATION CODE" in scsi.describe_sense(refused.sense).upper()
    for record in (write, read, slow, refused):
        assert record.arrived <= record.begun <= record.ended
        assert 0 <= record.storage <= record.seconds


def test_the_tag_is_the_id_of_the_command_in_the_ring(rig: Rig) -> None:
    reader = Reader()
    rig.taps.observe(reader)
    sent = []
    for lba in range(3):
        sent.append(rig.loopback.submit(rw10(0x28, lba, 1), data_in=512))
        rig.loopback.wait(sent[-1])
    assert [record.tag & 0xFFFF for record in reader.read()] == sent


def test_nothing_is_seen_before_and_after(rig: Rig) -> None:
    reader = Reader()
    commands(rig)
    rig.taps.observe(reader)
    assert rig.read(0, 1).status == 0
    rig.taps.forget(reader)
    commands(rig)
    assert len(reader.read()) == 1
    assert rig.taps.count == 0


def test_the_plain_fast_path_is_back_when_nobody_observes() -> None:
    with Rig({"handler": "memory", "size": "1MiB"}) as rig:
        _attended(rig)
        plain, reader = rig.served.fast_path, Reader()
        rig.taps.observe(reader)
        assert rig.served.fast_path is not plain
        rig.taps.forget(reader)
        assert rig.served.fast_path is plain


def test_a_full_buffer_loses_commands_and_counts_them(rig: Rig) -> None:
    slow, quick = Reader(limit=300), Reader()
    rig.taps.observe(slow)
    for lba in range(20):
        rig.read(lba, 1)
    rig.taps.observe(quick)
    for lba in range(20):
        rig.read(lba, 1)
    seen = len(slow.read())
    assert 0 < seen < 5
    assert slow.lost == 40 - seen
    assert (len(quick.read()), quick.lost) == (20, 0)
    for _ in range(2):
        rig.read(0, 1)
    seen += len(slow.read())
    assert slow.lost + seen == 42  # there is room again
    rig.read(0, 1)
    assert len(slow.read()) == 1


def test_a_command_that_finds_no_room_is_lost_even_if_there_is_room_at_its_end() -> None:
    with Rig({"handler": "memory", "size": "1MiB"}) as rig:
        _attended(rig)
        reader = Reader(limit=1)
        rig.taps.observe(reader)  # the record of the LUN fills it
        rig.read(0, 1)
        assert (len(reader.read()), reader.lost) == (0, 1)
        rig.read(0, 1)
        assert (len(reader.read()), reader.lost) == (0, 2)
        rig.read(0, 1)
        assert (len(reader.read()), reader.lost) == (1, 2)


def test_each_observer_has_its_own_length_of_data(rig: Rig) -> None:
    short, long = Reader(snaplen=0), Reader(snaplen=1 << 20)
    rig.taps.observe(short)
    rig.taps.observe(long)
    rig.write(0, DATA)
    assert [record.data for record in short.read()] == [b""]
    assert [record.data for record in long.read()] == [DATA]


def test_a_command_that_is_refused_returns_none_of_the_old_bytes_of_its_buffer(rig: Rig) -> None:
    reader = Reader(snaplen=4096)
    rig.taps.observe(reader)
    assert rig.read(1 << 24, 8).status == CHECK_CONDITION
    (refused,) = reader.read()
    assert (refused.direction, refused.returned, refused.data) == (Direction.IN, 0, b"")


def test_a_lun_is_introduced_and_taken_leave_of() -> None:
    taps, reader = Taps(), Reader()
    taps.observe(reader, frozenset({1}))
    taps.enter(tap := Tap(1, b"inquiry", 512))
    taps.enter(Tap(2, b"other", 4096))
    (told,) = reader.read(Kind.LUN)
    assert (told.lun, told.data, told.length) == (1, b"inquiry", 512)
    taps.enter(Tap(1, b"again", 512))
    taps.leave(tap)  # another one has its number by now
    assert [record.kind for record in records(reader.take_out())] == [Kind.LUN]


def test_a_lun_that_goes_says_so() -> None:
    taps, reader = Taps(), Reader()
    taps.enter(tap := Tap(1, b"inquiry", 512))
    taps.observe(reader)
    taps.leave(tap)
    assert [record.kind for record in records(reader.take_out())] == [Kind.LUN, Kind.GONE]
    assert tap.observers == ()


def test_a_dropped_command_and_the_request_that_drops_it_are_seen() -> None:
    held = Held("flush")
    with slow_rig(held) as (rig, _medium):
        _attended(rig)
        reader = Reader()
        rig.taps.observe(reader)
        first = rig.loopback.submit(FLUSH)
        assert held.flushing.wait(10)
        swap = bytes([0x89]) + bytes(12) + bytes([1, 0, 0])  # COMPARE AND WRITE waits for the flush
        second = rig.loopback.submit(swap, data_out=bytes(1024))
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [second])
        assert rig.loopback.wait(second).status == TASK_ABORTED
        held.gate.set()
        rig.loopback.wait(first)
        seen = list(records(reader.take_out()))
        (managed,) = [record for record in seen if record.kind is Kind.MANAGEMENT]
        assert managed.sense == b"ABORT TASK"
        assert managed.data == second.to_bytes(8, "little")
        aborted, flush = [record for record in seen if record.kind is Kind.COMMAND]
        assert (aborted.status, aborted.tag, aborted.begun) == (TASK_ABORTED, second, UNKNOWN)
        assert 0 < flush.storage <= flush.ended - flush.begun


def test_producers_on_several_threads_keep_the_count() -> None:
    reader, full = Reader(limit=1 << 30), Reader(limit=0)
    record = Record(Kind.COMMAND, 0, 0.0, 0.0).pack()

    def produce() -> None:
        for _ in range(2000):
            reader.take(record)
            full.admits()

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert full.lost == 8000
    assert sum(len(taken) for taken in iter(reader.take_out, b"")) == 8000 * len(record)


class Failing(Reader):
    """An observer for which there is no memory."""

    def take(self, record: bytes) -> None:
        if Record.unpack(record).kind is not Kind.LUN:
            raise MemoryError


def test_a_record_that_cannot_be_made_fails_no_command(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.taps.observe(Failing())
    commands(rig)
    rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [])
    assert rig.run(bytes(6)).status == CHECK_CONDITION  # the unit attention of the reset
    assert rig.run(bytes(6)).status == 0
    assert rig.served.failure is None
    assert "a command is missing in its trace" in caplog.text
