"""Every call of the service fails in every way, or ends it: what was acknowledged is in force, as a whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.sim.service import ServiceLane
from tests.sim.service_scripts import SCRIPTS
from vscsihba.config.model import Document
from vscsihba.daemon.engine_pool import EngineHandle
from vscsihba.daemon.hba_engines import HbaEngines
from vscsihba.daemon.state import RecordError, State
from vscsihba.engine.owning.lun_spec import LunSpec

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things


@LONG
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_call_of_the_service_may_fail_once(name: str, root: Path) -> None:
    lane = ServiceLane(SCRIPTS[name], root)
    findings = [finding for point in lane.sample() if (finding := lane.strike(point)) is not None]
    shown = [
        f"./dev sim --point {each.point} --trace {name}: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])


def test_the_faults_reach_engines_and_files(root: Path) -> None:
    lane = ServiceLane(SCRIPTS["service-change"], root)
    kinds = {call.kind for call in lane.calls}
    assert kinds >= {"request", "start", "end", "find", "open", "write", "sync", "sync_directory", "rename"}


@contextmanager
def one_engine_that_has_a_lun_is_enough() -> Iterator[None]:
    """A failure to add a LUN is forgotten as soon as another engine has it."""
    serve = HbaEngines._serve

    def forget(self: HbaEngines, engine: EngineHandle, spec: LunSpec) -> bool:
        served = serve(self, engine, spec)
        if served:
            self.failures.pop(spec.lun, None)
        return served

    with mock.patch.object(HbaEngines, "_serve", forget):
        yield


@contextmanager
def a_record_that_cannot_be_read_counts_as_missing() -> Iterator[None]:
    """The record of an unfinished change is taken for missing where it cannot be read."""
    unfinished = State.unfinished

    def forgive(self: State) -> tuple[Document, Document] | None:
        with suppress(RecordError):
            return unfinished(self)
        return None

    with mock.patch.object(State, "unfinished", forgive):
        yield


@pytest.mark.parametrize(
    ("name", "how", "fault"),
    [
        ("service-mistyped", "refused", one_engine_that_has_a_lun_is_enough),
        ("service-cut-7", "EIO", a_record_that_cannot_be_read_counts_as_missing),
    ],
)
def test_a_fault_that_is_put_back_is_found(root: Path, name: str, how: str, fault: Callable[[], Any]) -> None:
    lane = ServiceLane(SCRIPTS[name], root)
    points = [point for point in lane.points() if point.fault.how == how]
    with fault():
        assert any(lane.strike(point) is not None for point in points)
