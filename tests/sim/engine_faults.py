"""The exhaustive lane of the engine: one LUN, two engines one after the other, and one fault at any call.

Beside the disk, an engine keeps the note of the LUN, the record of a failed flush and the journal of the ring
in the run directory, and saved mode pages on storage. The initiator writes, flushes, saves a mode page and
compares and writes while the first engine hands over to the second one, and the disk is enlarged. Then
the last engine gives the LUN up, is killed, or loses power with the whole machine, and another one
serves what was acknowledged.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.sim.calls import patched
from tests.sim.engines import LONGEST, Engines, bury, patches
from tests.sim.exhaustive import Call, Counting, Finding, Point, all_points, sample
from tests.sim.faults import FAULTS, KILL, Fault, NoFaults, OneFault, Plan
from tests.sim.initiator import Step
from tests.sim.layers import SECTORS
from tests.sim.runs import BrokenPromiseError, Lane, broken_promise, run
from tests.sim.world import Life
from vscsihba.tcmu.record import FIRST, LINKS, SIZE, STATES

_FIRST: Final = (
    Step("write", 3, 2),
    Step("select", count=1),
    Step("flush"),
    Step("write", 120, 24),
    Step("swap", 0),
    Step("write_fua", 130, 3),
)
_SECOND: Final = (
    Step("write", 9, 1),
    Step("wait", count=30),
    Step("resize", count=SECTORS + 16),
    Step("wait", count=1),
    Step("select", count=0),
    Step("write", 130, 3),
    Step("flush"),
    Step("read", 0, 160),
    Step("write", 3, 1),
    Step("resize", count=SECTORS + 32),
    Step("wait", count=1),
)
PAGE: Final = 4096
_GARBAGE: Final = bytes(range(1, 129)) * (PAGE // 256)
Damage = Callable[[Path], None]
"""Damages the journal of a process that has died."""


class EngineLane(Lane):
    """All single faults of the engine's script on one disk."""

    def points(self) -> list[Point]:
        """Return every fault point."""
        return all_points(self._calls(), FAULTS, every_end=False)

    def sample(self, share: int = 1) -> list[Point]:
        """Return those that every run of the tests strikes."""
        return sample(self._calls(), FAULTS, share)

    def deaths_under_way(self) -> list[Point]:
        """Return deaths at calls for which a command waits: what changes the disk, and what is answered."""
        calls = [call for call in self._calls() if call.kind in ("write", "sync", "poll", "read")]
        return [Point(Fault(call.number, KILL), KILL) for call in calls]

    def _calls(self) -> list[Call]:
        ticks = iter(range(1 << 30))
        counting = Counting(lambda: next(ticks))  # the journal changes without a call
        with self._machine(0) as engines:
            _play(engines, counting, "close")
        return counting.calls

    def strike(
        self, point: Point, trace: list[str] | None = None, *, damage: Damage | None = None
    ) -> Finding | None:
        """Run the script with one fault; return what is wrong then, None if nothing is.

        Args:
            point: The fault and the end.
            trace: Gets a line for each call, command and answer.
            damage: Called when an engine has died, before the next one is started.
        """
        plan = OneFault(point.fault)

        def body() -> None:
            with self._machine(point.fault.number) as engines:
                engines.world.calls.trace = trace
                _play(engines, plan, point.end, damage)
                _judge(engines)

        message = broken_promise(body)
        return Finding("engine", str(point), plan.struck, message) if message else None

    @contextmanager
    def _machine(self, seed: int) -> Iterator[Engines]:
        with (
            run(self.layer, self.template, self.root, seed) as machine,
            patched(patches(machine.world)),
        ):
            engines = Engines(machine)
            with engines.in_kernel():
                engines.forget_journal()
                yield engines


def _play(engines: Engines, plan: Plan, end: str, damage: Damage | None = None) -> None:
    """Send the script while calls fail as the plan says, and end the last engine."""
    world = engines.world
    with world.faults(plan):
        serving = [engines.start()]
        lives = [_send(engines, _FIRST, serving, damage)]
        if not world.power_is_cut:
            serving.append(engines.start())
            engines.leave(len(serving) - 2)
            lives.append(_send(engines, _SECOND, serving, damage))
        if not world.power_is_cut and end == "close":
            for number in range(len(serving)):
                engines.leave(number)
            world.scheduler.wait(lambda: _is_over(engines, serving), LONGEST)
    for life in (*serving, *lives):
        if life.error is not None:
            raise BrokenPromiseError(f"{life.process.name}: {life.error!r}") from life.error
        life.end()
    if world.power_is_cut or end == "power":
        engines.cut_power()


def _is_over(engines: Engines, serving: list[Life]) -> bool:
    return engines.world.power_is_cut or all(life.ended or life.process.dead for life in serving)


def _send(engines: Engines, script: tuple[Step, ...], serving: list[Life], damage: Damage | None) -> Life:
    """Send requests, and replace each engine that dies, until the power is cut; return the initiator."""
    world = engines.world
    initiator = world.start(partial(engines.send, list(script)), "initiator")

    def is_over() -> bool:
        return initiator.ended or world.power_is_cut

    while not is_over():
        world.scheduler.wait(lambda: is_over() or serving[-1].ended or serving[-1].process.dead)
        bury(serving)
        if not is_over():
            if damage is not None:
                with world.untouched():
                    damage(world.run / "lun0.journal")
            serving.append(engines.start())
    return initiator


def _judge(engines: Engines) -> None:
    """Let a new engine serve without a fault, and compare everything with what was acknowledged."""
    world = engines.world
    with world.faults(NoFaults()):
        last = engines.start()
        judge = world.start(engines.check_all, "initiator")
        judge.wait(2 * LONGEST)
    last.end()
    if judge.error is not None:
        raise BrokenPromiseError(f"in the end: {judge.error}") from judge.error
    if judge.died:
        raise BrokenPromiseError("in the end: no answer")


# Damage of a journal. The file becomes another one, since the simulated dead still have the old one mapped.


def cut_to(size: int) -> Damage:
    """Return a function that leaves the first bytes of the file."""
    return partial(_replace, change=lambda content: content[:size])


def overwrite(offset: int) -> Damage:
    """Return a function that overwrites half a page of the file from a byte on."""
    end = offset + len(_GARBAGE)
    return partial(_replace, change=lambda content: content[:offset] + _GARBAGE + content[end:])


def _replace(path: Path, change: Callable[[bytes], bytes]) -> None:
    if path.exists():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(change(content))


DAMAGES: Final = (
    *map(cut_to, (0, 44, PAGE, FIRST, SIZE - PAGE)),
    *map(overwrite, (0, 44, 64, STATES, STATES + PAGE, LINKS, FIRST, FIRST + PAGE // 2)),
)
"""A file that is too short, and garbage in header, positions, states, links and records."""
