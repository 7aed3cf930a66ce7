"""Asynchronous operations: late, out of order, from other threads, failing, hanging, at the end of a LUN."""

import errno
import logging
import threading
from functools import partial

import pytest

from tests.engine.late import Late, Source, begun, late_rig
from tests.engine.rig import CHECK_CONDITION, GOOD, TASK_ABORTED, Rig, rw10, triple
from tests.engine.slow import FLUSH
from tests.polling import wait_until
from vscsihba.tcmu import abi

READ, WRITE = rw10(0x28, 0, 1), rw10(0x2A, 0, 1)
COMPARE_AND_WRITE = bytes([0x89, *bytes(12), 1, 0, 0])
OLD, NEW = b"old!" * 128, b"new!" * 128


def ended_already(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    """Keep the rig from ending a LUN that the test has ended."""
    monkeypatch.setattr(rig.served, "end", lambda _pump, idle: idle())


def test_commands_end_in_the_order_of_their_storage() -> None:
    with late_rig() as (rig, handler):
        handler.data[: 3 * 512] = b"0" * 512 + b"1" * 512 + b"2" * 512
        tags = [rig.loopback.submit(rw10(0x28, lba, 1), data_in=512) for lba in range(3)]
        begun(handler, 3)
        for number in (2, 0, 0):
            handler.end(number)
        answers = [rig.loopback.wait(tag) for tag in tags]
        assert [answer.data for answer in answers] == [b"0" * 512, b"1" * 512, b"2" * 512]
        assert handler.synchronous == []


def test_the_number_of_threads_is_no_limit() -> None:
    with late_rig() as (rig, handler):
        tags = [rig.loopback.submit(rw10(0x2A, lba, 1), data_out=NEW) for lba in range(50)]
        begun(handler, 50)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("lun0")]
        while handler.waiting:
            handler.end(-1)
        assert {rig.loopback.wait(tag).status for tag in tags} == {GOOD}
        assert handler.data[: 50 * 512] == NEW * 50


def test_an_end_on_another_thread_is_answered_on_the_pumps() -> None:
    with late_rig() as (rig, handler):
        tag = rig.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 1)
        thread = threading.Thread(target=handler.end)
        thread.start()
        thread.join()
        assert rig.loopback.wait(tag).status == GOOD


def test_an_end_before_the_verb_returns() -> None:
    class Immediate(Late):
        def _begin(self, verb, work, done):  # type: ignore[no-untyped-def]
            work()
            done(None)

    with late_rig(Immediate()) as (rig, _):
        assert rig.write(0, NEW).status == GOOD
        assert rig.read(0, 1).data == NEW


@pytest.mark.parametrize(
    ("number", "sense"),
    [(errno.EIO, (3, 0x11, 0)), (errno.ETIMEDOUT, (2, 4, 1)), (errno.ENOSPC, (7, 0x27, 7))],
)
def test_an_error_becomes_sense(number: int, sense: tuple[int, int, int]) -> None:
    with late_rig() as (rig, handler):
        tag = rig.loopback.submit(READ, data_in=512)
        begun(handler, 1)
        handler.end(error=OSError(number, "gone"))
        answer = rig.loopback.wait(tag)
        assert (answer.status, triple(answer)) == (CHECK_CONDITION, sense)


def test_a_verb_that_cannot_begin_fails_its_command_alone() -> None:
    with late_rig() as (rig, handler):
        handler.refusal = OSError(errno.EIO, "not begun")
        assert triple(rig.read(0, 1)) == (3, 0x11, 0)
        handler.refusal = None
        tag = rig.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 1)
        handler.end()
        assert rig.loopback.wait(tag).status == GOOD


def test_a_verb_that_would_block_runs_on_a_thread() -> None:
    with late_rig() as (rig, handler):
        handler.refusal = BlockingIOError()
        assert rig.write(0, NEW).status == GOOD
        assert rig.read(0, 1).data == NEW
        assert handler.synchronous == ["write", "read"]


