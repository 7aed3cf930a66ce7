"""Task management: commands that a reset aborts are executed all the same, and no old write lands late."""

import errno
import logging
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, TASK_ABORTED, Rig, rw10, triple
from tests.engine.slow import FLUSH, Held, Slow, slow_rig
from tests.polling import wait_until
from vscsihba.block import Views
from vscsihba.errors import HostError
from vscsihba.scsi import Asc
from vscsihba.tcmu import abi

COMPARE_AND_WRITE = bytes([0x89, *bytes(12), 1, 0, 0])
READ, WRITE, WRITE_FUA = rw10(0x28, 0, 1), rw10(0x2A, 0, 1), rw10(0x2A, 0, 1, 8)
OLD, NEW = b"old!" * 128, b"new!" * 128
GIVEN_UP, RESET = (11, 0, 0), (6, 0x29, 3)
OTHER_EVENT = Asc.INQUIRY_DATA_HAS_CHANGED


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count storage as hanging at once."""
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.0)


def begin(rig: Rig, handler: Slow, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> int:
    """Send a command, and return its tag as soon as its handler waits."""
    handler.flushing.clear()
    tag = rig.loopback.submit(cdb, data_out=data_out, data_in=data_in)
    assert handler.flushing.wait(60)
    return tag


@contextmanager
def at_once(rig: Rig) -> Iterator[None]:
    """Let the pump see the commands that are sent inside all at once."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        rig.loopback.transport.publish()  # what is answered already, no reset can name
        held.set()
        assert go_on.wait(60)

    rig.pump.calls.post(hold)
    assert held.wait(60)
    try:
        yield
    finally:
        go_on.set()


@pytest.mark.parametrize("function", [abi.TCMU_TMR_ABORT_TASK, abi.TCMU_TMR_LUN_RESET])
def test_what_has_begun_runs_to_its_end(caplog: pytest.LogCaptureFixture, function: int) -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = begin(rig, handler, WRITE, data_out=NEW)
        rig.loopback.manage(function, [write])
        time_for_the_pump(rig)
        assert write not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(write).status == GOOD
        assert handler.data[:512] == NEW
    assert "has failed" not in caplog.text


def time_for_the_pump(rig: Rig) -> None:
    """Wait until the pump has seen all that was sent before."""
    deadline = time.monotonic() + 60
    while rig.loopback.transport.pending():
        assert time.monotonic() < deadline
    with at_once(rig):
        pass


def test_a_reset_comes_after_what_it_ends_and_before_what_is_newer() -> None:
    """tcm_loop reports success for the aborted commands, so they are executed; newer ones are answered."""
    with slow_rig(handler := Held("flush")) as (rig, _):
        flush = begin(rig, handler, FLUSH)
        with at_once(rig):
            compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + OLD)
            write = rig.loopback.submit(WRITE, data_out=NEW)
            read = rig.loopback.submit(READ, data_in=512)
            named = [flush, compared, write, read]
            rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, named)
            newer = [rig.loopback.submit(READ, data_in=512) for _ in range(2)]
        handler.gate.set()
        answers = {tag: rig.loopback.wait(tag) for tag in named}
        assert [answer.status for answer in answers.values()] == [GOOD] * 4
        assert answers[read].data == handler.data[:512] == NEW
        assert triple(rig.loopback.wait(newer[0])) == RESET
        assert rig.loopback.wait(newer[1]).status == GOOD


def test_what_a_reset_ends_is_not_refused_for_an_older_event() -> None:
    """The refusal would pass for success. The reset is the event that counts (SAM-5)."""
    with slow_rig(handler := Held()) as (rig, _):
        with at_once(rig):
            rig.unit.raise_unit_attention(OTHER_EVENT)
            rig.served._update_fast_path()
            writes = [rig.loopback.submit(rw10(0x2A, lba, 1), data_out=NEW) for lba in range(20)]
            rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, writes)
        assert [rig.loopback.wait(tag).status for tag in writes] == [GOOD] * 20
        assert handler.data[: 20 * 512] == NEW * 20
        assert triple(rig.read(0, 1)) == RESET
        assert rig.read(0, 1).status == GOOD


