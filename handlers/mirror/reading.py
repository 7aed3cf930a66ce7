"""Reads of a mirror: which leg is read first."""

from collections.abc import Sequence

from vscsihba.handlers.mirror.leg import MirrorLeg
from vscsihba.handlers.mirror.regions import Regions

_SPREAD = 1 << 20
"""Bytes that are read from one leg before the next one's turn, so that each can read ahead."""
_FAR_MORE = 2
"""Requests that the leg whose turn it is may have under way beyond the others before another one is read."""


def turn(legs: Sequence[MirrorLeg], regions: Regions, offset: int, length: int) -> int:
    """Return which of some legs that have all the data a range is read from first.

    Each has its turn, unless it has more requests under way than another one. Where they may differ, it
    is always the first one.
    """
    if regions.unsettled and not regions.are_settled(offset, length):
        return 0
    number = offset // _SPREAD % len(legs)
    under_way = legs[number].under_way
    if under_way > _FAR_MORE:
        least = min(range(len(legs)), key=lambda other: legs[other].under_way)
        if under_way > legs[least].under_way + _FAR_MORE:
            return least
    return number
