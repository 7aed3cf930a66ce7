"""The pump: it stops serving a ring that fails, and goes on with the others."""

import os
import sys
import threading
from functools import partial

import pytest

from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import DeviceGoneError, TransportError
from vscsihba.threads import end_process


class Fake:
    """A ring that is served by reading its eventfd, or raises."""

    def __init__(self, name: str, *, fails: bool = False, bug: Exception | None = None) -> None:
        self.name = name
        self.fails = fails
        self.bug = bug
        self.waiting = 0
        self.busy = False
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.served = threading.Semaphore(0)
        self.errors: list[TransportError] = []

    def fileno(self) -> int:
        return self.event

    def acknowledge(self) -> None:
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            return
        if self.fails:
            raise DeviceGoneError("gone")

    def serve(self) -> int:
        if self.bug is not None:
            raise self.bug
        self.waiting = max(0, self.waiting - 1)
        self.served.release()
        return 1

    def pending(self) -> bool:
        return self.waiting > 0

    def failed(self, error: TransportError) -> None:
        self.errors.append(error)
        self.served.release()


def test_it_looks_once_when_a_ring_is_added() -> None:
    pump, ring = Pump(), Fake("a")
    pump.start()
    pump.calls.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    pump.stop()


def test_a_ring_that_fails_does_not_take_others_down() -> None:
    pump, good, bad = Pump(), Fake("good"), Fake("bad", fails=True)
    pump.start()
    for ring in (good, bad):
        pump.calls.post(partial(pump.add, ring))
        assert ring.served.acquire(timeout=10)
    os.eventfd_write(bad.event, 1)
    assert bad.served.acquire(timeout=10)
    assert len(bad.errors) == 1
    os.eventfd_write(good.event, 1)
    assert good.served.acquire(timeout=10)
    pump.stop()


def test_a_ring_whose_server_has_a_bug_does_not_take_others_down(caplog: pytest.LogCaptureFixture) -> None:
    pump, good, bad = Pump(), Fake("good"), Fake("bad", bug=ValueError("a bug"))
    pump.start()
    for ring in (good, bad):
        pump.calls.post(partial(pump.add, ring))
        assert ring.served.acquire(timeout=10)
    assert [str(error) for error in bad.errors] == ["internal error: ValueError: a bug; see the engine's log"]
    os.eventfd_write(good.event, 1)
    assert good.served.acquire(timeout=10)
    assert "bad: internal error" in caplog.text
    pump.stop()


def test_the_death_of_the_pump_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    died = threading.Event()

    def die(_name: str, error: BaseException) -> None:
        told.append(error)
        died.set()

    pump = Pump(died=die)
    bug = KeyError("a bug")

    def fail() -> None:
        raise bug

    monkeypatch.setattr(pump, "_serve_active", fail)
    pump.start()
    assert died.wait(60)
    assert told == [bug]


def test_by_default_a_dead_pump_ends_its_process() -> None:
    assert Pump()._died is end_process


def test_removing_twice_is_harmless() -> None:
    pump, ring = Pump(), Fake("a")
    pump.start()
    pump.calls.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    pump.calls.post(partial(pump.remove, ring))
    pump.calls.post(partial(pump.remove, ring))
    pump.stop()
    os.eventfd_write(ring.event, 1)
    assert not ring.served.acquire(blocking=False)


def test_what_is_left_in_a_ring_is_served_without_a_notification() -> None:
    pump, ring = Pump(poll=0), Fake("a")
    ring.waiting = 5
    pump.start()
    pump.calls.post(partial(pump.add, ring))
    for _ in range(5):
        assert ring.served.acquire(timeout=10)
    pump.stop()


def test_busy_rings_do_not_keep_others_waiting() -> None:
    pump, endless, other = Pump(), Fake("endless"), Fake("other")
    endless.waiting = sys.maxsize
    pump.start()
    for ring in (endless, other):
        pump.calls.post(partial(pump.add, ring))
        assert ring.served.acquire(timeout=10)
    os.eventfd_write(other.event, 1)
    assert other.served.acquire(timeout=10)
    endless.waiting = 0
    pump.stop()
