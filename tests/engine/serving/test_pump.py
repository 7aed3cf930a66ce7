"""The pump: it stops serving a ring that fails, and goes on with the others."""

import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from vscsihba.engine.serving.polling import Polling
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
        self.busy = self.on_threads = False
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


class Answering:
    """A handler that finishes its verbs on the pump's thread, when its eventfd is written."""

    def __init__(self) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.served = threading.Semaphore(0)
        self.bug: Exception | None = None

    def fileno(self) -> int:
        return self.event

    def attach(self) -> None: ...

    def detach(self) -> None: ...

    def cork(self) -> None: ...

    def uncork(self) -> None: ...

    def serve(self) -> None:
        if self.bug is not None:
            raise self.bug
        os.eventfd_read(self.event)
        self.served.release()


class Spinning(Polling):
    """The choice of a machine on which polling is quicker."""

    def note(self, seconds: float, commands: int) -> None: ...


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def spinning(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pump, threading.Event]]:
    """A pump that polls for a minute, and an event that is set once it prepares to sleep."""
    pump, slept = Pump(), threading.Event()
    pump._polling = Spinning(60)
    pump._polling.window = 60
    go_idle = pump._go_idle

    def sleep() -> None:
        slept.set()
        go_idle()

    monkeypatch.setattr(pump, "_go_idle", sleep)
    pump.start()
    yield pump, slept
    pump.stop()


def test_answers_are_taken_while_the_rings_are_polled(spinning: tuple[Pump, threading.Event]) -> None:
    """Even several, since commands that wait for them keep the ring busy."""
    pump, slept = spinning
    ring, handler = Fake("a"), Answering()
    ring.busy = True
    pump.calls.post(partial(pump.watch, handler, fail))
    pump.calls.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    for _ in range(3):
        os.eventfd_write(handler.event, 1)
        assert handler.served.acquire(timeout=10)
    ring.waiting = 1
    assert ring.served.acquire(timeout=10)
    assert not slept.is_set()
    pump.calls.post(partial(pump.unwatch, handler))


def test_commands_on_threads_end_polling(spinning: tuple[Pump, threading.Event]) -> None:
    """They need the interpreter's lock."""
    pump, slept = spinning
    ring = Fake("a")
    ring.busy = ring.on_threads = True
    pump.calls.post(partial(pump.add, ring))
    assert slept.wait(10)


def test_a_handler_that_fails_while_the_rings_are_polled_is_not_watched_any_more(
    spinning: tuple[Pump, threading.Event],
) -> None:
    pump, _ = spinning
    ring, handler = Fake("a"), Answering()
    ring.busy = True
    failures: list[Exception] = []
    failed = threading.Semaphore(0)

    def note(error: Exception) -> None:
        failures.append(error)
        failed.release()

    pump.calls.post(partial(pump.watch, handler, note))
    pump.calls.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    handler.bug = ZeroDivisionError("a bug")
    os.eventfd_write(handler.event, 1)
    assert failed.acquire(timeout=10)
    assert not failed.acquire(timeout=0.1)
    assert failures == [handler.bug]
    ring.waiting = 1
    assert ring.served.acquire(timeout=10)
