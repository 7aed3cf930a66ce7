"""The pump: it lets go of a ring that fails, and serves on."""

import os
import threading
from functools import partial

from vscsihba.engine.pump import Pump
from vscsihba.errors import DeviceGoneError, TransportError


class Fake:
    """A ring that is served by reading its eventfd, or fails."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self.name = name
        self.fails = fails
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.served = threading.Semaphore(0)
        self.errors: list[TransportError] = []

    def fileno(self) -> int:
        return self.event

    def serve(self) -> None:
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            pass
        else:
            if self.fails:
                raise DeviceGoneError("gone")
        self.served.release()

    def failed(self, error: TransportError) -> None:
        self.errors.append(error)
        self.served.release()


def test_it_looks_once_when_a_ring_is_added() -> None:
    pump, ring = Pump(), Fake("a")
    pump.start()
    pump.mailbox.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    pump.stop()


def test_a_ring_that_fails_does_not_take_others_down() -> None:
    pump, good, bad = Pump(), Fake("good"), Fake("bad", fails=True)
    pump.start()
    for ring in (good, bad):
        pump.mailbox.post(partial(pump.add, ring))
        assert ring.served.acquire(timeout=10)
    os.eventfd_write(bad.event, 1)
    assert bad.served.acquire(timeout=10)
    assert len(bad.errors) == 1
    os.eventfd_write(good.event, 1)
    assert good.served.acquire(timeout=10)
    pump.stop()


def test_removing_twice_is_harmless() -> None:
    pump, ring = Pump(), Fake("a")
    pump.start()
    pump.mailbox.post(partial(pump.add, ring))
    assert ring.served.acquire(timeout=10)
    pump.mailbox.post(partial(pump.remove, ring))
    pump.mailbox.post(partial(pump.remove, ring))
    pump.stop()
    os.eventfd_write(ring.event, 1)
    assert not ring.served.acquire(blocking=False)
