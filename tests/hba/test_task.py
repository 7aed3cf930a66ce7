"""One task: its parts, its only answer, and wrong answers."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hba.rig import CHECK_CONDITION, INQUIRY, READ, SYNCHRONIZE_CACHE, VENDOR, WRITE, key, serving
from vscsihba import scsi
from vscsihba.errors import TransportError, UsageError
from vscsihba.handlers.stack import build
from vscsihba.hba import LoopbackPort, Task, VirtualHba
from vscsihba.hba.task import cdb_length
from vscsihba.loopback import Answer, Loopback


class Caller:
    """An HBA with one raw LUN; the test is initiator and caller."""

    def __init__(self, hba: VirtualHba, loopback: Loopback) -> None:
        self.hba = hba
        self.loopback = loopback

    def task(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Task:
        self.tag = self.loopback.submit(cdb, data_out=data_out, data_in=data_in)
        task = self.hba.next_task(10)
        assert task is not None
        return task

    def answer(self) -> Answer:
        return self.loopback.wait(self.tag)


@pytest.fixture
def caller() -> Iterator[Caller]:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        yield Caller(hba, port.loopbacks[0])


def test_second_completion_is_an_error_and_does_no_harm(caller: Caller) -> None:
    first = caller.task(READ, data_in=512)
    first.complete(data_in=0)
    with pytest.raises(TransportError, match=r"is not open; it was completed before"):
        first.complete()
    second = caller.task(READ, data_in=512)
    with pytest.raises(TransportError):
        first.complete()
    second.complete(data_in=512)
    assert caller.answer().residual == 0
    assert not caller.loopback.broken


def test_buffer_is_out_of_reach_after_completion(caller: Caller) -> None:
    task = caller.task(WRITE, data_out=b"x" * 512)
    (view,) = task.buffer.views
    task.complete()
    assert task.buffer.length == 0
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_tasks_may_be_completed_in_any_order_and_by_any_thread(caller: Caller) -> None:
    tasks = {}
    for number in range(8):
        task = caller.task(READ, data_in=512)
        tasks[caller.tag] = (task, bytes([number]) * 512)
    for task, data in reversed(tasks.values()):
        task.buffer.scatter(data)
        task.complete(data_in=512)
    assert {tag: caller.loopback.wait(tag).data for tag in tasks} == {
        tag: data for tag, (_, data) in tasks.items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": 1}, "1 is not a SCSI status"),
        ({"status": -1}, "is not a SCSI status"),
        ({"status": 256}, "is not a SCSI status"),
        ({"status": "GOOD"}, "is not a SCSI status"),
        ({"sense": b"\x70"}, "1 bytes of sense data with status 0x00"),
        ({"status": 2, "sense": bytes(97)}, "97 bytes of sense data"),
        ({"data_in": 513}, "513 bytes of data-in from a buffer of 512"),
        ({"data_in": -1}, "-1 bytes of data-in"),
    ],
)
def test_answers_that_cannot_be_meant_leave_the_task_open(
    arguments: dict[str, int], message: str, caller: Caller
) -> None:
    task = caller.task(READ, data_in=512)
    with pytest.raises(UsageError, match=message):
        task.complete(**arguments)  # type: ignore[arg-type]
    task.complete(data_in=512)
    assert caller.answer().status == 0


def test_check_condition_without_sense_says_unknown_command(caller: Caller) -> None:
    caller.task(VENDOR).complete(CHECK_CONDITION)
    assert key(caller.answer()) == (5, 0x2000)


def test_check_condition_with_information(caller: Caller) -> None:
    task = caller.task(READ, data_in=512)
    task.check_condition(scsi.SenseKey.MEDIUM_ERROR, scsi.Asc.UNRECOVERED_READ_ERROR, information=7)
    answer = caller.answer()
    assert key(answer) == (3, 0x1100)
    assert answer.sense[0] == 0xF0
    assert answer.sense[3:7] == bytes((0, 0, 0, 7))
    assert answer.data == b""


def test_sense_is_sent_as_given(caller: Caller) -> None:
    sense = bytes(range(0x72, 0x72 + 96))
    caller.task(READ, data_in=512).complete(CHECK_CONDITION, sense)
    assert caller.answer().sense == sense


def test_cdb_is_cut_to_its_length(caller: Caller) -> None:
    task = caller.task(READ[:10], data_in=512)
    assert task.cdb == READ
    assert repr(task) == f"<Task lun=0 tag={task.tag} READ(10)>"
    task.complete(data_in=512)


@pytest.mark.parametrize(
    ("cdb", "length"),
    [
        (bytes(8), 6),
        (bytes((0x3E, *bytes(15))), 10),
        (bytes((0x5F, *bytes(15))), 10),
        (bytes((0xAF, *bytes(15))), 12),
        (bytes((0x9B, *bytes(15))), 16),
        (bytes((0xC0, *bytes(15))), 16),
        (bytes((0x7F, 0, 0, 0, 0, 0, 0, 0x18, 0xF0, 0, *bytes(30))), 32),
        (bytes((0x7F, 0, 0, 0, 0, 0, 0, 0xFF, 0xF0, 0, *bytes(30))), 40),
        (bytes((0x7F, 0)), 2),
    ],
)
def test_length_of_a_cdb(cdb: bytes, length: int) -> None:
    assert cdb_length(cdb) == length


@given(st.binary(min_size=1, max_size=64))
def test_length_of_any_cdb_is_at_least_1(cdb: bytes) -> None:
    assert cdb_length(cdb) >= 1
    assert len(cdb[: cdb_length(cdb)]) <= len(cdb)


# answer_as


def test_a_disk_answers_what_the_prototype_does_not_care_about(caller: Caller) -> None:
    caller.task(INQUIRY, data_in=96).answer_as()
    assert caller.answer().data[8:16] == b"VSCSIHBA"
    caller.task(bytes((0x25, *bytes(9))), data_in=8).answer_as()
    assert caller.answer().data == (2047).to_bytes(4, "big") + (512).to_bytes(4, "big")
    caller.task(VENDOR).answer_as()
    assert key(caller.answer()) == (5, 0x2000)
    caller.task(SYNCHRONIZE_CACHE).answer_as()
    assert caller.answer().status == 0


def test_without_a_medium_moving_data_fails(caller: Caller) -> None:
    caller.task(READ, data_in=512).answer_as()
    assert key(caller.answer()) == (3, 0x1100)


def test_with_a_medium_it_is_a_whole_disk() -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba, build({"handler": "memory", "size": "1MiB"}) as medium:
        lun = hba.add_lun(0, size="1MiB")
        with serving(hba, lambda task: task.answer_as(lun.unit, medium)):
            assert port.run(0, WRITE, data_out=b"y" * 512).status == 0
            assert port.run(0, READ, data_in=512).data == b"y" * 512


def test_answering_twice_is_an_error(caller: Caller) -> None:
    task = caller.task(INQUIRY, data_in=96)
    task.answer_as()
    with pytest.raises(TransportError):
        task.answer_as()


@given(st.binary(min_size=6, max_size=40))
def test_any_cdb_gets_an_answer(cdb: bytes) -> None:
    port = LoopbackPort()
    with VirtualHba(0, port=port) as hba:
        hba.add_lun(0, size="1MiB")
        caller = Caller(hba, port.loopbacks[0])
        caller.task(cdb, data_in=64).answer_as()
        assert caller.answer().status in (0, CHECK_CONDITION, 4)
        assert caller.loopback.outstanding == 0
