"""The random lane: histories of several initiators, many faults and several lives, one for each seed.

A history is a list of lives. In each, initiators send overlapping requests while calls fail, until
the disk is closed, the process is killed or the power is cut. Between lives a medium may be replaced
(`media`). At the end, without a fault, all that was promised is there.

A history that breaks a promise is run again with fewer and fewer of its faults, until none of them
can be left out.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.sim.faults import Fault, ListedFaults, Plan, RandomFaults
from tests.sim.initiator import Initiator, random_steps
from tests.sim.layers import OLDER, SECTORS
from tests.sim.media import Shelf
from tests.sim.runs import Lane, RefusedError, Run, broken_promise, run
from tests.sim.scheduler import Thread

_FAULT_RATES: Final = (0.0, 0.002, 0.01, 0.05)
_DEATH_RATES: Final = (0.0, 0.0, 0.001, 0.005)
_SWITCHES: Final = (0.0, 0.02, 0.2, 0.5)
_STAYS: Final = 0.6
"""Probability that all media stay as they are, in a life and after it."""
_AFTER: Final = (0.0001, 0.001, 0.1, 3.0, 8.0, 30.0)
"""Seconds after which they may change in a life."""
_SHRINKING: Final = 200
"""Runs at most to make a history shorter."""


@dataclass
class Outcome:
    """A history that was run.

    Attributes:
        layer: The disk's kind.
        seed: Of the history.
        message: The promise that was broken, empty if none was.
        faults: The faults that were injected, or those that are needed for the promise to break.
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


class Histories(Lane):
    """Random histories of one layer."""

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
            outcome.message = broken_promise(partial(_lead, machine, luck, outcome, only))
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


def _lead(machine: Run, luck: random.Random, outcome: Outcome, only: Iterable[Fault] | None) -> None:
    """Lead some lives of the disk, replace media between them, and judge it in the end."""
    shelf = Shelf(machine)
    shelf.copy()
    for _ in range(luck.randrange(1, 5)):
        if _live(shelf, luck, outcome, only):
            shelf.copy()
        change_media(shelf, luck)
    judge(shelf)


def _live(shelf: Shelf, luck: random.Random, outcome: Outcome, only: Iterable[Fault] | None) -> bool:
    """Lead one life of the disk, with faults, and note them; return whether it was closed in good order."""
    machine, later = shelf.machine, random.Random(luck.random())
    plan = RandomFaults(random.Random(luck.random()), luck.choice(_FAULT_RATES), luck.choice(_DEATH_RATES))
    listed: Plan = plan if only is None else ListedFaults(only)
    count, layer = luck.randrange(1, 4), machine.layer
    verbs = layer.verbs if count > 1 else (*layer.verbs, *layer.alone)
    scripts = [random_steps(luck, SECTORS, luck.randrange(3, 25), verbs) for _ in range(count)]
    leave_open, cut = luck.random() < 0.5, luck.random() < 0.5

    def exchange() -> None:
        machine.world.scheduler.wait(lambda: False, later.choice(_AFTER))
        change_media(shelf, later, is_open=True)

    def work(initiator: Initiator) -> None:
        has_legs = any(medium.is_a_leg for medium in layer.media)
        others = [_start(machine, exchange, "exchange")] if has_legs else []
        others += [_start(machine, partial(initiator.send, script), "initiator") for script in scripts[1:]]
        initiator.send(scripts[0])
        for other in others:
            other.join()

    noted = len(machine.notes)
    try:
        life = machine.live(work, listed, leave_open=leave_open)
        if life.died and leave_open and cut:
            machine.history.cut_power()
            machine.world.cut_power()
    finally:
        outcome.faults += [fault for fault, _ in plan.injected]
        outcome.kinds.update(f"{kind} {fault.how}" for fault, kind in plan.injected)
    return life.ended and len(machine.notes) == noted


def change_media(shelf: Shelf, luck: random.Random, *, is_open: bool = False) -> None:
    """Replace a medium at times, or put it back.

    One that the disk can do without stays away for some time. It is the same for all of a history: the
    disk may need the substitute later, as that has become a part of it. None is replaced while another one
    is behind its copies.

    Args:
        shelf: The media.
        luck: Says which.
        is_open: The disk is in use, so only what it can do without is touched.
    """
    media = shelf.machine.layer.media if shelf.medium is None else (shelf.medium,)
    chosen = [medium for medium in media if medium.is_a_leg or not is_open]
    if not chosen or luck.random() < _STAYS:
        return
    if shelf.medium is not None:
        shelf.change_places()
        return
    if shelf.is_behind:
        return
    medium = luck.choice(chosen)
    kind = luck.choice(medium.kinds)
    copy = luck.choice(shelf.copies[medium.name]) if kind == OLDER else None
    shelf.exchange(medium, kind, copy)
    if not medium.is_a_leg:
        shelf.look(copy)
        shelf.change_places()
        shelf.throw_away()


def judge(shelf: Shelf) -> None:
    """Judge the disk, with the substitute or with the original in place if it is refused with the other one.

    Raises:
        BrokenPromiseError, HistoryError: It breaks a promise, or is refused with both.
    """
    try:
        shelf.machine.judge()
    except RefusedError:
        if shelf.medium is None:
            raise
        shelf.change_places()
        shelf.machine.judge()


def _start(machine: Run, body: Callable[[], object], name: str) -> Thread:
    thread = Thread(machine.world.scheduler, body, name)
    thread.begin()
    return thread
