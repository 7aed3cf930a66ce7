"""Opening and closing a LUN: it has one owner at a time, and no command is lost between two.

A loopback plays the kernel's half of the ring.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine.rig import CHECK_CONDITION, GOOD, rw10, triple
from tests.engine.stuck import gate_of, stuck_document
from tests.polling import wait_until
from vscsihba import configfs
from vscsihba.engine.owning import owned_lun as module
from vscsihba.engine.owning.appearance import Appearance
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import FlushError, HostError, VscsihbaError
from vscsihba.handlers.actions import quiet
from vscsihba.handlers.stack import Document
from vscsihba.loopback import Answer, Loopback
from vscsihba.tcmu import abi
from vscsihba.transport import Transport

BUSY = 8


class Kernel:
    """One backstore, and the run directory that its engines share."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.loopback = Loopback(journal=run / "lun0.journal")
        self.resets = 0

    def attach(self, _device: object, _journal: Path) -> Transport:
        self.loopback.transport.attach()
        return self.loopback.transport

    def reset(self, _name: str) -> None:
        self.resets += 1
        self.loopback.reset_ring()

    @contextmanager
    def engine(self, document: Document) -> Iterator[OwnedLun]:
        """An engine that may own the LUN."""
        pump = Pump()
        pump.start()
        owned = OwnedLun(
            0, LunSpec(0, document), self.run, pump=pump, listeners=Listeners(), units=UnitsOfHba()
        )
        try:
            yield owned
        finally:
            pump.stop()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(module, "TcmuTransport", kernel.attach)
    monkeypatch.setattr(module, "UnitState", partial(UnitState, directory=tmp_path / "units"))
    monkeypatch.setattr(OwnedLun, "_device", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(configfs, "reset_ring", kernel.reset)
    yield kernel
    kernel.loopback.close()


@pytest.fixture
def disk(tmp_path: Path) -> Document:
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    return str(tmp_path / "a.img")


def use(kernel: Kernel) -> None:
    """Write and read, after a unit attention of a new owner."""
    for cdb, data_out, data_in in ((rw10(0x2A, 0, 1), b"x" * 512, 0), (rw10(0x28, 0, 1), b"", 512)):
        send = partial(kernel.loopback.submit, cdb, data_out=data_out, data_in=data_in)
        answers = [kernel.loopback.wait(send()) for _ in range(5)]
        assert answers[-1].status == GOOD
        assert answers[-1].data == data_in * b"x"


def test_a_lun_that_is_not_open_is_closed_without_more(kernel: Kernel, disk: Document) -> None:
    with kernel.engine(disk) as engine:
        assert (engine.failed, engine.lost, engine.answers, engine.ended) == (False, False, False, True)
        engine.close()
        assert engine.ended


def test_a_lun_has_one_owner_at_a_time(
    kernel: Kernel, disk: Document, caplog: pytest.LogCaptureFixture
) -> None:
    with kernel.engine(disk) as first, kernel.engine(disk) as second:
        assert first.open()
        assert first.answers
        assert not second.open()
        assert not second.answers
        use(kernel)
        first.close()
        assert first.served is None
        assert second.open()
        use(kernel)
        second.close()
    assert kernel.resets == 0
    assert caplog.text == ""


def test_a_ring_that_cannot_be_read_is_closed_again(
    kernel: Kernel, disk: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    def fail() -> None:
        raise HostError("the ring cannot be read")

    with kernel.engine(disk) as first, kernel.engine(disk) as second:
        with monkeypatch.context() as patch:
            broken = SimpleNamespace(recover=fail, close=lambda: closed.append(True))
            patch.setattr(module, "TcmuTransport", lambda *_: broken)
            with pytest.raises(HostError, match="cannot be read"):
                first.open()
        assert closed == [True]
        assert second.open()
        second.close()


def test_no_action_begins_once_the_lun_is_being_released(kernel: Kernel, disk: Document) -> None:
    with kernel.engine(disk) as engine:
        assert engine.open()
        actions = engine.actions
        assert actions is not None
        engine.close()
        with pytest.raises(HostError, match="is releasing it"):
            actions.run("file", "anything", {}, lambda _done, _of: None)


def test_a_lun_whose_storage_hangs_is_given_up_when_that_answers(
    kernel: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscsihba.engine.serving.aborts.PATIENCE", 0.0)
    document = stuck_document(tmp_path)
    with kernel.engine(document) as first, kernel.engine(document) as second:
        assert first.open()
        gate, writing = gate_of(first)
        for _ in range(5):  # unit attentions
            kernel.loopback.wait(kernel.loopback.submit(rw10(0x28, 0, 1), data_in=512))
        write = kernel.loopback.submit(rw10(0x2A, 0, 1), data_out=b"x" * 512)
        assert writing.wait(60)
        threads = threading.active_count()
        kernel.loopback.manage(abi.TCMU_TMR_ABORT_TASK, [write])
        assert kernel.loopback.wait(write).status == CHECK_CONDITION
        wait_until(lambda: not first.answers)
        first.close(patience=0)
        assert "its storage does not answer" in caplog.text
        assert not second.open(), "two owners would be one too many"
        gate.set()
        wait_until(second.open)
        assert first.served is None
        second.close()
        wait_until(lambda: threading.active_count() < threads)


def test_a_resize_that_has_waited_too_long_is_not_done_later(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RESIZE_PATIENCE", 0.05)
    with kernel.engine(stuck_document(tmp_path)) as engine:
        with pytest.raises(HostError, match="LUN 0 is not served here"):
            engine.resize(2 << 20)
        assert engine.open()
        assert engine.served is not None
        gate, writing = gate_of(engine)
        for _ in range(5):  # unit attentions
            kernel.loopback.wait(kernel.loopback.submit(rw10(0x28, 0, 1), data_in=512))
        write = kernel.loopback.submit(rw10(0x2A, 0, 1), data_out=b"x" * 512)
        assert writing.wait(60)
        with pytest.raises(HostError, match=r"the storage has not answered within 0\.05 s; try again"):
            engine.resize(2 << 20)
        gate.set()
        assert kernel.loopback.wait(write).status == GOOD
        kernel.loopback.wait(kernel.loopback.submit(rw10(0x28, 0, 1), data_in=512))  # comes after the resize
        assert engine.served.handler.geometry.size == 1 << 20
        engine.close()


def test_a_resize_whose_storage_reports_a_time_out_fails_with_that(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_size: int) -> None:
        raise OSError(errno.ETIMEDOUT, "the server of the storage is silent")

    with kernel.engine(stuck_document(tmp_path)) as engine:
        assert engine.open()
        assert engine.stack is not None
        monkeypatch.setattr(engine.stack.layers[0], "resize", fail)
        with pytest.raises(TimeoutError, match="the server of the storage is silent"):
            engine.resize(2 << 20)
        engine.close()


def test_what_a_unit_keeps_is_found_by_the_serial_number_that_is_wanted(
    kernel: Kernel, disk: Document, tmp_path: Path
) -> None:
    with kernel.engine(disk) as engine:
        engine.spec = LunSpec(0, disk, appearance=Appearance(serial="MY-DISK-7"))
        assert engine.open()
        assert engine.served is not None
        assert engine.served.unit.identity.serial == "MY-DISK-7"
        engine.served._tasks._perform(engine.served.unit.keep())
        engine.close()
    assert [path.name for path in (tmp_path / "units").iterdir()] == ["MY-DISK-7.json"]


@pytest.mark.parametrize("damage", ["journal", "tail"])
def test_what_cannot_be_believed_is_begun_anew(
    kernel: Kernel, disk: Document, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = kernel.loopback.submit(rw10(0x28, 0, 1), data_in=512)
    if damage == "journal":
        kernel.loopback.transport.close()
        with (tmp_path / "lun0.journal").open("r+b") as file:
            file.write(b"\xa5" * 8192)
    else:
        at = abi.CMD_TAIL_OFFSET
        kernel.loopback.memory[at : at + 4] = b"\xf8\xff\xff\xff"
    with kernel.engine(disk) as owned:
        assert owned.open()
        assert kernel.loopback.wait(waiting).status == BUSY
        use(kernel)
        owned.close()
    assert kernel.resets == 1
    assert "its commands are answered BUSY and sent again" in caplog.text


CLOSING = """
from vscsihba.block import Geometry
from vscsihba.handlers.actions import Action, NoArguments
from vscsihba.handlers.base import Handler

class Closing(Handler):
    name = "closing"
    error = verb_error = None
    at_close = None

    @property
    def geometry(self):
        return Geometry(1 << 20)

    def read(self, offset, views):
        for view in views:
            view[:] = bytes(len(view))

    def write(self, offset, views, *, fua=False):
        pass

    def flush(self):
        pass

    def resize(self, size):
        raise Closing.verb_error

    def actions(self):
        return {"fail": Action("fail", NoArguments, lambda _arguments, _progress: self.resize(0))}

    def close(self):
        if Closing.at_close is not None:
            Closing.at_close()
        if Closing.error is not None:
            raise Closing.error
"""
FLUSH = bytes([0x35]) + bytes(9)
LOST = (4, 0x0C, 0)


@pytest.fixture
def closing(tmp_path: Path) -> Document:
    """A disk with a last flush that does what the test says."""
    (tmp_path / "closing.py").write_text(CLOSING)
    return {"handler": str(tmp_path / "closing.py")}


def layer_of(owned: OwnedLun) -> Any:
    assert owned.stack is not None
    return type(owned.stack.layers[0])


def flush(kernel: Kernel) -> Answer:
    """Flush, after the unit attentions."""
    for _ in range(5):
        kernel.loopback.wait(kernel.loopback.submit(rw10(0x28, 0, 1), data_in=512))
    return kernel.loopback.wait(kernel.loopback.submit(FLUSH))


def test_a_last_flush_that_fails_is_reported_by_the_next_owner(
    kernel: Kernel, closing: Document, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with kernel.engine(closing) as first, kernel.engine(closing) as second:
        assert first.open()
        assert flush(kernel).status == GOOD
        layer_of(first).error = OSError(5, "Input/output error")
        with pytest.raises(OSError, match="Input/output error"):
            first.close()
        assert second.open()
        assert triple(flush(kernel)) == LOST
        assert "the last flush of process" in caplog.text
        assert "the next flush will report it" in caplog.text
        second.close()
    with kernel.engine(closing) as third:
        assert third.open(), "who has told nobody for long enough tells again"
        assert triple(flush(kernel)) == LOST
        third.close()
    assert (tmp_path / "lun0.unflushed").exists()


def test_an_owner_that_is_killed_in_its_last_flush_leaves_a_record(
    kernel: Kernel, closing: Document, tmp_path: Path
) -> None:
    seen: list[str] = []
    with kernel.engine(closing) as first, kernel.engine(closing) as second:
        assert first.open()
        layer = layer_of(first)
        layer.at_close = lambda: seen.append((tmp_path / "lun0.unflushed").read_text())
        first.close()
        assert "ended during its last flush" in seen[0]
        assert not (tmp_path / "lun0.unflushed").exists()
        layer.at_close = None
        (tmp_path / "lun0.unflushed").write_text(seen[0])  # as if it had been killed there
        assert second.open()
        assert triple(flush(kernel)) == LOST
        second.close()


def test_a_flush_that_fails_while_the_medium_is_opened_is_reported_by_the_next_owner(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.img").write_bytes(bytes(1 << 20))
    overlay = {
        "handler": "cow",
        "path": str(tmp_path / "over.cow"),
        "create": True,
        "next": str(tmp_path / "base.img"),
    }
    with kernel.engine(overlay) as first:
        assert first.open(make=True)
        assert flush(kernel).status == GOOD
        first.close()

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, kernel.engine(overlay) as second:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(FlushError):
            second.open()
    with kernel.engine(overlay) as third:
        assert third.open()
        assert triple(flush(kernel)) == LOST
        third.close()


def of_a_resize(owned: OwnedLun) -> None:
    owned.resize(2 << 20)


def of_an_action(owned: OwnedLun) -> None:
    assert owned.actions is not None
    owned.actions.run("closing", "fail", {}, quiet)


@pytest.mark.parametrize("fail", [of_a_resize, of_an_action])
def test_a_failed_flush_of_a_resize_or_an_action_is_reported_by_the_next_owner_of_a_killed_one(
    kernel: Kernel, closing: Document, tmp_path: Path, fail: Callable[[OwnedLun], None]
) -> None:
    with kernel.engine(closing) as first, kernel.engine(closing) as second:
        assert first.open()
        assert flush(kernel).status == GOOD
        layer_of(first).verb_error = FlushError(errno.EIO, "pages are lost")
        with pytest.raises(FlushError, match="pages are lost"):
            fail(first)
        left = (tmp_path / "lun0.unflushed").read_text()
        assert "pages are lost" in left
        first.close()
        (tmp_path / "lun0.unflushed").write_text(left)  # as if it had been killed after the failure
        assert second.open()
        assert triple(flush(kernel)) == LOST
        second.close()


@pytest.mark.parametrize("fail", [of_a_resize, of_an_action])
def test_a_resize_or_an_action_that_fails_without_a_flush_loses_nothing(
    kernel: Kernel, closing: Document, tmp_path: Path, fail: Callable[[OwnedLun], None]
) -> None:
    with kernel.engine(closing) as engine:
        assert engine.open()
        layer_of(engine).verb_error = OSError(errno.ENOSPC, "no room")
        with pytest.raises(OSError, match="no room"):
            fail(engine)
        assert not (tmp_path / "lun0.unflushed").exists()
        assert flush(kernel).status == GOOD
        engine.close()


def test_a_medium_that_cannot_be_opened_is_no_failed_flush(
    kernel: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = {"handler": "file", "path": str(tmp_path / "none.img")}
    with kernel.engine(missing) as engine, pytest.raises(VscsihbaError, match=r"none\.img"):
        engine.open()
    assert not (tmp_path / "lun0.unflushed").exists()
    assert "may be lost" not in caplog.text


def test_a_record_is_gone_once_every_user_of_the_disk_was_told(
    kernel: Kernel, closing: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscsihba.scsi.failed_flush.WINDOW", -1)
    (tmp_path / "lun0.unflushed").write_text("it broke")
    with kernel.engine(closing) as engine:
        assert engine.open()
        assert triple(flush(kernel)) == LOST
        assert (tmp_path / "lun0.unflushed").exists(), "the answer may not have arrived"
        assert flush(kernel).status == GOOD
        assert not (tmp_path / "lun0.unflushed").exists()
        engine.close()
    assert not (tmp_path / "lun0.unflushed").exists()


def test_a_last_flush_that_does_not_return_is_not_waited_for(
    kernel: Kernel, closing: Document, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    with kernel.engine(closing) as first, kernel.engine(closing) as second:
        assert first.open()
        layer_of(first).at_close = lambda: gate.wait(60)
        first.close(patience=0)
        assert "its storage does not answer" in caplog.text
        (closing_thread,) = [each for each in threading.enumerate() if each.name.startswith("close-")]
        assert closing_thread.daemon, "it keeps no process from ending"
        assert not first.ended
        assert not second.open()
        gate.set()
        wait_until(second.open)
        assert first.ended
        second.close()


def test_an_action_that_does_not_end_is_not_waited_for(
    kernel: Kernel, disk: Document, caplog: pytest.LogCaptureFixture
) -> None:
    with kernel.engine(disk) as first:
        assert first.open()
        assert first.actions is not None
        first.actions._running += 1
        actions = first.actions
        first.close(patience=0)
        assert "its storage does not answer" in caplog.text
        with actions._idle:
            actions._running -= 1
            actions._idle.notify_all()
        wait_until(lambda: first.ended)


def test_without_another_thread_a_lun_is_closed_all_the_same(
    kernel: Kernel, disk: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("close-"):
            raise RuntimeError("can't start new thread")
        real(thread)

    with kernel.engine(disk) as first, kernel.engine(disk) as second:
        assert first.open()
        monkeypatch.setattr(threading.Thread, "start", start)
        first.close()
        assert first.ended
        assert second.open()
        second.close()