def test_without_a_reset_an_event_is_told_of_once() -> None:
    with slow_rig(Held()) as (rig, _):
        with at_once(rig):
            rig.unit.raise_unit_attention(OTHER_EVENT)
            rig.served._update_fast_path()
            reads = [rig.loopback.submit(READ, data_in=512) for _ in range(20)]
        refused, *rest = [rig.loopback.wait(tag) for tag in reads]
        assert triple(refused)[:2] == (6, 0x3F)
        assert [answer.status for answer in rest] == [GOOD] * 19


def test_what_the_ring_still_holds_keeps_nobody_from_closing() -> None:
    """The next owner takes these commands."""
    closed = threading.Event()
    with slow_rig(handler := Held("flush")) as (rig, _):
        begin(rig, handler, FLUSH)
        compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(1024))
        time_for_the_pump(rig)

        def leave() -> None:
            rig.unit.raise_unit_attention(OTHER_EVENT)
            rig.loopback.submit(READ, data_in=512)
            rig.served.end(rig.pump, closed.set)

        rig.pump.calls.post(leave)
        handler.gate.set()
        assert closed.wait(60)
        assert triple(rig.loopback.wait(compared))[:2] == (6, 0x3F)
        rig.served.end = lambda _pump, idle: idle()  # type: ignore[method-assign, assignment] # it has ended


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("verb", "cdb"), [("read", READ), ("write", WRITE_FUA), ("flush", FLUSH)])
def test_a_reset_waits_for_storage_if_done_would_be_a_lie(
    caplog: pytest.LogCaptureFixture, verb: str, cdb: bytes
) -> None:
    with slow_rig(handler := Held(verb)) as (rig, _), caplog.at_level(logging.WARNING):
        data_out = NEW if verb == "write" else b""
        tag = begin(rig, handler, cdb, data_out=data_out, data_in=512 * (verb == "read"))
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [tag])
        wait_until(lambda: "LOGICAL UNIT RESET waits for " in caplog.text, lambda: caplog.text)
        assert tag not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(tag).status == GOOD


@pytest.mark.usefixtures("impatient")
def test_an_aborted_command_goes_no_further_once_it_is_given_up() -> None:
    with slow_rig(handler := Held("read")) as (rig, _):
        compared = begin(rig, handler, COMPARE_AND_WRITE, data_out=bytes(512) + NEW)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [compared])
        assert triple(rig.loopback.wait(compared)) == GIVEN_UP
        handler.gate.set()
        assert rig.read(0, 1).data == bytes(512)
        assert rig.loopback.outstanding == 0
        wait_until(lambda: not rig.served.busy)
        assert handler.written == 0


