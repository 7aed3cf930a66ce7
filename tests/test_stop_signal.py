"""Signals and failures that end a program in the foreground."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from vscsihba.stop_signal import StopSignal
from vscsihba.errors import HostError
stop_signal = StopSignal()
left = sys.argv[1:]
for word in tuple(left):
    stop_signal.failed(word)
print("ready", flush=True)
try:
    stop_signal.wait(lambda: left.pop() and not left)
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
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
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


def test_the_failure_of_the_last_thing_ends_it_with_an_error() -> None:
    process = start("lun 0: the ring is gone", "lun 1: the ring is gone")
    assert rest_of(process) == "lun 1: the ring is gone\n"
    assert process.wait(timeout=10) == 1


def test_a_failure_that_leaves_something_ends_nothing() -> None:
    program = PROGRAM.replace("lambda: left.pop() and not left", "lambda: print('told', flush=True)")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *["lun 0: failed"] * 3],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        assert [stdout.readline() for _ in range(4)] == ["ready\n"] + ["told\n"] * 3
        process.send_signal(signal.SIGTERM)
        assert stdout.read() == "asked to end\n"
    assert process.wait(timeout=60) == 0
