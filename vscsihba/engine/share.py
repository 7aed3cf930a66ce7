"""Who serves which LUN when several engines share an HBA: a pure function of who is there.

Every engine works it out for itself and comes to the same answer, so nobody has to be
asked, and no decision can be lost with the engine that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """An engine.

    Attributes:
        since: When it joined, in nanoseconds of CLOCK_MONOTONIC: the eldest comes first.
        pid: Its process id.
        luns: The LUNs that it knows how to serve.
    """

    since: int
    pid: int
    luns: frozenset[int]


def share_out(members: frozenset[Member]) -> Mapping[int, int]:
    """Return the pid that is to serve each LUN that anybody knows: as evenly as can be.

    LUNs that few engines know are given away first, each to the engine that has the fewest, the
    eldest among equals.
    """
    knowing = {
        lun: sorted(member for member in members if lun in member.luns)
        for lun in frozenset().union(*(member.luns for member in members))
    }
    given = dict.fromkeys(members, 0)
    owners: dict[int, int] = {}
    for lun in sorted(knowing, key=lambda lun: (len(knowing[lun]), lun)):
        owner = min(knowing[lun], key=lambda member: (given[member], member.since, member.pid))
        owners[lun] = owner.pid
        given[owner] += 1
    return owners
