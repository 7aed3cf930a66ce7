"""The aims of stacks beside others, and whether the findings reach them."""

from dataclasses import dataclass
from typing import Final

from tests.bench.vm.findings import Findings

HEADINGS: Final = ("what", "aim", "lowest", "by best rounds", "by CPU time", "where", "reached", "enough")


@dataclass(frozen=True, slots=True)
class Aim:
    """How many times as quick as a peer a stack has to be.

    Attributes:
        group: Name of the comparison, or the beginning of it.
        peer: Name of the peer.
        least: The ratio of commands a second.
        words: Workloads with all of these words count.
    """

    group: str
    peer: str
    least: float
    words: tuple[str, ...] = ()


AIMS: Final = (
    Aim("encrypt", "dm-crypt", 0.5, ("128 KiB",)),
    Aim("encrypt", "nbdkit luks", 1.5),
    Aim("encrypt", "qemu-nbd luks", 1.5),
    Aim("mirror", "md raid1", 0.4, ("write",)),
    Aim("cow", "nbdkit cow", 1.5),
    Aim("cow", "qemu-nbd qcow2", 1.5),
)


def rows(findings: Findings) -> list[tuple[str, ...]]:
    """Return a row for each aim and comparison; see `HEADINGS`."""
    return [
        row
        for aim in AIMS
        for name in findings.groups
        if name.startswith(aim.group) and (row := _row(aim, name, findings.group(name)))
    ]


def _row(aim: Aim, name: str, group: Findings) -> tuple[str, ...]:
    """Return the row of the workload that is furthest from the aim; none if the peer was not measured."""
    workloads = [work for work in group.workloads if all(word in work for word in aim.words)]
    ratios = {work: ratio for work in workloads if (ratio := group.ratio(work, aim.peer))}
    if not ratios:
        return ()
    lowest = min(ratios, key=lambda work: ratios[work])
    best = [group.best_ratio(work, aim.peer) for work in ratios]
    costs = [group.cost_ratio(work, aim.peer) for work in ratios]
    reached = sum(ratio >= aim.least for ratio in ratios.values())
    return (
        f"{name}: vscsihba / {aim.peer}",
        f"{aim.least:g}",
        f"{ratios[lowest]:.2f}",
        f"{min(best):.2f}",
        f"{min(costs):.2f}",
        lowest,
        f"{reached} of {len(ratios)}",
        "yes" if reached == len(ratios) else "**no**",
    )
