"""Whether looking at rings pays, or sleeping does: measured while they are served.

A thread that sleeps until a command comes is woken late; one that looks instead takes a
processor, which may be the one that the initiator needs. Which of the two is quicker
depends on the machine and on the load, so both are tried in turns (`adaptive_choice`). A pause of
the initiator begins all of it anew, by sleeping: who is idle takes no processor time.

Knows numbers only: no clock, no ring.
"""

import os
from collections.abc import Mapping
from typing import Final

from vscsihba.engine.serving.adaptive_choice import AdaptiveChoice
from vscsihba.errors import UsageError

VARIABLE: Final = "VSCSIHBA_POLL"
"""Of the environment: microseconds to look at most; 0 to sleep always."""
_DEFAULT: Final = 1000
_MOST: Final = 100_000

PROBE: Final = 4
"""Rounds (some waits, and what came of them) for which the way that seems worse is tried again."""
HOLD: Final = 64
"""Rounds for which the way that seems better is kept before that."""
PAUSE: Final = 0.02
"""Seconds for a round that are the initiator's own doing, whichever way is taken."""
_THRESHOLD: Final = 0.9
"""Looking must take less than this part of the time that sleeping takes."""


def longest_spin(environment: Mapping[str, str] = os.environ, processors: int | None = None) -> float:
    """Return for how many seconds a thread may look before it sleeps, as the environment has it.

    Args:
        environment: May have `VARIABLE`.
        processors: Of this machine, None to count them. On the only one, nobody can send a command while the
            engine looks for it.

    Raises:
        UsageError: It has what cannot be meant.
    """
    processors = processors or os.cpu_count() or 1
    word = environment.get(VARIABLE) or str(_DEFAULT if processors > 1 else 0)
    if not (word.isascii() and word.isdecimal() and int(word) <= _MOST):
        raise UsageError(
            f"{VARIABLE}={word} is no time to poll",
            cure=f"set it to microseconds from 0 (never) to {_MOST}, or not at all ({_DEFAULT};"
            " 0 with one processor)",
        )
    return int(word) / 1e6


class Polling:
    """How long the serving thread is to look for more commands before it sleeps.

    Args:
        most: Seconds, at most; 0 to sleep always.

    Attributes:
        window: Seconds to look now; 0 to sleep at once.
    """

    __slots__ = ("_most", "_ways", "window")

    def __init__(self, most: float) -> None:
        self._most = most
        self._ways = AdaptiveChoice(probe=PROBE, hold=HOLD, threshold=_THRESHOLD)
        self.window = 0.0

    def note(self, seconds: float, commands: int) -> None:
        """Take in one round.

        Args:
            seconds: From the end of the last round: waiting and serving.
            commands: How many were served.
        """
        if not commands:
            return
        if seconds > PAUSE:
            if not self._ways.fresh:
                self._ways.begin(second=False)
        else:
            self._ways.note(seconds, commands, 1)
        self.window = self._most if self._ways.second else 0.0
