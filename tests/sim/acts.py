"""Something that is done once to a few files: every call of it fails in every way, and everything ends.

For changes that are no requests to a disk: media are made, administrators give commands, logs are written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sim.exhaustive import Counting, Point, sample
from tests.sim.faults import DEATHS, FAULTS, OneFault, Plan
from tests.sim.initiator import FAILURES
from tests.sim.world import World

Tree = dict[str, bytes | None]
"""Files by path, as `Storage.put` takes them."""


@dataclass(frozen=True)
class Done:
    """One time that it was done, with one fault.

    Attributes:
        point: The fault, and the end.
        struck: The call that failed.
        is_done: It has returned; None if the fault ended it, so that this is not known.
    """

    point: Point
    struck: str
    is_done: bool | None

    def __str__(self) -> str:
        """Name it for messages."""
        return f"{self.point} ({self.struck})"


def each_fault(root: Path, tree: Tree, act: Callable[[], None]) -> Iterator[Done]:
    """Do something with each fault in turn; the files are what is left then.

    Args:
        root: An empty directory on a tmpfs.
        tree: The files before.
        act: The code under test; run in a process of its own, which then closes, is killed or loses power.
    """
    counting = Counting(lambda: None)
    assert _do(root, tree, counting, act, power=False, seed=0), "it fails without a fault"
    for point in sample(counting.calls, FAULTS, 1):
        plan = OneFault(point.fault)
        is_done = _do(root, tree, plan, act, power=point.end == "power", seed=point.fault.number)
        yield Done(point, plan.struck, None if point.fault.how in DEATHS else is_done)


def _do(root: Path, tree: Tree, plan: Plan, act: Callable[[], None], *, power: bool, seed: int) -> bool:
    done: list[bool] = []

    def body() -> None:
        try:
            act()
            done.append(True)
        except FAILURES:
            pass

    with World(root, seed, tree) as world:
        with world.faults(plan):
            life = world.start(body)
            life.wait()
        if power or world.power_is_cut:
            world.cut_power()
    assert life.error is None, life.error
    return bool(done)
