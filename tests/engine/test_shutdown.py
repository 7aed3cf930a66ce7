"""Engines during a shutdown: systemd spares them, and they end once their disks are free."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vscsihba.engine.shutdown import end_when_free, outlive_shutdown

PROGRAM = """
import sys
from vscsihba.engine.shutdown import outlive_shutdown
marked = outlive_shutdown()
import json, encodings.idna  # modules are found as before
print(marked, open("/proc/self/cmdline", "rb").read().split(b"\\0")[0].decode(), sys.executable)
"""


def test_the_command_line_begins_with_the_mark_and_python_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    marked, first, executable = done.stdout.split()
    assert (marked, first, executable) == ("True", f"@{sys.executable[1:]}", sys.executable)


@pytest.mark.parametrize("stat", ["", "1 (a) b) S 1", "1 (python) S " + "1 " * 60, "1 (x) S " + "x " * 60])
def test_where_the_arguments_cannot_be_found_nothing_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stat: str
) -> None:
    (tmp_path / "stat").write_text(stat)
    (tmp_path / "cmdline").write_bytes(b"")
    assert not outlive_shutdown(tmp_path)
    assert "may kill this process before its disks are free" in caplog.text
    assert not outlive_shutdown(tmp_path / "none")


def test_it_ends_once_nobody_uses_its_disks() -> None:
    users, ended, looked = ["/dev/sda is mounted on /mnt"], threading.Event(), threading.Event()

    def use() -> list[str]:
        looked.set()
        return list(users)

    end_when_free(use, ended.set, pause=0.001)
    assert looked.wait(60)
    assert not ended.is_set()
    users.clear()
    assert ended.wait(60)
