"""The fast path takes plain commands when its conditions hold, and no other commands."""

import sys
import threading
import time

import pytest

from tests.engine.rig import GOOD, Rig, rw10, triple
from tests.engine.serving.test_aborts import at_once
from tests.engine.slow import Held
from vscsihba.block import Views
from vscsihba.handlers.base import InlineVerbs

BLOCKS = 2048
OUT_OF_RANGE = (5, 0x21, 0)
COMPARE_AND_WRITE = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1, 0, 0])
OLD, NEW = b"o" * 512, b"n" * 512


class Seen(Held):
    """A handler in memory whose inline verbs do not check the end, like those of a window on a larger disk.

    Attributes:
        calls: Its calls, in order: the verb (in capitals if inline) and the first byte.
        fua: FUA of each write.
        write_limit: Bytes of the longest inline write.
        most: Bytes that one inline call moves at most.
    """

    def __init__(self, *verbs: str, write_limit: int = sys.maxsize) -> None:
        super().__init__(*verbs)
        self.write_limit = write_limit
        self.most = sys.maxsize
        self.calls: list[tuple[str, int]] = []
        self.fua: list[bool] = []

    @property
    def inline(self) -> InlineVerbs:
        def read(views: Views, offset: int, _flags: int) -> int:
            self.calls.append(("READ", offset))
            done = 0
            for view in (each[: self.most] for each in views):
                view[:] = self.data[offset : offset + len(view)].ljust(len(view), b"!")
                done += len(view)
            return done

        def write(views: Views, offset: int, _flags: int) -> int:
            self.calls.append(("WRITE", offset))
            done = 0
            for view in (each[: self.most] for each in views):
                self.data[offset : offset + len(view)] = view
                done += len(view)
            return done

        return InlineVerbs(read=read, write=write, write_limit=self.write_limit)

    def read(self, offset: int, views: Views) -> None:
        self.calls.append(("read", offset))
        super().read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.calls.append(("write", offset))
        self.fua.append(fua)
        super().write(offset, views, fua=fua)


def time_for_the_pump(rig: Rig) -> None:
    for _ in range(3):
        passed = threading.Event()
        rig.pump.calls.post(passed.set)
        assert passed.wait(60)


@pytest.mark.parametrize(("lba", "count"), [(BLOCKS, 1), (BLOCKS - 1, 2), (BLOCKS + 1, 1), (0, BLOCKS + 1)])
@pytest.mark.parametrize("opcode", [0x28, 0x2A])
def test_no_byte_behind_the_end_is_read_or_written(lba: int, count: int, opcode: int) -> None:
    with Rig(handler=(handler := Seen()), blocks=4096) as rig:
        length = count * 512
        if opcode == 0x28:
            answer = rig.run(rw10(opcode, lba, count), data_in=length)
        else:
            answer = rig.run(rw10(opcode, lba, count), data_out=bytes(length))
        assert triple(answer) == OUT_OF_RANGE
        assert handler.calls == []
        assert len(handler.data) == BLOCKS * 512


def test_the_last_block_is_on_it() -> None:
    with Rig(handler=(handler := Seen())) as rig:
        assert rig.write(BLOCKS - 1, NEW).status == GOOD
        assert rig.read(BLOCKS - 1, 1).data == NEW
        assert handler.calls == [("WRITE", (BLOCKS - 1) * 512), ("READ", (BLOCKS - 1) * 512)]


def test_a_read_that_follows_a_write_in_one_batch_changes_nothing() -> None:
    handler = Seen()
    handler.data[512:1024] = OLD
    with Rig(handler=handler) as rig:
        with at_once(rig):
            write = rig.loopback.submit(rw10(0x2A, 0, 1), data_out=NEW)
            read = rig.loopback.submit(rw10(0x28, 1, 1), data_in=512)
        assert rig.loopback.wait(write).status == GOOD
        assert rig.loopback.wait(read).data == OLD
        assert handler.calls == [("WRITE", 0), ("READ", 512)]
        assert handler.data[:1024] == NEW + OLD


def test_without_a_write_cache_every_write_reaches_stable_storage() -> None:
    with Rig(handler=(handler := Seen())) as rig:
        assert rig.write(0, OLD).status == GOOD
        page = bytearray(rig.run(bytes([0x1A, 8, 8, 0, 64, 0]), data_in=64).data[4:24])
        page[0], page[2] = page[0] & 0x3F, page[2] & ~4
        assert rig.run(bytes([0x15, 0x10, 0, 0, 24, 0]), data_out=bytes(4) + bytes(page)).status == GOOD
        assert rig.write(0, NEW).status == GOOD
        assert rig.read(0, 1).data == NEW
        assert handler.calls == [("WRITE", 0), ("write", 0), ("READ", 0)]
        assert handler.fua == [True]


def test_forced_unit_access_reaches_stable_storage() -> None:
    with Rig(handler=(handler := Seen())) as rig:
        assert rig.write(0, NEW, flags=0x08).status == GOOD
        assert (handler.calls, handler.fua) == ([("write", 0)], [True])


