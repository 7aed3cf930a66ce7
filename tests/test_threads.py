"""Vital threads: they survive transient errors, and their death ends the process."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from vscsihba import threads
from vscsihba.errors import HostError

DYING = """
import threading
from vscsihba.threads import VitalThread
def work():
    raise KeyError("a bug")
VitalThread(work, "pump").start()
threading.Event().wait(60)
"""


def test_the_death_of_a_vital_thread_ends_its_process_and_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == threads.EXIT_CODE
    assert "thread pump has died (KeyError: 'a bug')" in done.stderr


def test_a_vital_thread_may_end_by_itself() -> None:
    thread = threads.VitalThread(lambda: None, "short", died=lambda *_: pytest.fail("it has not died"))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("bug"), OSError(errno.EIO, "I/O")])
def test_any_exception_that_ends_a_vital_thread_is_reported(error: BaseException) -> None:
    told: list[BaseException] = []

    def work() -> None:
        raise error

    thread = threads.VitalThread(work, "dying", died=lambda _name, why: told.append(why))
    thread.start()
    thread.join(60)
    assert told == [error]


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), HostError("no")]
)
def test_a_round_that_meets_a_transient_error_is_repeated(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[Exception | bool] = [error, True, error, False]

    def step() -> bool:
        outcome = rounds.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    threads.repeat(step, "the watch", pause=0)
    assert not rounds
    assert caplog.text.count("the watch: ") == 2


def test_a_bug_is_no_transient_error() -> None:
    def step() -> bool:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        threads.repeat(step, "the watch", pause=0)


def test_a_thread_for_which_there_is_no_room_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="cannot be started") as raised:
        threads.start(threading.Thread(name="one more"))
    assert raised.value.errno == errno.EAGAIN
