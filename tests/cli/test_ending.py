"""What ends a program in the foreground."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from vscsihba.cli.ending import Ending
from vscsihba.errors import HostError
ending = Ending()
for word in sys.argv[1:]:
    ending.failed(word)
print("ready", flush=True)
try:
    ending.wait()
except HostError as error:
    print(error)
    sys.exit(1)
print("asked to end")
"""


def start(*failures: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *failures],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def rest_of(process: subprocess.Popen[str]) -> str:
    """Not communicate: it does not see what readline has read ahead."""
    assert process.stdout is not None
    with process.stdout as stdout:
        return stdout.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    assert rest_of(process) == "asked to end\n"
    assert process.wait(timeout=10) == 0


def test_a_failure_ends_it_with_an_error() -> None:
    process = start("lun 0: the ring is gone")
    assert rest_of(process) == "lun 0: the ring is gone\n"
    assert process.wait(timeout=10) == 1