def test_a_bug_in_a_verb_fails_its_command_alone(caplog: pytest.LogCaptureFixture) -> None:
    with late_rig() as (rig, handler):
        handler.refusal = ZeroDivisionError()
        assert triple(rig.read(0, 1)) == (4, 0x44, 0)
        handler.refusal = BlockingIOError()
        assert rig.read(0, 1).status == GOOD
    assert "internal error" in caplog.text


def test_a_second_end_of_an_operation_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with late_rig() as (rig, handler):
        tag = rig.loopback.submit(READ, data_in=512)
        begun(handler, 1)
        _, end = handler.waiting[0]
        handler.end()
        assert rig.loopback.wait(tag).status == GOOD
        end(None)
        tag = rig.loopback.submit(READ, data_in=512)
        begun(handler, 1)
        assert tag not in rig.loopback.answers
        handler.end()
        assert rig.loopback.wait(tag).status == GOOD
    assert "has ended one operation twice" in caplog.text


def test_an_exclusive_command_waits_for_the_end_and_newer_ones_wait_for_it() -> None:
    with late_rig() as (rig, handler):
        write = rig.loopback.submit(WRITE, data_out=OLD)
        begun(handler, 1)
        compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=OLD + NEW)
        read = rig.loopback.submit(READ, data_in=512)
        wait_until(lambda: not rig.loopback.transport.pending())
        assert [verb for verb, _ in handler.waiting] == ["write"]
        handler.end()
        assert rig.loopback.wait(write).status == GOOD
        for verb in ("read", "write", "read"):
            begun(handler, 1)
            assert handler.end() == verb
        assert rig.loopback.wait(compared).status == GOOD
        assert rig.loopback.wait(read).data == NEW


def test_a_hanging_operation_is_abandoned_and_its_late_write_comes_before_newer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.0)
    with late_rig() as (rig, handler):
        write = rig.loopback.submit(WRITE, data_out=OLD)
        begun(handler, 1)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [write])
        assert rig.loopback.wait(write).status == CHECK_CONDITION
        newer = rig.loopback.submit(WRITE, data_out=NEW)
        wait_until(lambda: not rig.loopback.transport.pending())
        assert len(handler.waiting) == 1
        handler.end()
        begun(handler, 1)
        handler.end()
        assert rig.loopback.wait(newer).status == GOOD
        assert handler.data[:512] == NEW


def test_operations_of_a_sender_that_has_gone_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.0)
    with late_rig() as (rig, handler):
        tags = [rig.loopback.submit(READ, data_in=512), rig.loopback.submit(WRITE, data_out=NEW)]
        begun(handler, 2)
        rig.pump.calls.post(rig.served.give_up_old)
        assert {triple(rig.loopback.wait(tag)) for tag in tags} == {(0xB, 0, 0)}
        while handler.waiting:
            handler.end()
        wait_until(lambda: not rig.served.busy)
        assert not rig.served.hung


def test_a_reset_waits_for_operations_under_way() -> None:
    with late_rig() as (rig, handler):
        write = rig.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 1)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [write])
        wait_until(lambda: not rig.loopback.transport.pending())
        assert write not in rig.loopback.answers
        handler.end()
        assert rig.loopback.wait(write).status == GOOD
        assert handler.data[:512] == NEW


def test_a_lun_is_not_closed_before_its_operations_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    with late_rig() as (rig, handler):
        write = rig.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 1)
        rig.pump.calls.post(partial(rig.served.end, rig.pump, closed.set))
        assert not closed.wait(0.2)
        handler.end()
        assert closed.wait(10)
        assert rig.loopback.answers[write].status == GOOD
        assert handler.data[:512] == NEW
        ended_already(monkeypatch, rig)


