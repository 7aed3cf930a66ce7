"""The exhaustive lane: every call of a short script fails once, in every way that it can fail.

For each layer the script is run once to count its system calls. Then, for every call and every
fault that this kind of call can have, it is run again on fresh media with that one fault. The run
ends by closing the disk, by ``kill -9``, and by a power cut; then a new process opens the disk and
everything promised has to be there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.sim.faults import DEATHS, FAULTS, Fault, OneFault
from tests.sim.runs import Lane, broken_promise, run, send

ENDS: Final = ("close", "kill", "power")


@dataclass(frozen=True)
class Point:
    """One fault of one run.

    Attributes:
        fault: The kind of fault, and the call that it strikes.
        end: How the run ends: ``close``, ``kill`` or ``power``.
    """

    fault: Fault
    end: str

    def __str__(self) -> str:
        """Name it as the command line takes it."""
        return f"{self.fault}:{self.end}"


@dataclass(frozen=True)
class Finding:
    """A broken promise.

    Attributes:
        layer: The layer that has broken it.
        point: The fault point that brought it about.
        struck: The call that failed, as ``kind path``.
        message: The wrong result.
    """

    layer: str
    point: str
    struck: str
    message: str


class _Counting:
    """A plan that fails nothing and notes the kind of every call."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def strike(self, number: int, kind: str, path: str) -> str:
        self.kinds.append(kind)
        return ""


class Exhaustive(Lane):
    """All single faults of one layer."""

    def points(self) -> list[Point]:
        """Return every fault point of the layer's script."""
        kinds = self._count()
        found = []
        for number, kind in enumerate(kinds):
            found += [Point(Fault(number, how), how) for how in DEATHS]
            for place, how in enumerate(FAULTS[kind]):
                ends = ENDS if self.layer.every_end else (ENDS[(number + place) % len(ENDS)],)
                found += [Point(Fault(number, how), end) for end in ends]
        return found

    def _count(self) -> list[str]:
        counting = _Counting()
        with run(self.layer, self.template, self.root, 0) as machine:
            machine.live(send(self.layer.script), counting)
            machine.judge()
        return counting.kinds

    def strike(self, point: Point, trace: list[str] | None = None) -> Finding | None:
        """Run the script with one fault; return what is wrong then, None if nothing is."""
        plan = OneFault(point.fault)

        def body() -> None:
            with run(self.layer, self.template, self.root, point.fault.number) as machine:
                machine.world.calls.trace = trace
                machine.live(send(self.layer.script), plan, leave_open=point.end != "close")
                if point.end == "power" and point.fault.how != "power":
                    machine.history.cut_power()
                    machine.world.cut_power()
                machine.judge()

        message = broken_promise(body)
        return Finding(self.layer.name, str(point), plan.struck, message) if message else None

    def all(self) -> Iterator[tuple[Point, Finding | None]]:
        """Strike every point."""
        for point in self.points():
            yield point, self.strike(point)


def parse_point(text: str) -> Point:
    """Read the text of `Point.__str__`.

    Raises:
        ValueError: It is no point.
    """
    fault, end = text.split(":")
    how, number = fault.split("@")
    if end not in ENDS:
        raise ValueError(text)
    return Point(Fault(int(number), how), end)
