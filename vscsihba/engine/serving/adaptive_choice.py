"""Two ways of doing the same: which takes less time a command, found out by taking them in turns.

A *stretch* of the way that seems better is followed by a short *trial* of the other, and is twice as
long each time that it is found better again: what was chosen by mistake is soon put right. What
was measured long ago counts less and less, so that a load which changes is followed.

Knows numbers only: no clock, and not what the ways are.
"""

from typing import Final

_FADING: Final = 0.5
"""What remains of older measurements after a trial of both ways."""


class _Way:
    """What one of the two ways has cost so far."""

    __slots__ = ("commands", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.commands = 0.0

    def cost(self) -> float:
        """Return seconds a command; 0 if that was never measured."""
        return self.seconds / self.commands if self.commands else 0.0

    def fade(self) -> None:
        """Make room for what will be measured now."""
        self.seconds *= _FADING
        self.commands *= _FADING


class AdaptiveChoice:
    """Which of two ways is taken now.

    Args:
        probe: For how long a way is tried; in what `note` calls the length of a measurement.
        hold: For how long, at most, the way that seems better is kept.
        threshold: The second way is the better one if it takes less than this part of the first one's time.

    Attributes:
        second: The second way is taken.
        fresh: Nothing was noted since `begin`.
    """

    __slots__ = (
        "_better",
        "_hold",
        "_left",
        "_longest",
        "_probe",
        "_probing",
        "_threshold",
        "_ways",
        "fresh",
        "second",
    )

    def __init__(self, *, probe: float, hold: float, threshold: float) -> None:
        self._probe, self._longest, self._threshold = probe, hold, threshold
        self.begin(second=False)

    def begin(self, *, second: bool) -> None:
        """Forget what was measured, and try one way, then the other."""
        self.second = second
        self.fresh = self._probing = True
        self._ways = (_Way(), _Way())
        self._better: bool | None = None
        self._left = self._hold = self._probe

    def note(self, seconds: float, commands: int, length: float) -> None:
        """Take in a measurement of the way that is taken.

        Args:
            seconds: That it took.
            commands: That were done in it.
            length: What it counts for, of a trial or a stretch.
        """
        self.fresh = False
        way = self._ways[self.second]
        way.seconds += seconds
        way.commands += commands
        self._left -= length
        if self._left <= 0:
            self._choose()

    def _choose(self) -> None:
        """Go on with the better way, or try the other one again."""
        first, second = (way.cost() for way in self._ways)
        if not self._probing or not (first and second):
            self.second, self._probing = not self.second, True
            self._left = self._probe
            return
        self.second, self._probing = second < first * self._threshold, False
        kept = self._hold if self.second == self._better else self._probe
        self._left = self._hold = min(2 * kept, self._longest)
        self._better = self.second
        for way in self._ways:
            way.fade()
