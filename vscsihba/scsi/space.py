"""How much room a thinly provisioned unit has left, and when initiators want to be told that it gets less.

Asks the medium; when that is worth asking is not known here.
"""

from collections.abc import Generator

from vscsihba.block import AskSpace, BlockOp, BlockResult, Space
from vscsihba.scsi.mode_pages import ModePages
from vscsihba.scsi.sense import CheckCondition

THRESHOLD_SET = 1 << 20
"""Bytes in which space is counted (SBC-4 THRESHOLD EXPONENT)."""


class SpaceWatch:
    """The room of one unit.

    Args:
        mode_pages: Of the unit: initiators set their threshold there.

    Attributes:
        known: What the medium said last; None if it said nothing yet.
    """

    def __init__(self, mode_pages: ModePages) -> None:
        self.known: Space | None = None
        self._mode_pages = mode_pages

    @property
    def armed(self) -> bool:
        """Initiators want to be told."""
        return self._mode_pages.space_threshold is not None

    def look(self) -> Generator[BlockOp, BlockResult, bool]:
        """Ask the medium; return whether the room has just fallen to the threshold, or below.

        A threshold that stays crossed is not crossed again (SBC-4 "Thin provisioned logical unit
        capacity thresholds", armed for decreasing). A medium that cannot tell just now changes nothing.
        """
        try:
            now = yield AskSpace()
        except CheckCondition:
            return False
        if not isinstance(now, Space):
            return False
        before, self.known = self.known, now
        if self._mode_pages.space_threshold is None:
            return False
        threshold = self._mode_pages.space_threshold * THRESHOLD_SET
        return now.available <= threshold and (before is None or before.available > threshold)
