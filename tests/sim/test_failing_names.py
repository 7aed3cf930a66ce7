"""Sets of snapshots keep every promise though the names in a directory do not reach stable storage.

Random histories seldom strike a rename and the two syncs after it, so here these calls fail most of the time.
"""

from pathlib import Path
from random import Random

import pytest

from tests.sim.faults import KILL, POWER
from tests.sim.initiator import random_steps
from tests.sim.layers import LAYERS, SECTORS
from tests.sim.runs import Run, broken_promise, make_template, run, send

SEEDS = (103, 294, 504, 584, 649, 711, *range(90))
VERBS = ("write", "write", "write_fua", "read", "flush", "flush", "take", "take", "roll_back", "delete")


class FailingNames:
    """A plan in which directories cannot be synced, and files not renamed, for a while; a process may die."""

    def __init__(self, luck: Random) -> None:
        self._luck = luck
        self._failing = luck.random() < 0.5
        self._renames, self._deaths = luck.choice((0.0, 0.5)), luck.choice((0.0, 0.002))

    def strike(self, number: int, kind: str, path: str) -> str:
        if self._luck.random() < self._deaths:
            return self._luck.choice((KILL, POWER))
        if kind == "sync_directory" and self._luck.random() < 0.2:
            self._failing = not self._failing
        fails = {"sync_directory": 0.9, "rename": self._renames}.get(kind, 0.0)
        return "EIO" if self._failing and self._luck.random() < fails else ""


def lead(machine: Run, luck: Random) -> None:
    """Let the disk be used by some processes, each killed or followed by a power cut; then judge it."""
    for _ in range(luck.randrange(1, 4)):
        steps = random_steps(luck, SECTORS, luck.randrange(4, 16), VERBS)
        machine.live(send(steps), FailingNames(luck), leave_open=True)
        if luck.random() < 0.8:
            machine.history.cut_power()
            machine.world.cut_power()
    machine.judge()


@pytest.mark.timeout(900)
def test_a_set_of_snapshots_keeps_every_promise_though_its_names_are_not_safe(root: Path) -> None:
    layer = LAYERS["snapshot"]
    template = make_template(layer, root)
    for seed in SEEDS:
        with run(layer, template, root, seed) as machine:
            message = broken_promise(lambda: lead(machine, Random(seed)))  # noqa: B023 - called at once
        assert not message, f"seed {seed}: {message}"
