"""Printing: lines for people and for programs, and never a disk that waits for a reader."""

import io
import json
import sys
import threading

import pytest

from vscsihba.cli.printer import Printer
from vscsihba.trace import TraceRecord

RECORD = TraceRecord(1, "READ(10)", bytes([0x28]), "lba=0 blocks=8", "GOOD", "", 4096, 0.001)


def test_a_ready_line_is_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(0, as_json=False) as printer:
        printer.ready(0, "/dev/sda", 64 << 20, label="a.img", file="/srv/a.img")
    assert capsys.readouterr().out == "id=0 lun=0 /dev/sda 64.0 MiB a.img\n"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(7, as_json=True) as printer:
        printer.ready(2, "/dev/sdb", 512, label="b.img", file="b.img")
        printer.trace(RECORD)
    ready, command = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert ready == {"event": "ready", "id": 7, "lun": 2, "device": "/dev/sdb", "size": 512, "file": "b.img"}
    assert (command["event"], command["name"], command["cdb"]) == ("command", "READ(10)", "28")


def test_a_traced_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(0, as_json=False) as printer:
        printer.trace(RECORD)
    assert capsys.readouterr().out == "id=0 lun=1 READ(10) lba=0 blocks=8 GOOD 1.000 ms\n"


class Stalled(io.StringIO):
    """A terminal that is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.gate.wait(10)
        return super().write(text)


def test_a_paused_terminal_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = Stalled()
    monkeypatch.setattr(sys, "stdout", paused)
    monkeypatch.setattr("vscsihba.cli.printer._WAITING", 10)
    with Printer(0, as_json=False) as printer:
        for _ in range(100):  # returns at once although nothing is being printed
            printer.trace(RECORD)
        paused.gate.set()
    lines = paused.getvalue().splitlines()
    assert 10 <= len([line for line in lines if line.startswith("id=0")]) <= 12
    assert any("lines not printed" in line for line in lines)


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with Printer(0, as_json=False) as printer:
        for _ in range(5):
            printer.trace(RECORD)
