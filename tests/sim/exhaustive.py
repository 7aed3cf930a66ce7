"""The exhaustive lane: every call of a short script fails once, in every way that it can fail.

For each layer the script is run once to count its system calls. Then, for every call and every
fault that this kind of call can have, it is run again on fresh media with that one fault. The run
ends by closing the disk, by ``kill -9``, and by a power cut; then a new process opens the disk and
everything promised has to be there.

`all_points` says which faults there are, `sample` which of them are struck in every run of the tests.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.sim.calls import QUIET
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


@dataclass(frozen=True)
class Call:
    """One call of a script.

    Attributes:
        number: Counted from 0.
        kind: As `FAULTS` names it.
        is_new: Something has changed since the call before: a file, or what was promised. If nothing has, a
            death leaves the same as one at the call before.
    """

    number: int
    kind: str
    is_new: bool


class Counting:
    """A plan that fails nothing and notes every call.

    Args:
        promised: Returns what was promised until now; compared from call to call.
    """

    def __init__(self, promised: Callable[[], object]) -> None:
        self.calls: list[Call] = []
        self._promised = promised
        self._last: object = None

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return that the call succeeds."""
        promised = self._promised()
        is_new = not self.calls or self.calls[-1].kind not in QUIET or promised != self._last
        self._last = promised
        self.calls.append(Call(number, kind, is_new))
        return ""


def all_points(
    calls: Iterable[Call], faults: Mapping[str, tuple[str, ...]], *, every_end: bool
) -> list[Point]:
    """Return every fault point of some calls, with every end of the run, or one of them in turn."""
    found = []
    for call in calls:
        if call.is_new:
            found += [Point(Fault(call.number, how), how) for how in DEATHS]
        for place, how in enumerate(faults[call.kind]):
            ends = ENDS if every_end else (ENDS[(call.number + place) % len(ENDS)],)
            found += [Point(Fault(call.number, how), end) for end in ends]
    return found


def sample(calls: Iterable[Call], faults: Mapping[str, tuple[str, ...]], share: int) -> list[Point]:
    """Return the fault points that every run of the tests strikes.

    These are all deaths, and for every call each `share`-th of its faults, in turn, so that every kind of
    call has each of its faults, and each of these every end.
    """
    found, seen = [], Counter[str]()
    for call in calls:
        if call.is_new:
            found += [Point(Fault(call.number, how), how) for how in DEATHS]
        turn = seen[call.kind]
        seen[call.kind] += 1
        for place, how in enumerate(faults[call.kind]):
            if (turn + place) % share == 0:
                found.append(Point(Fault(call.number, how), ENDS[(turn + place) // share % len(ENDS)]))
    return found


class Exhaustive(Lane):
    """All single faults of one layer."""

    def points(self) -> list[Point]:
        """Return every fault point of the layer's script."""
        return all_points(self._calls(), FAULTS, every_end=self.layer.every_end)

    def sample(self, share: int = 1) -> list[Point]:
        """Return those that every run of the tests strikes; see the function of this name."""
        return sample(self._calls(), FAULTS, share)

    def _calls(self) -> list[Call]:
        with run(self.layer, self.template, self.root, 0) as machine:
            counting = Counting(lambda: machine.history.time)
            machine.live(send(self.layer.script), counting)
            machine.judge()
        return counting.calls

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