def test_a_lun_that_has_failed_is_not_closed_before_its_operations_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The storage still writes into the ring's memory."""
    closed = threading.Event()
    with late_rig() as (rig, handler):
        rig.loopback.submit(READ, data_in=512)
        begun(handler, 1)
        rig.pump.calls.post(lambda: rig.served._fail(RuntimeError("a bug")))
        rig.pump.calls.post(partial(rig.served.end, rig.pump, closed.set))
        assert not closed.wait(0.2)
        handler.end()
        assert closed.wait(10)
        ended_already(monkeypatch, rig)


def test_the_next_owner_executes_the_commands_of_one_that_died() -> None:
    first = Rig(handler=(dead := Late()))
    with first:
        write = first.loopback.submit(WRITE, data_out=NEW)
        begun(dead, 1)
        first.die()
    heir = Late()
    with Rig(handler=heir, loopback=first.loopback) as second:
        begun(heir, 1)
        heir.end()
        assert second.loopback.wait(write).status == GOOD
        assert heir.data[:512] == NEW
        dead.end()  # nobody listens
        heir.waiting.clear()


def test_a_flush_overtakes_no_answer_and_delays_none() -> None:
    with late_rig() as (rig, handler):
        flush = rig.loopback.submit(FLUSH)
        begun(handler, 1)
        write = rig.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 2)
        handler.end(1)
        assert rig.loopback.wait(write).status == GOOD
        assert flush not in rig.loopback.answers
        handler.end()
        assert rig.loopback.wait(flush).status == GOOD


@pytest.fixture
def polled() -> Late:
    handler = Late()
    handler.pollable = Source(handler)
    return handler


def test_a_pollable_is_served_by_the_pump_and_a_batch_ends_together(polled: Late) -> None:
    source = polled.pollable
    assert source is not None
    with late_rig(polled) as (rig, _):
        wait_until(lambda: source.attached)
        for _ in range(3):
            tags = [rig.loopback.submit(rw10(0x28, lba, 1), data_in=512) for lba in range(8)]
            begun(polled, 8)
            source.allow(8)
            assert {rig.loopback.wait(tag).status for tag in tags} == {GOOD}
        assert source.threads == {"pump"}
    assert not source.attached
    source.close()


def test_a_pollable_stays_attached_until_the_last_operation_has_ended(
    polled: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = polled.pollable
    assert source is not None
    closed = threading.Event()
    with late_rig(polled) as (rig, _):
        rig.loopback.submit(WRITE, data_out=NEW)
        begun(polled, 1)
        rig.pump.calls.post(partial(rig.served.end, rig.pump, closed.set))
        assert not closed.wait(0.2)
        assert source.attached
        source.allow(1)
        assert closed.wait(10)
        assert not source.attached
        ended_already(monkeypatch, rig)
    source.close()


def test_a_fault_of_a_pollable_fails_its_lun_and_not_the_pump(
    polled: Late, caplog: pytest.LogCaptureFixture
) -> None:
    source = polled.pollable
    assert source is not None
    with late_rig(polled) as (rig, _), late_rig() as (other, handler):
        source.fault = ZeroDivisionError("a bug")
        with caplog.at_level(logging.CRITICAL):
            source.allow(0)
            wait_until(lambda: bool(rig.failures))
        assert not source.attached
        tag = other.loopback.submit(WRITE, data_out=NEW)
        begun(handler, 1)
        handler.end()
        assert other.loopback.wait(tag).status == GOOD
    assert "ZeroDivisionError" in rig.failures[0]
    source.close()


def test_a_dropped_command_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 60.0)
    with late_rig() as (rig, handler):
        write = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + NEW)
        begun(handler, 1)
        waits = rig.loopback.submit(WRITE, data_out=OLD)
        wait_until(lambda: not rig.loopback.transport.pending())
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [waits])
        assert rig.loopback.wait(waits).status == TASK_ABORTED
        for _ in range(2):
            begun(handler, 1)
            handler.end()
        assert rig.loopback.wait(write).status == GOOD
        assert handler.data[:512] == NEW
