"""A disk of `vscsitarget` that fails is that disk's failure alone: the program serves the others on."""

import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba import configfs
from vscsihba.cli import vscsitarget
from vscsihba.engine import reclaim
from vscsihba.engine import target as target_module
from vscsihba.engine.owning import owned_lun, ownership
from vscsihba.engine.owning.locks import lock_hba, run_directory
from vscsihba.engine.owning.luns import LinuxDisk, Luns
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.loopback import Loopback

LIMIT = 60
CMD_HEAD = 12
"""Byte of the mailbox."""


class Machine:
    """A kernel that is a folder, and rings with both ends in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = FakeConfigfs(folder / "kernel", monkeypatch)
        self.rings: list[Loopback] = []
        self.made = threading.Semaphore(0)
        run = folder / "run"
        monkeypatch.setattr(owned_lun, "TcmuTransport", self._transport)
        monkeypatch.setattr(owned_lun, "read_device", lambda path: path)
        monkeypatch.setattr(owned_lun, "UnitState", partial(UnitState, directory=folder / "units"))
        monkeypatch.setattr(target_module, "lock_hba", partial(lock_hba, run=run))
        monkeypatch.setattr(target_module, "run_directory", partial(run_directory, run=run))
        monkeypatch.setattr(configfs, "prepare", lambda: None)
        monkeypatch.setattr(reclaim, "protect", lambda: None)
        monkeypatch.setattr(configfs, "users_of", lambda _disk: [])
        monkeypatch.setattr(Luns, "disk", lambda _luns, lun: LinuxDisk(lun, Path(f"/dev/sd{lun}"), 1 << 20))

    def _transport(self, _device: object, _journal: object) -> Any:
        self.rings.append(Loopback(blocks=64))
        self.made.release()
        return self.rings[-1].transport

    def wait_for_rings(self, count: int) -> None:
        for _ in range(count):
            assert self.made.acquire(timeout=LIMIT)

    @property
    def luns(self) -> list[str]:
        return sorted(path.name for path in self.kernel.loopback.glob("naa*/tpgt_1/lun/lun_*"))

    def corrupt(self, ring: int) -> None:
        """Write nonsense into a ring, and notify its server."""
        struct.pack_into("=I", self.rings[ring].memory, CMD_HEAD, 1 << 30)
        os.eventfd_write(self.rings[ring].event, 1)

    def remove(self, ring: int) -> None:
        """Take the device of a ring away, as another program can."""
        self.rings[ring].remove()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(ownership, "RETRY", 0.0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    made = Machine(tmp_path, monkeypatch)
    yield made
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)
    for ring in made.rings:
        ring.close()


def serve(tmp_path: Path, meanwhile: Callable[[], None]) -> tuple[int, list[BaseException]]:
    """Serve two files, do something meanwhile on another thread, and end."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            meanwhile()
        except BaseException as error:  # noqa: BLE001 - the test's
            errors.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    code = vscsitarget.main(["id=3", "-files", f"{tmp_path / 'a'},{tmp_path / 'b'}"])
    thread.join(LIMIT)
    return code, errors


def test_a_disk_that_fails_is_opened_again_and_the_other_stays(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def meanwhile() -> None:
        machine.wait_for_rings(2)
        machine.corrupt(0)
        machine.wait_for_rings(1)
        assert machine.luns == ["lun_0", "lun_1"]
        os.kill(os.getpid(), signal.SIGTERM)

    assert serve(tmp_path, meanwhile) == (0, [])
    assert "HBA 3 failed: lun 0: cmd_head" in capsys.readouterr().out
    assert machine.luns == []


def test_the_program_ends_with_its_last_disk(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def meanwhile() -> None:
        machine.wait_for_rings(2)
        machine.remove(0)
        machine.remove(1)

    assert serve(tmp_path, meanwhile) == (1, [])
    captured = capsys.readouterr()
    assert captured.out.count("failed: lun") == 2
    assert "the loopback was removed" in captured.err
