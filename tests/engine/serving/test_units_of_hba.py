"""Visits: a block operation on another unit waits in that unit's task set, and delays its release."""

import errno
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, rw10, triple
from tests.engine.slow import FLUSH, Held
from vscsihba import scsi
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import FlushError
from vscsihba.loopback import Answer, Loopback
from vscsihba.stats import LunStats

LIMIT = 60
THIRD_PARTY = (0xA, 0x0D, 1)
OLD, NEW, SOURCE = b"o" * 512, b"n" * 512, b"s" * 512
COMPARE_AND_WRITE = bytes([0x89, 0]) + bytes(8) + bytes([0, 0, 0, 1, 0, 0])


class Unit:
    """A unit with a handler whose verbs may wait."""

    def __init__(self, lun: int, pump: Pump, near: UnitsOfHba) -> None:
        self.handler = Held()
        self.loopback = Loopback(blocks=512)
        self.pump = pump
        stats, names = LunStats(), scsi.Identity.derive(f"lun{lun}")
        self.scsi = scsi.LogicalUnit(self.handler.geometry, self.handler.capabilities, names, stats=stats)
        self.served = ServedLun(
            lun,
            self.loopback.transport,
            self.scsi,
            self.handler,
            pump.calls,
            stats=stats,
            listeners=Listeners(),
            units=near,
        )
        begin = partial(self.served.begin, pump, self.loopback.transport.recover())
        pump.calls.post(begin)
        self.closed: threading.Event | None = None

    def send(self, cdb: bytes, **data: object) -> int:
        return self.loopback.submit(cdb, **data)  # type: ignore[arg-type]

    def wait(self, tag: int) -> Answer:
        return self.loopback.wait(tag, LIMIT)

    def give_up(self) -> threading.Event:
        if self.closed is None:
            self.closed = threading.Event()
            self.pump.calls.post(partial(self.served.end, self.pump, self.closed.set))
        return self.closed


class Pair:
    """Two units of one HBA; `go` lets a waiting verb of a handler continue."""

    def __init__(self) -> None:
        self.pump = Pump()
        self.pump.start()
        near = UnitsOfHba()
        self.units = [Unit(lun, self.pump, near) for lun in range(2)]
        self.here, self.there = self.units
        self.done()
        self.here.handler.data[:512] = SOURCE
        self.there.handler.data[:512] = OLD

    def copy(self, source: int, destination: int) -> int:
        """Send EXTENDED COPY of one block to the unit that is the source; return its tag."""
        segment = struct.pack(">BBHHHxxHQQ", 2, 0, 24, 0, 1, 1, 0, 0)
        targets = b"".join(target(self.units[lun].scsi) for lun in (source, destination))
        listed = struct.pack(">BBH4xII", source + 1, 0, len(targets), len(segment), 0) + targets + segment
        cdb = bytes([0x83, 0]) + bytes(8) + len(listed).to_bytes(4, "big") + bytes(2)
        return self.units[source].send(cdb, data_out=listed)

    def done(self, call: Callable[[], None] = lambda: None) -> None:
        """Wait until the pump has made the calls posted so far, and then `call`."""
        for _ in range(3):
            passed = threading.Event()
            self.pump.calls.post(passed.set)
            assert passed.wait(LIMIT)
        call()


def target(unit: scsi.LogicalUnit) -> bytes:
    head = bytes([0xE4, 0, 0, 0, 1, 3, 0, len(unit.identity.naa)])
    return (head + unit.identity.naa).ljust(28, b"\0") + (512).to_bytes(4, "big")


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for unit in made.units:
        unit.handler.gate.set()
    for unit in made.units:
        assert unit.give_up().wait(LIMIT)
    made.pump.stop()
    for unit in made.units:
        unit.loopback.close()


def held(unit: Unit, *verbs: str) -> None:
    unit.handler.verbs = set(verbs)


def test_a_unit_that_is_given_up_waits_for_a_copy_that_writes_to_it(pair: Pair) -> None:
    held(pair.there, "write")
    copy = pair.copy(0, 1)
    assert pair.there.handler.flushing.wait(LIMIT), "it writes"
    closed = pair.there.give_up()
    pair.done()
    assert not closed.is_set()
    pair.there.handler.gate.set()
    assert closed.wait(LIMIT)
    assert pair.here.wait(copy).status == GOOD
    assert pair.there.handler.data[:512] == SOURCE


def test_a_copy_to_a_unit_that_has_been_given_up_is_aborted(pair: Pair) -> None:
    held(pair.here, "read")
    copy = pair.copy(0, 1)
    assert pair.here.handler.flushing.wait(LIMIT)
    assert pair.there.give_up().wait(LIMIT)
    pair.here.handler.gate.set()
    assert triple(pair.here.wait(copy)) == THIRD_PARTY
    assert pair.there.handler.data[:512] == OLD


def test_a_unit_that_has_been_given_up_is_seen_by_no_other(pair: Pair) -> None:
    assert set(pair.here.scsi.hba_units) == {0, 1}
    assert pair.there.give_up().wait(LIMIT)
    assert set(pair.here.scsi.hba_units) == {0}


