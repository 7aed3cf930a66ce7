"""Every call of the service fails in every way, or ends it: what was acknowledged is in force, as a whole."""

from pathlib import Path

import pytest

from tests.sim.service import ServiceLane
from tests.sim.service_scripts import SCRIPTS

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things


@LONG
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_call_of_the_service_may_fail_once(name: str, root: Path) -> None:
    lane = ServiceLane(SCRIPTS[name], root)
    findings = [finding for _, finding in lane.all() if finding is not None]
    shown = [
        f"./dev sim --point {each.point} --trace {name}: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])


def test_the_faults_reach_engines_and_files(root: Path) -> None:
    lane = ServiceLane(SCRIPTS["service-change"], root)
    kinds = set(lane.kinds.values())
    assert kinds >= {"request", "start", "end", "find", "open", "write", "sync", "sync_directory", "rename"}
