"""examples/ramdisk.py, unchanged, on an HBA inside this process; tests/vm runs it on a kernel."""

import os
import runpy
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.hba.rig import SYNCHRONIZE_CACHE, TEST_UNIT_READY, VENDOR, AskingPort, key
from vscsihba import vscsiapi

EXAMPLE = Path(__file__).parents[2] / "examples" / "ramdisk.py"
UNKNOWN = (5, 0x2000)


def rw(opcode: int, lba: int, blocks: int) -> bytes:
    return struct.pack(">BxIxHx", opcode, lba, blocks)


@pytest.fixture
def signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_is_under_60_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ramdisk.py", "1MiB", "256x"])
    with pytest.raises(SystemExit, match="'/dev/vscsihba256x' is not an HBA"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_is_a_disk_until_a_signal_comes(signals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    port = AskingPort()
    seen: dict[str, object] = {}

    def initiate() -> None:
        seen["ready"] = port.run(0, TEST_UNIT_READY).status
        seen["capacity"] = port.run(0, bytes((0x25, *bytes(9))), data_in=8).data
        seen["modes"] = port.run(0, bytes((0x1A, 0, 0x3F, 0, 4, 0)), data_in=4).data
        seen["write"] = port.run(0, rw(0x2A, 2046, 2), data_out=b"ab" * 512).status
        seen["read"] = port.run(0, rw(0x28, 2047, 1), data_in=512).data
        seen["beyond"] = key(port.run(0, rw(0x28, 2047, 2), data_in=1024))
        seen["short"] = key(port.run(0, rw(0x2A, 0, 2), data_out=bytes(512)))
        seen["pages"] = key(port.run(0, bytes((0x12, 1, 0, 0, 96, 0)), data_in=96))
        seen["vendor"] = key(port.run(0, VENDOR))
        os.kill(os.getpid(), signal.SIGTERM)

    with_port = partial(vscsiapi.register_scsi_host, port=port)
    monkeypatch.setattr(vscsiapi, "register_scsi_host", lambda name, **words: start(name, words))

    def start(name: str, words: dict[str, object]) -> object:
        task = with_port(name, **words)  # type: ignore[arg-type]
        threading.Thread(target=initiate).start()
        return task

    monkeypatch.setattr(sys, "argv", ["ramdisk.py", "1MiB"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert port.closed
    assert port.answers[0x12].data[8:32] == b"EXAMPLE RAM DISK        "
    assert port.answers[SYNCHRONIZE_CACHE[0]].status == 0
    assert seen == {
        "ready": 0,
        "capacity": struct.pack(">II", 2047, 512),
        "modes": bytes((3, 0, 0, 0)),
        "write": 0,
        "read": b"ab" * 256,
        "beyond": UNKNOWN,
        "short": UNKNOWN,
        "pages": UNKNOWN,
        "vendor": UNKNOWN,
    }
