"""Who serves which LUN when several engines share an HBA: a pure function of who is there.

Every engine works it out for itself and comes to the same answer, so nobody has to be
asked, and no decision can be lost with the engine that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class EngineInfo:
    """An engine.

    Attributes:
        since: When it joined, in nanoseconds of CLOCK_MONOTONIC: the eldest comes first.
        pid: Its process id.
        luns: The LUNs that it knows how to serve.
    """

    since: int
    pid: int
    luns: frozenset[int]


def assign_luns(engines: frozenset[EngineInfo]) -> Mapping[int, int]:
    """Return the pid that is to serve each LUN that anybody knows.

    By turns: LUN n goes to the engine at place n, counted around, of those that know it, the eldest
    first. So LUNs with consecutive numbers are shared evenly, and who serves a LUN depends on no other
    LUN: one that is added or removed moves none of the rest.
    """
    owners: dict[int, int] = {}
    for lun in frozenset().union(*(engine.luns for engine in engines)):
        knowing = sorted(engine for engine in engines if lun in engine.luns)
        owners[lun] = knowing[lun % len(knowing)].pid
    return owners
