"""Engines die and hand a LUN over while initiators send: nothing acknowledged is lost, nothing hangs."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from tests.sim.engines import Handovers
from tests.sim.faults import MEMORY, Plan
from tests.sim.layers import LAYERS
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.serving import fast_path
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.task import Task
from vscsihba.engine.serving.workers import Workers
from vscsihba.handlers.base import InlineVerbs

SEEDS = range(40)
MOST = 400


class FailingSyncs:
    """A plan in which syncing an image or overlay fails at times, and loses its pages."""

    def __init__(self, seed: int) -> None:
        self._luck = Random(seed)

    def strike(self, number: int, kind: str, path: str) -> str:
        is_disk = path.endswith((".cow", ".layer", ".img"))
        return "EIO" if kind == "sync" and is_disk and self._luck.random() < 0.1 else ""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["file", "cow", "snapshot", "write-back"])
def test_handovers_with_failing_syncs_keep_every_promise(root: Path, name: str) -> None:
    lane = Handovers(LAYERS[name], root)
    for seed in SEEDS:
        outcome = lane.play(seed, FailingSyncs(seed))
        assert not outcome.message, f"seed {seed}: {outcome.message}"


@pytest.mark.timeout(900)  # on a machine that is busy with other things
@pytest.mark.parametrize("name", ["file", "cow", "write-back", "mirror"])
def test_handovers_keep_every_promise(root: Path, name: str) -> None:
    lane = Handovers(LAYERS[name], root)
    for seed in SEEDS:
        outcome = lane.play(seed)
        assert not outcome.message, f"seed {seed}: {outcome.message}"


_TREE = Path(__file__).resolve().parents[2]
_ALONE = """
import sys, time
skew = float(sys.argv[1]) - time.monotonic()
monotonic, now = time.monotonic, time.time
time.monotonic = lambda: monotonic() + skew
time.monotonic_ns = lambda: int(time.monotonic() * 1e9)
time.time = lambda: now() + skew
time.time_ns = lambda: int(time.time() * 1e9)
from tests.sim.__main__ import main
sys.argv[1:] = ["--lane", "engines", "--seed", "136565310465", "--trace", "write-back"]
main()
"""


def test_a_history_is_the_same_whatever_the_clocks_say() -> None:
    told = set()
    for clock in ("10", "1000000"):  # the clock of a simulated machine says 1000 at first
        run = subprocess.run(
            [sys.executable, "-c", _ALONE, clock], capture_output=True, check=True, text=True, cwd=_TREE
        )
        told.add(re.sub(r"sim-\w+|(?<=[./-])[0-9a-f]{16,}", "", run.stdout))
    assert len(told) == 1


class NoMemoryForReads:
    """A plan in which reading an image finds no memory at times."""

    def __init__(self, seed: int) -> None:
        self._luck = Random(seed)

    def strike(self, number: int, kind: str, path: str) -> str:
        return MEMORY if kind == "read" and path.endswith(".img") and self._luck.random() < 0.05 else ""


class NoThreads:
    """A plan in which no thread can be started at times."""

    def __init__(self, seed: int) -> None:
        self._luck = Random(seed)

    def strike(self, number: int, kind: str, path: str) -> str:
        return "thread" if kind == "thread" and self._luck.random() < 0.1 else ""


class Escaped(BaseException):
    """Passes every barrier that is there now and was not there once."""


@contextmanager
def an_exception_of_an_inline_verb_ends_the_pump() -> Iterator[None]:
    """Only OSError is expected of an inline verb, and a dead pump is told to nobody."""
    plain = fast_path._plain

    def escaping(move: Callable[..., int]) -> Callable[..., int]:
        def moved(views: Any, offset: int, flags: int) -> int:
            try:
                return move(views, offset, flags)
            except OSError:
                raise
            except Exception as error:
                raise Escaped from error

        return moved

    def unguarded(unit: Any, inline: InlineVerbs, write: Any) -> Any:
        read = inline.read and escaping(inline.read)
        return plain(unit, replace(inline, read=read), escaping(write))

    with mock.patch.object(fast_path, "_plain", unguarded), a_dead_pump_is_told_to_nobody():
        yield


@contextmanager
def a_thread_that_cannot_start_ends_the_pump() -> Iterator[None]:
    """That a thread for a verb cannot be started is not expected, and a dead pump is told to nobody."""
    start = Workers._start

    def unguarded(workers: Workers[Any]) -> None:
        try:
            start(workers)
        except OSError as error:
            raise Escaped from error

    with mock.patch.object(Workers, "_start", unguarded), a_dead_pump_is_told_to_nobody():
        yield


@contextmanager
def a_dead_pump_is_told_to_nobody() -> Iterator[None]:
    """The thread that serves all LUNs ends with an exception, and its process lives on."""
    with mock.patch.dict(Pump.__init__.__kwdefaults__, died=lambda _name, _error: None):
        yield


@contextmanager
def compare_and_write_overlaps_other_commands() -> Iterator[None]:
    """A COMPARE AND WRITE begins while others are under way, and they while it is."""
    take = Task.of

    def overlapping(*command: Any) -> Task:
        task = take(*command)
        task.exclusive = False
        return task

    with mock.patch.object(Task, "of", overlapping):
        yield


@contextmanager
def a_failed_last_flush_is_only_logged() -> Iterator[None]:
    """An engine that hands over cannot flush, and the next one does not know."""
    with mock.patch.object(FlushRecord, "load", return_value=None):
        yield


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "fault", "plan", "message"),
    [
        ("file", a_dead_pump_is_told_to_nobody, lambda _seed: None, "hangs"),
        ("file", an_exception_of_an_inline_verb_ends_the_pump, NoMemoryForReads, "hangs"),
        ("file", a_thread_that_cannot_start_ends_the_pump, NoThreads, "hangs"),
        ("file", compare_and_write_overlaps_other_commands, lambda _seed: None, "COMPARE AND WRITE"),
        ("cow", a_failed_last_flush_is_only_logged, FailingSyncs, "sector"),
    ],
)
def test_a_fault_that_is_put_back_is_found(
    root: Path, name: str, fault: Callable[[], Any], plan: Callable[[int], Plan | None], message: str
) -> None:
    lane = Handovers(LAYERS[name], root)
    for seed in range(MOST):
        with fault():
            found = lane.play(seed, plan(seed)).message
        if message in found and not lane.play(seed, plan(seed)).message:
            return
    pytest.fail(f"none of {MOST} histories has found it")
