"""One logical unit: slow verbs, exclusive commands, the barrier, closing."""

import errno
import logging
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.engine.serving.test_aborts import time_for_the_pump
from tests.engine.slow import FLUSH, Held, slow_rig
from tests.polling import wait_until
from vscsihba import scsi
from vscsihba.block import Views
from vscsihba.errors import RingCorruptError
from vscsihba.handlers.base import Handler
from vscsihba.loopback import Loopback

INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
COMPARE_AND_WRITE = bytes((0x89, *bytes(12), 1, 0, 0))
"""Of one block, at LBA 0."""


def test_a_slow_flush_holds_up_nobody() -> None:
    with slow_rig() as (rig, handler):
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)
        assert all(rig.read(lba, 1).status == GOOD for lba in range(20))
        assert flush not in rig.loopback.answers
        handler.gate.set()
        assert rig.loopback.wait(flush).status == GOOD


@pytest.mark.parametrize(
    ("number", "sense"),
    [
        (errno.ENOSPC, (7, 0x27, 7)),
        (errno.EROFS, (7, 0x27, 0)),
        (errno.EIO, (3, 0x0C, 0)),
        (errno.EBADMSG, (4, 0x44, 0)),
    ],
)
def test_a_fault_of_the_medium_becomes_sense_and_the_unit_goes_on(
    number: int, sense: tuple[int, int, int]
) -> None:
    with slow_rig() as (rig, handler):
        handler.fault = OSError(number, "as the test wants")
        assert triple(rig.write(0, bytes(512))) == sense
        handler.fault = None
        assert rig.write(0, bytes(512)).status == GOOD


def test_a_bug_in_a_handler_is_hardware_error_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with slow_rig() as (rig, handler), caplog.at_level(logging.ERROR):
        handler.fault = ZeroDivisionError("a bug")
        assert triple(rig.read(0, 1)) == (4, 0x44, 0)
        assert "READ(10) failed with an internal error" in caplog.text
        handler.fault = None
        assert rig.read(0, 1).status == GOOD


def test_a_bug_in_a_command_is_hardware_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with slow_rig() as (rig, _medium):

        def broken(self: object, cdb: bytes, buffer: object) -> Iterator[object]:
            raise ZeroDivisionError
            yield

        monkeypatch.setattr(scsi.LogicalUnit, "execute", broken)
        assert triple(rig.run(INQUIRY, data_in=96)) == (4, 0x44, 0)
        monkeypatch.undo()
        assert rig.read(0, 1).status == GOOD


def test_an_exclusive_command_waits_and_makes_others_wait() -> None:
    with slow_rig() as (rig, handler):
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)
        exclusive = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(1024))
        read = rig.loopback.submit(rw10(0x28, 0, 1), data_in=512)
        assert rig.served.busy
        assert not {exclusive, read} & set(rig.loopback.answers)
        handler.gate.set()
        assert [rig.loopback.wait(tag).status for tag in (flush, exclusive, read)] == [GOOD] * 3


def test_a_format_begins_after_what_came_before_it() -> None:
    with slow_rig(handler := Held("write")) as (rig, _):
        write = rig.loopback.submit(rw10(0x2A, 0, 1, flags=0x08), data_out=b"x" * 512)
        assert handler.flushing.wait(60)
        form = rig.loopback.submit(bytes([0x04, 0, 0, 0, 0, 0]))
        ready = rig.loopback.submit(bytes(6))
        time_for_the_pump(rig)
        assert not {form, ready} & set(rig.loopback.answers), (
            "were it formatting, the unit would not be ready"
        )
        handler.gate.set()
        assert rig.loopback.wait(write).status == GOOD
        assert rig.loopback.wait(form).status == GOOD
        assert triple(rig.loopback.wait(ready)) == (2, 0x04, 0x04), (
            "it begins as soon as the format has begun"
        )
        assert handler.data[:512] == bytes(512)


def test_any_number_of_commands_begin_when_an_exclusive_one_has_ended() -> None:
    compare_and_write = bytes([0x89, *bytes(12), 1, 0, 0])
    with Rig(handler=(handler := Held("read")), loopback=Loopback(ring_size=1 << 20, blocks=1024)) as rig:
        swap = rig.loopback.submit(compare_and_write, data_out=bytes(1024))
        assert handler.flushing.wait(60)
        waiting = [rig.loopback.submit(bytes(6)) for _ in range(1000)]
        time_for_the_pump(rig)
        handler.gate.set()
        assert rig.loopback.wait(swap).status == GOOD
        assert {rig.loopback.wait(tag).status for tag in waiting} == {GOOD}


