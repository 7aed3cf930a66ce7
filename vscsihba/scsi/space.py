"""Free space of a thinly provisioned unit, and the threshold below which initiators get a unit attention.

Asks the medium; does not know when that is worth its time.
"""

from collections.abc import Generator

from vscsihba.block import AskSpace, BlockOp, BlockResult, Space
from vscsihba.scsi.mode_pages import ModePages
from vscsihba.scsi.sense import CheckCondition

THRESHOLD_SET = 1 << 20
"""Bytes of a threshold set, the unit of free space (SBC-4 THRESHOLD EXPONENT)."""


class SpaceWatch:
    """Free space of one unit.

    Args:
        mode_pages: Mode pages of the unit, which hold the threshold.

    Attributes:
        known: The last result of the medium, None before the first.
    """

    def __init__(self, mode_pages: ModePages) -> None:
        self.known: Space | None = None
        self._mode_pages = mode_pages

    @property
    def armed(self) -> bool:
        """A threshold is enabled."""
        return self._mode_pages.space_threshold is not None

    def look(self) -> Generator[BlockOp, BlockResult, bool]:
        """Ask the medium; return whether free space has just fallen to the threshold or below.

        A threshold is reported once when it is crossed (SBC-4 "Thin provisioned logical unit
        capacity thresholds", armed for decreasing). A failure of the medium changes nothing.
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
