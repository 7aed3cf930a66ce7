"""Engines die and hand a LUN over while initiators send: nothing acknowledged is lost, nothing hangs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from tests.sim.engines import Handovers
from tests.sim.faults import Plan
from tests.sim.layers import LAYERS
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.serving.pump import Pump

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


@contextmanager
def a_dead_pump_is_told_to_nobody() -> Iterator[None]:
    """The thread that serves all LUNs ends with an exception, and its process lives on."""
    with mock.patch.dict(Pump.__init__.__kwdefaults__, died=lambda _name, _error: None):
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
