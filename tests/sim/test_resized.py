"""Disks are resized while calls fail and processes die: nothing promised is lost."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.exhaustive import Exhaustive
from tests.sim.histories import Histories
from tests.sim.resized import RESIZED

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things

FIXED_SEEDS = range(12)
NEW_SEEDS = 4
"""Histories that no run has played before, for each disk."""
POINTS = 60
"""Fault points of each disk, other ones in every run; ``./dev sim --lane exhaustive`` has them all."""


@LONG
@pytest.mark.parametrize("name", RESIZED)
def test_random_histories_of_disks_that_are_resized(name: str, root: Path) -> None:
    lane = Histories(RESIZED[name], root)
    new = random.SystemRandom().randrange(1 << 40)
    for seed in (*FIXED_SEEDS, *range(new, new + NEW_SEEDS)):
        outcome = lane.play(seed)
        assert not outcome.message, f"./dev sim --seed {seed} --trace {name}: {outcome.message}"


@LONG
@pytest.mark.parametrize("name", RESIZED)
def test_calls_fail_while_a_disk_is_resized(name: str, root: Path) -> None:
    lane = Exhaustive(replace(RESIZED[name], every_end=False), root)
    points = random.SystemRandom().sample(lane.points(), POINTS)
    findings = [finding for point in points if (finding := lane.strike(point)) is not None]
    shown = [
        f"./dev sim --point {each.point} --trace {name}: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])