def test_a_medium_that_never_blocks_is_formatted_and_read() -> None:
    with Rig({"handler": "memory", "size": 1 << 20}) as rig:
        assert rig.handler.never_blocks
        assert rig.write(0, b"x" * 512, flags=0x08).status == GOOD
        assert rig.run(bytes([0x04, 0, 0, 0, 0, 0])).status == GOOD
        assert rig.read(0, 1).data == bytes(512)


def test_commands_come_before_background_work_of_a_medium_that_never_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SANITIZE with IMMED writes 1 MiB at a time; a command that arrives meanwhile does not wait for all."""
    one_pass = bytes([0x01, 0, 0, 4, 0xAA, 0xAA, 0xAA, 0xAA])
    ready: list[int] = []
    answered: list[bool] = []
    with Rig({"handler": "memory", "size": 8 << 20}) as rig:
        assert rig.stack is not None
        memory = type(rig.stack.layers[0])
        real = memory.write

        def write(self: Handler, offset: int, views: Views, *, fua: bool = False) -> None:
            real(self, offset, views, fua=fua)
            if not ready:
                ready.append(rig.loopback.submit(bytes(6)))
            answered.append(ready[0] in rig.loopback.answers)

        monkeypatch.setattr(memory, "write", write)
        overwrite = bytes.fromhex("48 81 0000000000 0008 00")
        assert rig.run(overwrite, data_out=one_pass).status == GOOD
        wait_until(lambda: len(answered) == 8)
        assert answered[-1]
        assert triple(rig.loopback.answers[ready[0]]) == (2, 0x04, 0x1B), "SANITIZE in progress"
        wait_until(lambda: rig.read(0, 1).data == b"\xaa" * 512)


def test_a_fault_of_a_medium_that_never_blocks_becomes_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "as the test wants")

    with Rig({"handler": "memory", "size": 1 << 20}) as rig:
        assert rig.stack is not None
        with monkeypatch.context() as patch:
            patch.setattr(type(rig.stack.layers[0]), "read", fail)
            assert triple(rig.run(bytes([0x2F, *bytes(7), 1, 0]))) == (3, 0x11, 0)
        assert rig.read(0, 1).data == bytes(512)


def test_an_answer_that_the_ring_does_not_take_ends_the_unit_which_can_still_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_answer: object) -> None:
        raise RingCorruptError("the ring is not what it was")

    with slow_rig() as (rig, handler):
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)
        for name in ("complete", "complete_good"):
            monkeypatch.setattr(rig.loopback.transport, name, refuse)
        handler.gate.set()
        wait_until(lambda: rig.failures)
        assert flush not in rig.loopback.answers
    assert rig.failures == ["lun 0: the ring is not what it was"]


def test_the_trace_tells_of_every_command() -> None:
    with slow_rig(trace=True) as (rig, _medium):
        rig.read(9, 2)
        rig.run(bytes([0xFF]) + bytes(5))
        read, refused = rig.traced[-2:]
    assert (read.name, read.detail, read.status, read.length) == ("READ(10)", "lba=9 blocks=2", "GOOD", 1024)
    assert refused.status == "CHECK CONDITION"
    assert "INVALID COMMAND OPERATION CODE" in refused.sense.upper()


def test_closing_waits_for_the_verbs_under_way() -> None:
    closed = threading.Event()
    with slow_rig() as (rig, handler):
        flush = rig.loopback.submit(FLUSH)
        assert handler.flushing.wait(10)

        rig.pump.calls.post(partial(rig.served.end, rig.pump, closed.set))
        assert not closed.wait(0.05)
        handler.gate.set()
        assert closed.wait(10)
        assert rig.loopback.answers[flush].status == GOOD
        # For the rig's own closing: nothing is left to close.
        rig.served.end = lambda _pump, idle: idle()  # type: ignore[method-assign, assignment]


def test_counters_count_each_command_once() -> None:
    with slow_rig() as (rig, handler):
        before = rig.stats.snapshot()
        rig.read(0, 2)
        rig.write(0, bytes(1024))
        rig.run(bytes(6))
        handler.fault = OSError(errno.EIO, "lost")
        assert rig.read(0, 1).status == CHECK_CONDITION
        after = rig.stats.snapshot()
    counted = {
        name: after[name] - before[name] for name in ("reads", "read_bytes", "writes", "others", "errors")
    }
    assert counted == {"reads": 1, "read_bytes": 1024, "writes": 1, "others": 1, "errors": 1}


def test_an_operation_that_goes_to_a_thread_is_counted() -> None:
    with slow_rig() as (rig, handler):
        handler.gate.set()
        before = rig.stats.waits
        assert rig.run(bytes(6)).status == GOOD
        assert rig.stats.waits == before
        for count in (1, 2):
            assert rig.run(FLUSH).status == GOOD
            assert rig.stats.waits == before + count
