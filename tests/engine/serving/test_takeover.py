"""A takeover: the next engine finishes the commands of a killed one."""

import threading
from pathlib import Path

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.engine.slow import FLUSH, Held, Slow
from vscsihba.block import Views
from vscsihba.loopback import Loopback

COMPARE_AND_WRITE = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1, 0, 0])


@pytest.fixture
def loopback(tmp_path: Path) -> Loopback:
    return Loopback(journal=tmp_path / "lun0.journal")


def test_a_command_that_may_run_twice_is_run_again(loopback: Loopback) -> None:
    stuck = Slow()
    with Rig(handler=stuck, loopback=loopback) as first:
        flush = loopback.submit(FLUSH)
        assert stuck.flushing.wait(10)
        reads = [loopback.submit(rw10(0x28, lba, 1), data_in=512) for lba in range(4)]
        for read in reads:
            assert loopback.wait(read).status == GOOD
        first.die()
    healthy = Slow()
    healthy.gate.set()
    with Rig(handler=healthy, loopback=loopback) as second:
        assert loopback.wait(flush).status == GOOD
        assert second.read(0, 1).status == GOOD
    stuck.gate.set()
    assert healthy.flushing.is_set()
    assert not loopback.broken


class StuckWrite(Slow):
    """A handler that hangs in its first write."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.writing.set()
        assert self.gate.wait(10)


def test_a_command_that_may_not_run_twice_is_told_so(loopback: Loopback) -> None:
    stuck = StuckWrite()
    with Rig(handler=stuck, loopback=loopback) as first:
        swap = loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + b"n" * 512)
        assert stuck.writing.wait(10)
        first.die()
    successor = Slow()
    with Rig(handler=successor, loopback=loopback) as second:
        answer = loopback.wait(swap)
        assert answer.status == CHECK_CONDITION
        assert triple(answer) == (0xB, 0x44, 0), "ABORTED COMMAND: it may have run"
        assert second.read(0, 1).status == GOOD
    stuck.gate.set()
    assert successor.written == 0


def test_one_that_had_changed_nothing_yet_is_run(loopback: Loopback) -> None:
    stuck = Slow()
    with Rig(handler=stuck, loopback=loopback) as first:
        flush = loopback.submit(FLUSH)
        assert stuck.flushing.wait(10)
        swap = loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + b"n" * 512)  # waits for the flush
        first.die()
    successor = Slow()
    successor.gate.set()
    with Rig(handler=successor, loopback=loopback):
        assert loopback.wait(flush).status == GOOD
        assert loopback.wait(swap).status == GOOD
    stuck.gate.set()
    assert successor.written == 1


def test_one_that_was_only_reading_is_run(loopback: Loopback) -> None:
    stuck = Held("read")
    with Rig(handler=stuck, loopback=loopback) as first:
        swap = loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + b"n" * 512)
        assert stuck.flushing.wait(10)
        first.die()
    successor = Slow()
    with Rig(handler=successor, loopback=loopback):
        assert loopback.wait(swap).status == GOOD
    stuck.gate.set()
    assert successor.written == 1
