"""An error in the code that serves one unit fails that unit or its command, and no other unit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, Rig, rw10, triple
from tests.engine.slow import FLUSH, Slow
from vscsihba import scsi
from vscsihba.block import Geometry, Views
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.errors import EngineFaultError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import build
from vscsihba.loopback import Loopback
from vscsihba.stats import LunStats

HARDWARE_ERROR = (4, 0x44, 0)
NO_RESOURCES = (0xB, 0x55, 3)


class Faulty(Handler):
    """A handler of zeroes that never blocks; reading block 7 raises the error of the test."""

    name = "faulty"
    never_blocks = True

    def __init__(self, error: BaseException) -> None:
        super().__init__(Handler.Options())
        self.error: BaseException = error

    @property
    def geometry(self) -> Geometry:
        return Geometry(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        if offset == 7 * 512:
            raise self.error
        for view in views:
            view[:] = bytes(len(view))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        if offset == 7 * 512:
            raise self.error


@contextmanager
def second_unit(rig: Rig) -> Iterator[Loopback]:
    """Another unit that the rig's pump serves."""
    with build({"handler": "memory", "size": "1MiB"}) as handler:
        loopback, stats = Loopback(blocks=64), LunStats()
        unit = scsi.LogicalUnit(
            handler.geometry, handler.capabilities, scsi.Identity.derive("2"), stats=stats
        )
        calls, listeners = rig.pump.calls, Listeners()
        served = ServedLun(1, loopback.transport, unit, handler, calls, stats=stats, listeners=listeners)
        calls.post(partial(served.begin, rig.pump, loopback.transport.recover()))
        yield loopback
        closed = threading.Event()
        calls.post(partial(served.end, rig.pump, closed.set))
        assert closed.wait(60)
        loopback.close()


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(1), MemoryError(), RecursionError()])
@pytest.mark.parametrize("opcode", [0x28, 0x2A])
def test_a_fault_of_an_inline_verb_fails_its_command_alone(error: BaseException, opcode: int) -> None:
    with Rig(handler=Faulty(error)) as rig:
        data = {"data_in": 512} if opcode == 0x28 else {"data_out": bytes(512)}
        answer = rig.run(rw10(opcode, 7, 1), **data)
        assert triple(answer) == (NO_RESOURCES if isinstance(error, MemoryError) else HARDWARE_ERROR)
        assert rig.read(0, 1).status == GOOD
        assert rig.failures == []


def test_without_a_thread_a_command_is_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("lun"):
            raise RuntimeError("can't start new thread")
        real(thread)

    handler = Slow()
    handler.gate.set()
    with Rig(handler=handler) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert triple(rig.run(FLUSH))[0] == 0xB, "ABORTED COMMAND, which Linux sends again"
        assert not handler.flushing.is_set()
        assert rig.run(FLUSH).status == GOOD
        assert handler.flushing.is_set()


def test_a_system_exit_in_a_thread_fails_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Slow()

    def leave() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(handler, "flush", leave)
    with Rig(handler=handler) as rig:
        assert triple(rig.run(FLUSH)) == HARDWARE_ERROR
        assert rig.read(0, 1).status == GOOD


@pytest.mark.parametrize("where", ["take", "answer", "serve"])
def test_a_unit_whose_server_fails_is_reported_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Slow()
    handler.gate.set()

    def fail(*_arguments: object) -> None:
        raise KeyError("a bug")

    with Rig(handler=handler) as rig, second_unit(rig) as other:
        assert rig.read(0, 1).status == GOOD
        if where == "take":
            monkeypatch.setattr(rig.served._tasks, "add", fail)
        elif where == "answer":
            monkeypatch.setattr(rig.served._tasks, "_back", fail)
        else:
            monkeypatch.setattr(rig.served.transport, "take_management", fail)
        lost = rig.loopback.submit(FLUSH)
        while other.wait(other.submit(rw10(0x28, 0, 1), data_in=512)).status == GOOD and not rig.failures:
            pass
        assert rig.failures == ["lun 0: internal error: KeyError: 'a bug'; see the engine's log"]
        assert isinstance(rig.served.failure, EngineFaultError)
        assert other.wait(other.submit(rw10(0x28, 0, 1), data_in=512)).status == GOOD
        assert where == "serve" or lost not in rig.loopback.answers
        assert "Traceback" in caplog.text


def test_a_command_that_cannot_be_taken_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise MemoryError

    with Rig({"handler": "memory", "size": "1MiB"}) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(rig.unit, "execute", refuse)
            answer = rig.run(bytes(6))
        assert (answer.status, triple(answer)) == (CHECK_CONDITION, HARDWARE_ERROR)
        assert rig.run(bytes(6)).status == GOOD
