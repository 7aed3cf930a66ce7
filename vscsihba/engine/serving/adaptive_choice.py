"""An adaptive choice between two ways of doing the same: the one that takes less time a command.

The better way is *held* for a while, then the other one is *probed* for a short while. Each time that the
probe confirms the choice, the next hold is twice as long, so a wrong choice is corrected soon. Older
measurements count less and less, so a changing load is followed.

Knows numbers only: no clock, and not what the two ways are.
"""

from typing import Final

_FADING: Final = 0.5
"""Weight of older measurements after each choice."""


class _Way:
    """Measured cost of one of the two ways."""

    __slots__ = ("commands", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.commands = 0.0

    def cost(self) -> float:
        """Return seconds a command; 0 if nothing was measured."""
        return self.seconds / self.commands if self.commands else 0.0

    def fade(self) -> None:
        """Halve the weight of the measurements so far."""
        self.seconds *= _FADING
        self.commands *= _FADING


class AdaptiveChoice:
    """An adaptive choice between a first and a second way.

    Args:
        probe: Length of a probe, in the unit of `note`'s `length`.
        hold: Greatest length of a hold, in the same unit.
        threshold: The second way is better if its time is less than this fraction of the first way's.

    Attributes:
        second: The second way is to be taken now.
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
        """Drop all measurements, and probe one way, then the other."""
        self.second = second
        self.fresh = self._probing = True
        self._ways = (_Way(), _Way())
        self._better: bool | None = None
        self._left = self._hold = self._probe

    def note(self, seconds: float, commands: int, length: float) -> None:
        """Add a measurement of the way that is taken now.

        Args:
            seconds: Time that it took.
            commands: Commands that were done in that time.
            length: Its part of a probe or hold.
        """
        self.fresh = False
        way = self._ways[self.second]
        way.seconds += seconds
        way.commands += commands
        self._left -= length
        if self._left <= 0:
            self._choose()

    def _choose(self) -> None:
        """Hold the better way, or probe the other one."""
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