def test_a_copy_does_not_come_between_compare_and_write(pair: Pair) -> None:
    held(pair.there, "read")
    swap = pair.there.send(COMPARE_AND_WRITE, data_out=OLD + NEW)
    assert pair.there.handler.flushing.wait(LIMIT), "it compares"
    copy = pair.copy(0, 1)
    pair.done()
    assert pair.there.handler.data[:512] == OLD
    pair.there.handler.gate.set()
    assert pair.there.wait(swap).status == GOOD
    assert pair.here.wait(copy).status == GOOD
    assert pair.there.handler.data[:512] == SOURCE


def test_compare_and_write_waits_for_the_write_of_a_copy(pair: Pair) -> None:
    held(pair.there, "write")
    copy = pair.copy(0, 1)
    assert pair.there.handler.flushing.wait(LIMIT)
    swap = pair.there.send(COMPARE_AND_WRITE, data_out=OLD + NEW)
    pair.done()
    assert swap not in pair.there.loopback.answers
    pair.there.handler.gate.set()
    assert pair.here.wait(copy).status == GOOD
    answer = pair.there.wait(swap)
    assert (answer.status, triple(answer)[0]) == (CHECK_CONDITION, 0xE), "MISCOMPARE: the copy came first"
    assert pair.there.handler.data[:512] == SOURCE


def test_copies_in_both_directions_with_exclusive_commands_behind_them_end(pair: Pair) -> None:
    for unit in pair.units:
        held(unit, "read")
    copies = [pair.copy(0, 1), pair.copy(1, 0)]
    for unit in pair.units:
        assert unit.handler.flushing.wait(LIMIT)
    swaps = [unit.send(COMPARE_AND_WRITE, data_out=NEW + NEW) for unit in pair.units]
    pair.done()
    for unit in pair.units:
        unit.handler.gate.set()
    for unit, copy, swap in zip(pair.units, copies, swaps, strict=True):
        assert unit.wait(copy).status == GOOD
        assert triple(unit.wait(swap))[0] == 0xE


def test_a_copy_ends_with_the_failure_of_the_other_unit(pair: Pair) -> None:
    held(pair.there, "read")
    swap = pair.there.send(COMPARE_AND_WRITE, data_out=OLD + NEW)
    assert pair.there.handler.flushing.wait(LIMIT)
    copy = pair.copy(0, 1)
    pair.done(partial(pair.pump.calls.post, partial(pair.there.served._fail, KeyError("a bug"))))
    assert triple(pair.here.wait(copy)) == THIRD_PARTY
    late = pair.copy(0, 1)
    assert triple(pair.here.wait(late)) == THIRD_PARTY
    assert swap not in pair.there.loopback.answers


def test_a_flush_that_fails_in_a_copy_is_reported_by_the_unit_that_it_was_for(pair: Pair) -> None:
    pair.there.handler.fault = FlushError(errno.EIO, "pages are lost")
    assert triple(pair.here.wait(pair.copy(0, 1))) == THIRD_PARTY
    pair.there.handler.fault = None
    assert pair.here.wait(pair.here.send(FLUSH)).status == GOOD
    assert triple(pair.there.wait(pair.there.send(FLUSH))) == (4, 0x0C, 0)


def test_a_medium_that_is_ejected_or_protected_meanwhile_is_written_to_no_longer(pair: Pair) -> None:
    held(pair.here, "read")
    copy = pair.copy(0, 1)
    assert pair.here.handler.flushing.wait(LIMIT)
    pair.there.scsi.readiness.present = False
    pair.here.handler.gate.set()
    assert triple(pair.here.wait(copy)) == THIRD_PARTY
    assert pair.there.handler.data[:512] == OLD


def test_a_token_made_while_a_copy_waits_is_revoked_by_its_write(pair: Pair) -> None:
    held(pair.there, "read")
    swap = pair.there.send(COMPARE_AND_WRITE, data_out=OLD + NEW)
    assert pair.there.handler.flushing.wait(LIMIT)
    noticed: list[object] = []
    pair.there.scsi.notice = noticed.append  # type: ignore[method-assign, assignment]
    copy = pair.copy(0, 1)
    pair.done(noticed.clear)
    pair.there.handler.gate.set()
    assert pair.here.wait(copy).status == GOOD
    assert noticed, "what is about to change is noticed when it begins"
    assert pair.there.wait(swap).status == GOOD


def test_work_that_goes_on_after_the_status_does_not_come_between_compare_and_write(pair: Pair) -> None:
    """WRITE USING TOKEN with IMMED=1, of zeroes."""
    held(pair.there, "read")
    swap = pair.there.send(COMPARE_AND_WRITE, data_out=OLD + NEW)
    assert pair.there.handler.flushing.wait(LIMIT)
    token = bytes.fromhex("ffff0001 0000 01f8") + bytes(504)
    listed = struct.pack(">HBB4xQ", 550, 1, 0, 0) + token + bytes(6) + struct.pack(">HQI4x", 16, 0, 1)
    cdb = bytes([0x83, 0x11]) + struct.pack(">4xIIxx", 9, len(listed))
    job = pair.there.send(cdb, data_out=listed)
    plain = pair.there.send(rw10(0x28, 1, 1), data_in=512)
    pair.done()
    pair.there.handler.gate.set()
    assert pair.there.wait(swap).status == GOOD
    assert pair.there.wait(job).status == GOOD
    assert pair.there.wait(plain).status == GOOD
    while pair.there.handler.data[:512] != bytes(512):
        pair.done()
