"""The assignment of LUNs to the engines that share an HBA: a pure function of the living engines.

Every engine computes it for itself and gets the same result. So no engine has to be asked, and no decision is
lost with the engine that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class EngineInfo:
    """A living engine; engines sort by age, the eldest first.

    Attributes:
        since: Time at which it joined, in nanoseconds of CLOCK_MONOTONIC.
        pid: Its process id.
        luns: The LUNs that it can serve.
    """

    since: int
    pid: int
    luns: frozenset[int]


def assign_luns(engines: frozenset[EngineInfo]) -> Mapping[int, int]:
    """Return, for each LUN that an engine knows, the pid of the engine that is to serve it.

    Round robin: with k engines that know LUN n, sorted by age, it goes to engine n modulo k. So LUNs with
    consecutive numbers are spread evenly, and adding or removing a LUN moves no other LUN.
    """
    owners: dict[int, int] = {}
    for lun in frozenset().union(*(engine.luns for engine in engines)):
        knowing = sorted(engine for engine in engines if lun in engine.luns)
        owners[lun] = knowing[lun % len(knowing)].pid
    return owners
