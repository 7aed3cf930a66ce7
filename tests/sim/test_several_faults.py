"""Several calls of one request fail."""

from dataclasses import replace
from pathlib import Path

from tests.sim.initiator import Step
from tests.sim.layers import LAYERS
from tests.sim.resized import RESIZED
from tests.sim.several_faults import SCRIPTS, SeveralFaults


def test_a_disk_becomes_smaller_while_a_call_fails(root: Path) -> None:
    lane = SeveralFaults(replace(RESIZED["cow-resized"], script=SCRIPTS[0]), root)
    assert list(lane.findings(1)) == []
    assert lane.runs > 50


def test_every_set_of_faults_is_struck(root: Path) -> None:
    lane = SeveralFaults(replace(LAYERS["file"], script=(Step("write", 0, 8), Step("flush"))), root)
    assert list(lane.findings(3)) == []
    assert lane.runs == 3 * 3, "no fault, and two of its only call, with three ends"