@pytest.mark.usefixtures("impatient")
def test_a_write_that_was_given_up_is_done_though_a_unit_attention_is_pending_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with slow_rig(handler := Held("write")) as (rig, _), caplog.at_level(logging.ERROR):
        hanging = begin(rig, handler, WRITE, data_out=NEW)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [hanging])
        assert triple(rig.loopback.wait(hanging)) == GIVEN_UP
        raised = threading.Event()

        def change() -> None:
            rig.unit.raise_unit_attention(OTHER_EVENT)
            raised.set()

        rig.pump.calls.post(change)
        assert raised.wait(10)
        handler.gate.set()
        wait_until(lambda: not rig.served.hung)
        answers = [rig.run(FLUSH) for _ in range(3)]
        assert handler.data[:512] == NEW
        assert [triple(answer)[0] for answer in answers if answer.status] in ([6], [6, 6])
    assert "failed after a LOGICAL UNIT RESET" not in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_reset_gives_up_writes_whose_storage_hangs_and_they_are_done_in_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A volatile cache may do that. Commands that have not begun are executed as well, and none twice."""
    with slow_rig(handler := Held("write")) as (rig, _), caplog.at_level(logging.WARNING):
        hanging = begin(rig, handler, WRITE, data_out=b"1" * 512)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [hanging])
        assert triple(rig.loopback.wait(hanging)) == GIVEN_UP
        waiting = [rig.loopback.submit(rw10(0x2A, lba, 1), data_out=OLD) for lba in (0, 1)]
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, waiting)
        assert [triple(rig.loopback.wait(tag)) for tag in waiting] == [GIVEN_UP] * 2
        newer = rig.loopback.submit(WRITE, data_out=NEW)
        time_for_the_pump(rig)
        assert newer not in rig.loopback.answers
        assert rig.served.hung
        handler.gate.set()
        while (answer := rig.loopback.wait(newer)).status != GOOD:
            assert triple(answer) == RESET
            newer = rig.loopback.submit(WRITE, data_out=NEW)
        assert handler.data[:1024] == NEW + OLD
        assert handler.written == 4
        assert rig.loopback.outstanding == 0, "the buffers that were kept are free again"
        assert not rig.served.hung
    assert caplog.text.count("the storage has answered the aborted WRITE(10)") == 3


def test_a_failure_that_its_sender_takes_for_done_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with slow_rig(handler := Held("write")) as (rig, _), caplog.at_level(logging.ERROR):
        write = begin(rig, handler, WRITE, data_out=NEW)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [write])
        time_for_the_pump(rig)
        handler.fault = OSError(errno.EIO, "lost")
        handler.gate.set()
        assert rig.loopback.wait(write).status != GOOD
        assert "WRITE(10) failed after a LOGICAL UNIT RESET, so its sender may take it" in caplog.text
        handler.fault = None
        while triple(answer := rig.run(FLUSH)) == RESET:
            pass
        assert triple(answer) == (4, 0x0C, 0), "the next flush reports what its sender takes for done"


def test_patience_is_not_about_whoever_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reuses the number of an aborted command for another one, which is not aborted."""
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.3)
    with slow_rig(handler := Held("write")) as (rig, _):
        aborted = begin(rig, handler, WRITE, data_out=OLD)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [aborted])
        time_for_the_pump(rig)
        handler.gate.set()
        assert rig.loopback.wait(aborted).status in {GOOD, CHECK_CONDITION}
        handler.gate.clear()
        rig.loopback.kernel._next_id = aborted
        assert begin(rig, handler, WRITE, data_out=NEW) == aborted
        (timer,) = rig.served._aborts._timers
        assert timer.daemon, "it keeps no process from ending"
        timer.join()
        time_for_the_pump(rig)
        assert aborted not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(aborted).status == GOOD


def test_storage_that_stays_silent_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.3)
    with slow_rig(handler := Held("write")) as (rig, _):
        aborted = begin(rig, handler, WRITE, data_out=OLD)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [aborted])
        assert triple(rig.loopback.wait(aborted)) == GIVEN_UP


