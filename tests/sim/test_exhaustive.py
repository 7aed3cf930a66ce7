"""Every call of a short script fails in every way, for each layer; nothing promised is lost."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.exhaustive import Exhaustive, parse_point
from tests.sim.histories import Histories
from tests.sim.initiator import Step
from tests.sim.layers import LAYERS, SECTORS

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things

FIXED_SEEDS = range(40)
LEGS_SCRIPT = (
    Step("write", 3, 2),
    Step("add_leg", argument="c"),
    Step("write", 120, 24),
    Step("wait", count=6),
    Step("remove_leg", argument="a"),
    Step("write_fua", 130, 3),
    Step("read", 0, SECTORS),
)
NEW_SEEDS = 5
"""Histories that no run has played before, for each layer."""


@LONG
@pytest.mark.parametrize("name", LAYERS)
def test_every_call_may_fail_once(name: str, root: Path) -> None:
    lane = Exhaustive(LAYERS[name], root)
    findings = [finding for _, finding in lane.all() if finding is not None]
    shown = [
        f"./dev sim --point {each.point} --trace {name}: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])


@LONG
def test_every_call_may_fail_once_while_legs_come_and_go(root: Path) -> None:
    lane = Exhaustive(replace(LAYERS["mirror"], script=LEGS_SCRIPT, every_end=False), root)
    points = lane.points()[::2]  # every call, and half of its faults
    findings = [finding for point in points if (finding := lane.strike(point)) is not None]
    assert not findings, "\n".join(f"{each.point}: {each.struck}: {each.message}" for each in findings[:5])


@LONG
@pytest.mark.parametrize("name", LAYERS)
def test_random_histories_keep_every_promise(name: str, root: Path) -> None:
    lane = Histories(LAYERS[name], root)
    new = random.SystemRandom().randrange(1 << 40)
    fixed = FIXED_SEEDS[:10] if name == "luks1" else FIXED_SEEDS
    for seed in (*fixed, *range(new, new + NEW_SEEDS)):
        outcome = lane.play(seed)
        assert not outcome.message, f"./dev sim --seed {seed} --trace {name}: {outcome.message}"


def test_one_seed_is_one_history(root: Path) -> None:
    lane = Histories(LAYERS["cow"], root)
    for seed in range(5):
        assert lane.play(seed, trace=True).trace == lane.play(seed, trace=True).trace


def test_a_point_is_read_as_it_is_printed() -> None:
    for text in ("EIO@12:power", "kill@0:kill", "short@3:close"):
        assert str(parse_point(text)) == text
