"""When to say that a thinly provisioned unit runs out of room.

Knows byte counts that the medium gives, and a threshold that an initiator has set.
"""

from vscsihba.block import Space


def falls_below(before: Space | None, now: Space, threshold: int) -> bool:
    """Tell whether available space has just fallen to `threshold` bytes, or lower.

    A threshold that stays crossed is not crossed again (SBC-4 "Thin provisioned logical unit
    capacity thresholds", armed for decreasing).
    """
    crossed = now.available <= threshold
    return crossed and (before is None or before.available > threshold)