def test_storage_that_was_silent_for_long_is_given_up_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no timer: the machine may have no room for its thread."""
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 1e-9)
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if isinstance(thread, threading.Timer):
            raise RuntimeError("can't start new thread")  # noqa: TRY004 - as CPython does
        real(thread)

    with slow_rig(handler := Held("read", "write")) as (rig, _), caplog.at_level(logging.WARNING):
        monkeypatch.setattr(threading.Thread, "start", start)
        write = begin(rig, handler, WRITE, data_out=OLD)
        read = begin(rig, handler, READ, data_in=512)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [write, read])
        assert triple(rig.loopback.wait(write)) == GIVEN_UP
        (age,) = re.findall(r"WRITE\(10\) was aborted after ([0-9.]+) s", caplog.text)
        assert float(age) < 60
        wait_until(lambda: "aborted commands are not given up: " in caplog.text, lambda: caplog.text)
        assert rig.served._aborts._timers == []


def test_closing_leaves_no_timer() -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = begin(rig, handler, WRITE, data_out=OLD)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [write])
        time_for_the_pump(rig)
        (timer,) = rig.served._aborts._timers
        handler.gate.set()
        rig.loopback.wait(write)
    timer.join(60)
    assert not timer.is_alive()
    assert timer.finished.is_set(), "long before its time"


@pytest.mark.usefixtures("impatient")
def test_the_first_who_aborts_a_command_decides(caplog: pytest.LogCaptureFixture) -> None:
    """After the reset its sender takes it for successful, whatever comes later."""
    with slow_rig(handler := Held("read")) as (rig, _), caplog.at_level(logging.WARNING):
        read = begin(rig, handler, READ, data_in=512)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [read])
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [read])
        time_for_the_pump(rig)
        wait_until(lambda: "LOGICAL UNIT RESET waits for " in caplog.text, lambda: caplog.text)
        assert read not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(read).status == GOOD


def test_a_failure_of_which_its_sender_is_told_is_no_failed_flush(caplog: pytest.LogCaptureFixture) -> None:
    with slow_rig(handler := Held("write")) as (rig, _), caplog.at_level(logging.ERROR):
        write = begin(rig, handler, WRITE, data_out=NEW)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [write])
        time_for_the_pump(rig)
        handler.fault = OSError(errno.EIO, "lost")
        handler.gate.set()
        assert rig.loopback.wait(write).status != GOOD
        assert "has failed after" not in caplog.text
        assert rig.run(FLUSH).status == GOOD


def test_a_read_that_fails_after_a_reset_is_no_failed_flush(caplog: pytest.LogCaptureFixture) -> None:
    with slow_rig(handler := Held("flush", "read")) as (rig, _), caplog.at_level(logging.ERROR):
        read = begin(rig, handler, READ, data_in=512)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [read])
        time_for_the_pump(rig)
        handler.broken.add("read")
        handler.gate.set()
        assert rig.loopback.wait(read).status != GOOD
        assert "READ(10) failed after a LOGICAL UNIT RESET" in caplog.text
        assert "MEDIUM ERROR, UNRECOVERED READ ERROR" in caplog.text
        assert triple(rig.run(FLUSH)) == RESET
        assert rig.run(FLUSH).status == GOOD


def test_any_number_of_resets_loses_nothing() -> None:
    """tcm_loop reports success for a command that a reset has aborted, else the answer."""
    chance = random.Random(1)
    with slow_rig(handler := Held("flush")) as (rig, _):
        handler.gate.set()
        expected = bytearray(16 * 512)
        for round_ in range(60):
            sent: dict[int, tuple[int, bytes]] = {}
            named: set[int] = set()
            for lba in chance.sample(range(1, 16), 8):
                data = bytes([round_ + 1, lba]) * 256
                tag = rig.loopback.submit(rw10(0x2A, lba, 1), data_out=data)
                sent[tag] = lba, data
                if chance.random() < 0.3:
                    rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(1024))  # makes the others wait
                if chance.random() < 0.3:
                    with at_once(rig):
                        open_ = [tag for tag in sent if tag not in rig.loopback.answers]
                        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, open_)
                        named.update(open_)
            for tag, (lba, data) in sent.items():
                answer = rig.loopback.wait(tag, 60)
                if tag in named or answer.status == GOOD:
                    expected[lba * 512 : (lba + 1) * 512] = data
        assert handler.data[: len(expected)] == expected


def test_an_abort_ends_what_has_not_begun() -> None:
    with slow_rig(handler := Held("flush")) as (rig, _):
        flush = begin(rig, handler, FLUSH)
        compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + NEW)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [compared])
        assert rig.loopback.wait(compared).status == TASK_ABORTED
        assert flush not in rig.loopback.answers, "it was not named"
        handler.gate.set()
        assert rig.loopback.wait(flush).status == GOOD
        assert not any(handler.data)
        assert rig.read(0, 1).status == GOOD, "the aborted one is not begun later"
        assert rig.failures == []


@pytest.mark.usefixtures("impatient")
def test_an_abort_ends_a_command_whose_storage_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    with slow_rig() as (rig, handler), caplog.at_level(logging.WARNING):
        flush = rig.loopback.submit(FLUSH, data_in=512)
        assert handler.flushing.wait(10)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [flush])
        assert triple(rig.loopback.wait(flush)) == GIVEN_UP, "at once"
        assert "its storage has not answered" in caplog.text
        read = rig.loopback.submit(rw10(0x28, 0, 1), data_in=512)
        assert rig.served.busy
        assert read not in rig.loopback.answers, "nothing newer may be overtaken by the aborted one"
        handler.gate.set()
        assert rig.loopback.wait(read).status == GOOD, "the unit recovers when its storage answers"
        assert "the storage has answered the aborted SYNCHRONIZE CACHE(10)" in caplog.text
        assert rig.loopback.outstanding == 0, "the buffer that was kept is free again"


@pytest.mark.usefixtures("impatient")
def test_old_commands_of_a_sender_that_has_gone_are_given_up() -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = begin(rig, handler, WRITE, data_out=OLD)
        compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + NEW)
        time_for_the_pump(rig)
        rig.served.give_up_old()
        assert triple(rig.loopback.wait(write)) == GIVEN_UP
        assert rig.loopback.wait(compared).status == TASK_ABORTED, "it had not begun"
        newer = rig.loopback.submit(WRITE, data_out=NEW)
        time_for_the_pump(rig)
        assert newer not in rig.loopback.answers, "it comes after the one that was given up"
        handler.gate.set()
        assert rig.loopback.wait(newer).status == GOOD
        assert bytes(handler.data[:512]) == NEW
        assert rig.loopback.outstanding == 0, "the buffer that was kept is free again"


def test_commands_that_may_still_be_answered_are_not_given_up() -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = begin(rig, handler, WRITE, data_out=OLD)
        rig.served.give_up_old()
        time_for_the_pump(rig)
        assert write not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(write).status == GOOD


def test_what_a_reset_has_named_is_carried_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = begin(rig, handler, WRITE, data_out=OLD)
        compared = rig.loopback.submit(COMPARE_AND_WRITE, data_out=OLD + NEW)
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET, [write, compared])
        time_for_the_pump(rig)
        monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.0)
        rig.served.give_up_old()
        time_for_the_pump(rig)
        handler.gate.set()
        assert rig.loopback.wait(compared).status == GOOD
        assert bytes(handler.data[:512]) == NEW


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("function", [abi.TCMU_TMR_ABORT_TASK, abi.TCMU_TMR_LUN_RESET])
def test_an_erasure_goes_on_when_its_command_is_aborted(function: int) -> None:
    two_passes = bytes([0x02, 0, 0, 4, 0xAA, 0xAA, 0xAA, 0xAA])
    with slow_rig(Held("write")) as (rig, handler):
        overwrite = rig.loopback.submit(bytes.fromhex("48 01 0000000000 0008 00"), data_out=two_passes)
        assert handler.flushing.wait(10)
        rig.loopback.manage(function, [overwrite])
        assert triple(rig.loopback.wait(overwrite)) == GIVEN_UP
        handler.gate.set()
        seen = set()
        deadline = time.monotonic() + 60
        while (answer := rig.run(bytes(6))).status != GOOD and time.monotonic() < deadline:
            seen.add(triple(answer))
        assert answer.status == GOOD
        assert seen <= {(6, 0x29, 3), (2, 0x04, 0x1B)}, "reset, then sanitize in progress"
        assert handler.written == 2
        assert rig.loopback.outstanding == 0


class Passes(Held):
    """A handler with a first write that waits for one event, and a second one that waits for another."""

    def __init__(self) -> None:
        super().__init__("write")
        self.second, self.begun = threading.Event(), threading.Event()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        if self.written:
            self.begun.set()
            assert self.second.wait(60)
        super().write(offset, views, fua=fua)


@pytest.mark.usefixtures("impatient")
def test_an_erasure_keeps_no_buffer_while_it_goes_on() -> None:
    two_passes = bytes([0x02, 0, 0, 4, 0xAA, 0xAA, 0xAA, 0xAA])
    with slow_rig(handler := Passes()) as (rig, _):
        overwrite = begin(rig, handler, bytes.fromhex("48 01 0000000000 0008 00"), data_out=two_passes)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [overwrite])
        assert triple(rig.loopback.wait(overwrite)) == GIVEN_UP
        assert rig.loopback.outstanding == 1
        handler.gate.set()
        assert handler.begun.wait(60)
        assert rig.loopback.outstanding == 0
        handler.second.set()


@pytest.mark.usefixtures("impatient")
def test_a_kept_buffer_that_is_free_already_does_no_harm(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_number: int) -> None:
        raise HostError("no such buffer is kept")

    with slow_rig() as (rig, handler):
        monkeypatch.setattr(rig.served._aborts, "_free_kept", refuse)
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)
        rig.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [flush])
        assert triple(rig.loopback.wait(flush)) == GIVEN_UP
        handler.gate.set()
        assert rig.read(0, 1).status == GOOD
        assert "no such buffer is kept" in caplog.text


def test_a_reset_is_reported_by_unit_attention() -> None:
    with slow_rig() as (rig, _medium):
        rig.loopback.manage(abi.TCMU_TMR_LUN_RESET)
        assert triple(rig.read(0, 1))[:2] == (6, 0x29)
        assert rig.read(0, 1).status == GOOD
