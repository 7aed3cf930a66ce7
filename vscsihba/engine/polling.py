"""Whether looking at rings pays, or sleeping does: measured while they are served.

A thread that sleeps until a command comes is woken late; one that looks instead takes a
processor, which may be the one that the initiator needs. Which of the two is quicker
depends on the machine and on the load, so both are tried in turns, and what takes less
time a command is kept: a *stretch* of it is followed by a short *trial* of the other.
A pause of the initiator begins all of it anew, by sleeping: who is idle takes no
processor time.

Knows numbers only: no clock, no ring.
"""

import os
from collections.abc import Mapping
from typing import Final

from vscsihba.errors import UsageError

VARIABLE: Final = "VSCSIHBA_POLL"
"""Of the environment: microseconds to look at most; 0 to sleep always."""
_DEFAULT: Final = 1000
_MOST: Final = 100_000

TRIAL: Final = 4
"""Rounds (some waits, and what came of them) for which the way that seems worse is tried again."""
STRETCH: Final = 64
"""Rounds for which the way that seems better is kept before that."""
PAUSE: Final = 0.02
"""Seconds for a round that are the initiator's own doing, whichever way is taken."""
_GAIN: Final = 0.9
"""Looking must take this much less of the time that sleeping takes."""
_FADING: Final = 0.5
"""What remains of older measurements after a trial of both ways."""


def longest_look(environment: Mapping[str, str] = os.environ) -> float:
    """Return for how many seconds a thread may look before it sleeps, as the environment has it.

    Raises:
        UsageError: It has what cannot be meant.
    """
    word = environment.get(VARIABLE) or str(_DEFAULT)
    if not (word.isascii() and word.isdecimal() and int(word) <= _MOST):
        raise UsageError(
            f"{VARIABLE}={word} is no time to poll",
            cure=f"set it to microseconds from 0 (never) to {_MOST}, or not at all ({_DEFAULT})",
        )
    return int(word) / 1e6


class _Way:
    """What one of the two ways has cost so far."""

    __slots__ = ("commands", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.commands = 0.0

    def cost(self) -> float:
        """Return seconds a command."""
        return self.seconds / self.commands if self.commands else 0.0

    def fade(self) -> None:
        """Make room for what will be measured now."""
        self.seconds *= _FADING
        self.commands *= _FADING


class Polling:
    """How long the serving thread is to look for more commands before it sleeps.

    Args:
        most: Seconds, at most; 0 to sleep always.

    Attributes:
        window: Seconds to look now; 0 to sleep at once.
    """

    __slots__ = ("_looking", "_most", "_rounds", "_sleeping", "_trial", "window")

    def __init__(self, most: float) -> None:
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self.window = 0.0
        self._looking, self._sleeping = _Way(), _Way()
        self._trial = True
        self._rounds = TRIAL

    def note(self, seconds: float, commands: int) -> None:
        """Take in one round.

        Args:
            seconds: From the end of the last round: waiting and serving.
            commands: How many were served.
        """
        if not commands:
            return
        if seconds > PAUSE:
            if self.window or self._rounds != TRIAL:
                self._begin()
            return
        way = self._looking if self.window else self._sleeping
        way.seconds += seconds
        way.commands += commands
        self._rounds -= 1
        if not self._rounds:
            self._choose()

    def _choose(self) -> None:
        """Go on with the better way, or try the other one again."""
        looking, sleeping = self._looking.cost(), self._sleeping.cost()
        if not looking:
            look, self._trial = True, True
        elif self._trial:
            look, self._trial = looking < sleeping * _GAIN, False
            self._looking.fade()
            self._sleeping.fade()
        else:
            look, self._trial = not self.window, True
        self.window = self._most if look else 0.0
        self._rounds = TRIAL if self._trial else STRETCH
