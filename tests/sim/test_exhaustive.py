"""Every call of a short script fails in every way, for each layer; nothing promised is lost."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.exhaustive import ENDS, Call, Counting, Exhaustive, all_points, parse_point, sample
from tests.sim.faults import FAULTS
from tests.sim.histories import Histories
from tests.sim.initiator import Step
from tests.sim.layers import LAYERS, SECTORS
from tests.sim.remote import REMOTE

LONG = pytest.mark.timeout(900)  # on a machine that is busy with other things

DISKS = {**LAYERS, **REMOTE}
SHARES = {"snapshot": 2, "nbd": 4}
"""Of the faults of a call, how many parts there are of which one is struck: of a script with many calls."""
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
@pytest.mark.parametrize("name", DISKS)
def test_every_call_may_fail_once(name: str, root: Path) -> None:
    lane = Exhaustive(DISKS[name], root)
    findings = [
        finding for point in lane.sample(SHARES.get(name, 1)) if (finding := lane.strike(point)) is not None
    ]
    shown = [
        f"./dev sim --point {each.point} --trace {name}: {each.struck}: {each.message}" for each in findings
    ]
    assert not findings, "\n".join(shown[:5])


@LONG
def test_every_call_may_fail_once_while_legs_come_and_go(root: Path) -> None:
    lane = Exhaustive(replace(LAYERS["mirror"], script=LEGS_SCRIPT, every_end=False), root)
    findings = [finding for point in lane.sample(4) if (finding := lane.strike(point)) is not None]
    assert not findings, "\n".join(f"{each.point}: {each.struck}: {each.message}" for each in findings[:5])


@LONG
@pytest.mark.parametrize("name", DISKS)
def test_random_histories_keep_every_promise(name: str, root: Path) -> None:
    lane = Histories(DISKS[name], root)
    new = random.SystemRandom().randrange(1 << 40)
    fixed = FIXED_SEEDS[:10] if name.startswith("luks") else FIXED_SEEDS
    for seed in (*fixed, *range(new, new + NEW_SEEDS)):
        outcome = lane.play(seed)
        assert not outcome.message, f"./dev sim --seed {seed} --trace {name}: {outcome.message}"


def test_a_sample_has_every_fault_of_each_kind_of_call_with_every_end() -> None:
    calls = [Call(number, kind, is_new=False) for number, kind in enumerate(["write", "sync"] * 30)]
    for share in (1, 2, 3):
        points = sample(calls, FAULTS, share)
        kinds = {(calls[point.fault.number].kind, point.fault.how, point.end) for point in points}
        assert kinds == {
            (kind, how, end) for kind in ("write", "sync") for how in FAULTS[kind] for end in ENDS
        }
        assert {point.fault.number for point in points} == set(range(60))
        assert abs(len(points) - len(all_points(calls, FAULTS, every_end=False)) / share) <= 30


def test_a_death_is_left_out_where_nothing_has_changed_since_the_call_before() -> None:
    promised = iter([0, 0, 0, 1, 1, 1])
    counting = Counting(lambda: next(promised))
    for number, kind in enumerate(["read", "stat", "read", "read", "write", "read"]):
        counting.strike(number, kind, "")
    deaths = [
        point.fault.number
        for point in all_points(counting.calls, FAULTS, every_end=True)
        if point.fault.how == "kill"
    ]
    assert deaths == [0, 3, 5], "the first one, one after a promise, and one after a write"


def test_one_seed_is_one_history(root: Path) -> None:
    lane = Histories(LAYERS["cow"], root)
    for seed in range(5):
        assert lane.play(seed, trace=True).trace == lane.play(seed, trace=True).trace


def test_a_point_is_read_as_it_is_printed() -> None:
    for text in ("EIO@12:power", "kill@0:kill", "short@3:close"):
        assert str(parse_point(text)) == text
