"""The random lane: histories of several initiators, many faults and several lives, one for each seed.

A history is a list of lives. In each, initiators send overlapping requests while calls fail, until
the disk is closed, the process is killed or the power is cut. Between lives a disk whose media have
a substitute may lose one of them. At the end, without a fault, all that was promised is there.

A history that breaks a promise is run again with fewer and fewer of its faults, until none of them
can be left out.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tests.sim.faults import Fault, ListedFaults, Plan, RandomFaults
from tests.sim.history import HistoryError
from tests.sim.initiator import Initiator, random_steps
from tests.sim.layers import SECTORS, Layer
from tests.sim.runs import BrokenPromiseError, Run, Template, make_template, run
from tests.sim.scheduler import StuckError, Thread

_FAULT_RATES: Final = (0.0, 0.002, 0.01, 0.05)
_DEATH_RATES: Final = (0.0, 0.0, 0.001, 0.005)
_SWITCHES: Final = (0.0, 0.02, 0.2, 0.5)
_SHRINKING: Final = 200
"""Runs at most to make a history shorter."""


@dataclass
class Outcome:
    """A history that was run.

    Attributes:
        layer: The disk's kind.
        seed: Of the history.
        message: The promise that was broken, empty if none was.
        faults: What was injected, or what is needed for the promise to break.
        kinds: How many faults of each kind of call and error there were.
        requests: How many were sent.
        failed: How many of them were answered with an error.
        seconds: Virtual time that went by.
        trace: Every system call, if that was asked for.
    """

    layer: str
    seed: int
    message: str = ""
    faults: list[Fault] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    trace: list[str] = field(default_factory=list)


class Histories:
    """Random histories of one layer.

    Args:
        layer: The disk.
        root: An empty directory on a tmpfs.
    """

    def __init__(self, layer: Layer, root: Path) -> None:
        self.layer = layer
        self.root = root
        self.template: Template = make_template(layer, root)

    def play(self, seed: int, *, only: Iterable[Fault] | None = None, trace: bool = False) -> Outcome:
        """Run the history of a seed.

        Args:
            seed: Says everything.
            only: The faults to inject, instead of those that the seed says.
            trace: Keep a line for each system call.
        """
        luck = random.Random(seed)
        outcome = Outcome(self.layer.name, seed)
        with run(self.layer, self.template, self.root, seed, switch=luck.choice(_SWITCHES)) as machine:
            started = machine.world.scheduler.now
            machine.world.calls.trace = outcome.trace if trace else None
            try:
                for _ in range(luck.randrange(1, 5)):
                    _live(machine, luck, outcome, only)
                machine.judge()
            except (BrokenPromiseError, HistoryError, StuckError, AssertionError) as error:
                outcome.message = f"{type(error).__name__}: {error}"
            outcome.requests, outcome.failed = machine.sent, machine.failed
            outcome.seconds = machine.world.scheduler.now - started
        return outcome

    def shrink(self, found: Outcome) -> Outcome:
        """Return the history with as few faults as still break a promise."""
        faults, best, runs, step = list(found.faults), found, 0, max(1, len(found.faults) // 2)
        while step and runs < _SHRINKING:
            at = 0
            while at < len(faults) and runs < _SHRINKING:
                runs += 1
                fewer = faults[:at] + faults[at + step :]
                again = self.play(found.seed, only=fewer)
                if again.message:
                    faults, best = fewer, again
                else:
                    at += step
            step //= 2
        best.faults = faults
        return best


def _live(machine: Run, luck: random.Random, outcome: Outcome, only: Iterable[Fault] | None) -> None:
    """Lead one life of the disk, with faults, and note them."""
    plan = RandomFaults(random.Random(luck.random()), luck.choice(_FAULT_RATES), luck.choice(_DEATH_RATES))
    listed: Plan = plan if only is None else ListedFaults(only)
    scripts = [
        random_steps(luck, SECTORS, luck.randrange(3, 25), machine.layer.verbs)
        for _ in range(luck.randrange(1, 4))
    ]
    leave_open, cut = luck.random() < 0.5, luck.random() < 0.5

    def work(initiator: Initiator) -> None:
        others = [_start(machine, partial(initiator.send, script)) for script in scripts[1:]]
        initiator.send(scripts[0])
        for other in others:
            other.join()

    try:
        life = machine.live(work, listed, leave_open=leave_open)
        if life.died and leave_open and cut:
            machine.history.cut_power()
            machine.world.cut_power()
    finally:
        outcome.faults += [fault for fault, _ in plan.injected]
        outcome.kinds.update(f"{kind} {fault.how}" for fault, kind in plan.injected)


def _start(machine: Run, body: Callable[[], object]) -> Thread:
    thread = Thread(machine.world.scheduler, body, "initiator")
    thread.begin()
    return thread
