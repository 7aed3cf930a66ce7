"""How much room a thinly provisioned unit has left, and when to say that it gets less.

Knows byte counts that the engine brings, and a threshold that an initiator has set.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Space:
    """Room for a unit's data.

    Attributes:
        available: Bytes that can still be allocated.
        used: Bytes that the unit has allocated.
    """

    available: int
    used: int


def falls_below(before: Space | None, now: Space, threshold: int) -> bool:
    """Tell whether available space has just fallen to `threshold` bytes, or lower.

    A threshold that stays crossed is not crossed again (SBC-4 "Thin provisioned logical unit
    capacity thresholds", armed for decreasing).
    """
    crossed = now.available <= threshold
    return crossed and (before is None or before.available > threshold)