def test_a_buffer_of_another_length_moves_no_more_than_the_command_says() -> None:
    handler = Seen()
    handler.data[512:1024] = OLD
    with Rig(handler=handler) as rig:
        assert rig.run(rw10(0x2A, 0, 1), data_out=NEW * 2).status == GOOD
        assert handler.data[:1024] == NEW + OLD
        assert triple(rig.run(rw10(0x2A, 0, 2), data_out=OLD)) == (5, 0x0E, 3)
        assert handler.data[:1024] == NEW + OLD
        assert rig.run(rw10(0x28, 0, 1), data_in=1024).data == NEW


def test_what_stops_short_is_done_again_as_a_whole() -> None:
    with Rig(handler=(handler := Seen())) as rig:
        handler.most = 100
        assert rig.write(0, NEW).status == GOOD
        assert handler.data[:512] == NEW
        assert rig.read(0, 1).data == NEW
        assert handler.calls == [("WRITE", 0), ("write", 0), ("READ", 0), ("read", 0)]


def test_every_command_is_counted_once() -> None:
    with Rig(handler=Seen()) as rig:
        before = rig.stats.snapshot()
        for _ in range(2):
            rig.write(0, NEW * 2)
        for _ in range(3):
            rig.read(0, 1)
        after = rig.stats.snapshot()
    counted = {name: after[name] - before[name] for name in ("reads", "read_bytes", "writes", "write_bytes")}
    assert counted == {"reads": 3, "read_bytes": 1536, "writes": 2, "write_bytes": 2048}


@pytest.mark.parametrize("opcode", [0x28, 0x2A])
def test_a_control_byte_is_refused(opcode: int) -> None:
    with Rig(handler=(handler := Seen())) as rig:
        cdb = rw10(opcode, 0, 1)[:9] + bytes([0x04])
        answer = rig.run(cdb, data_in=512) if opcode == 0x28 else rig.run(cdb, data_out=NEW)
        assert triple(answer) == (5, 0x24, 0)
        assert handler.calls == []


def test_a_write_beyond_the_limit_of_the_medium_goes_to_a_thread() -> None:
    with Rig(handler=(handler := Seen(write_limit=1024))) as rig:
        assert rig.write(0, NEW * 2).status == GOOD
        assert rig.write(2, NEW * 3).status == GOOD
        assert handler.calls == [("WRITE", 0), ("write", 1024)]


def test_nothing_overlaps_an_exclusive_command() -> None:
    handler = Seen("read")
    handler.data[:512] = OLD
    with Rig(handler=handler) as rig:
        swap = rig.loopback.submit(COMPARE_AND_WRITE, data_out=OLD + NEW)
        assert handler.flushing.wait(60), "it compares"
        others = [
            rig.loopback.submit(rw10(0x2A, 0, 1), data_out=b"x" * 512),
            rig.loopback.submit(rw10(0x2A, 1, 1, flags=0x08), data_out=b"x" * 512),
            rig.loopback.submit(rw10(0x28, 0, 1), data_in=512),
        ]
        time_for_the_pump(rig)
        assert handler.calls == [("read", 0)]
        handler.gate.set()
        assert rig.loopback.wait(swap).status == GOOD
        assert all(rig.loopback.wait(tag).status == GOOD for tag in others)
        assert handler.calls[:2] == [("read", 0), ("write", 0)], "the swap has ended before the others"
        assert handler.data[:512] == b"x" * 512


def test_an_exclusive_command_overlaps_nothing_that_came_before_it() -> None:
    handler = Seen("write")
    with Rig(handler=handler) as rig:
        write = rig.loopback.submit(rw10(0x2A, 0, 1, flags=0x08), data_out=OLD)
        assert handler.flushing.wait(60), "it writes"
        swap = rig.loopback.submit(COMPARE_AND_WRITE, data_out=OLD + NEW)
        later = rig.loopback.submit(rw10(0x28, 1, 1), data_in=512)
        time_for_the_pump(rig)
        assert handler.calls == [("write", 0)], "the swap waits, and what came after it, too"
        handler.gate.set()
        assert [rig.loopback.wait(tag).status for tag in (write, swap, later)] == [GOOD] * 3
        assert [verb for verb, _ in handler.calls[:3]] == ["write", "read", "write"]
        assert handler.data[:512] == NEW


def test_what_goes_on_after_its_answer_overlaps_no_exclusive_command() -> None:
    handler = Seen("flush")
    with Rig(handler=handler) as rig:
        assert rig.run(bytes([0x35, 0x02]) + bytes(8)).status == GOOD, "an immediate SYNCHRONIZE CACHE"
        assert handler.flushing.wait(60)
        swap = rig.loopback.submit(COMPARE_AND_WRITE, data_out=bytes(512) + NEW)
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            assert handler.calls == [], "it waits for the flush"
            time.sleep(0.01)
        handler.gate.set()
        assert rig.loopback.wait(swap).status == GOOD
        assert handler.data[:512] == NEW
