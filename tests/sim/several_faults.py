"""Several faults in one request: every set of faults of its calls, up to some number of them.

The exhaustive lane strikes one call of a run. Here a run is repeated with one more fault at each later call
that the run with the faults before has made, since a fault changes the calls that follow it. The run
then ends by a close, a kill and a power cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.sim.exhaustive import ENDS, Finding
from tests.sim.faults import MEMORY, SHORT, Fault, ListedFaults
from tests.sim.initiator import Initiator, Step
from tests.sim.runs import Lane, broken_promise, run

FAULTS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "write": ("EIO", "ENOSPC", SHORT, MEMORY),
    "sync": ("EIO", "ENOSPC"),
    "truncate": ("EIO", "ENOSPC"),
    "hole": ("EIO",),
    "read": ("EIO", MEMORY),
    "unlink": ("EIO",),
    "stat": ("EIO",),
}
"""One fault of each consequence that a kind of call can have; kinds that are left out change nothing."""

SCRIPTS: Final = (
    (Step("write", 250, 8), Step("flush"), Step("write", 400, 60), Step("resize", count=300)),
    (Step("write", 295, 8), Step("resize", count=297)),
    (Step("write", 400, 60), Step("resize", count=300), Step("write", 297, 3), Step("resize", count=640)),
)
"""A disk becomes smaller, in the middle of a cluster as well, and larger again."""


@dataclass
class _Noting:
    """A plan of listed faults that notes the calls of one request.

    Attributes:
        faults: The faults.
        calls: Numbers and kinds of the calls of the request.
        is_noting: The request is under way.
    """

    faults: ListedFaults
    calls: list[tuple[int, str]] = field(default_factory=list)
    is_noting: bool = False

    def strike(self, number: int, kind: str, path: str) -> str:
        """Return how a call is to fail."""
        if self.is_noting:
            self.calls.append((number, kind))
        return self.faults.strike(number, kind, path)


class SeveralFaults(Lane):
    """All sets of faults in the last request of a script.

    Attributes:
        runs: How many there were.
    """

    runs = 0

    def findings(self, most: int) -> Iterator[Finding]:
        """Yield a finding for each set of up to `most` faults that breaks a promise."""
        yield from self._after((), most)

    def _after(self, faults: tuple[Fault, ...], left: int) -> Iterator[Finding]:
        calls: list[tuple[int, str]] = []
        for end in ENDS:
            self.runs += 1
            message, calls = self._run(faults, end)
            if message:
                named = ", ".join(map(str, faults))
                yield Finding(self.layer.name, f"{named}:{end}", "several calls", message)
        if left:
            last = faults[-1].number if faults else -1
            for number, kind in calls:
                for how in FAULTS_OF.get(kind, ()) if number > last else ():
                    yield from self._after((*faults, Fault(number, how)), left - 1)

    def _run(self, faults: tuple[Fault, ...], end: str) -> tuple[str, list[tuple[int, str]]]:
        plan = _Noting(ListedFaults(faults))
        *before, last = self.layer.script

        def work(initiator: Initiator) -> None:
            initiator.send(before)
            plan.is_noting = True
            initiator.send([last])
            plan.is_noting = False
            initiator.send([Step("read", 0, initiator.history.sectors)])

        with run(self.layer, self.template, self.root, 1) as machine:

            def play() -> None:
                machine.live(work, plan, leave_open=end != "close")
                if end == "power":
                    machine.history.cut_power()
                    machine.world.cut_power()
                machine.judge()

            return broken_promise(play), plan.calls
