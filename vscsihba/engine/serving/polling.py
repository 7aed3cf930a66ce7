"""Whether the serving thread spins on its rings before it sleeps: measured while they are served.

A thread that sleeps until a command arrives is woken late. A thread that spins instead takes a CPU, perhaps
the one that the initiator needs. Which is quicker depends on machine and load, so both are measured
(`adaptive_choice`). When the initiator pauses, the choice begins anew with sleeping: an idle engine takes no
CPU time.

Knows numbers only: no clock, no ring.
"""

import os
from collections.abc import Mapping
from typing import Final

from vscsihba.engine.serving.adaptive_choice import AdaptiveChoice
from vscsihba.errors import UsageError

VARIABLE: Final = "VSCSIHBA_POLL"
"""Environment variable: microseconds to spin at most; 0 never to spin."""
_DEFAULT: Final = 1000
_MOST: Final = 100_000

PROBE: Final = 4
"""Rounds of a probe; a round is a few times of waiting and serving (`pump`)."""
HOLD: Final = 64
"""Rounds of the longest hold."""
PAUSE: Final = 0.02
"""Seconds of a round from which on the initiator itself pauses, whichever way is taken."""
THRESHOLD: Final = 0.9
"""Spinning must take less than this fraction of the time that sleeping takes."""


def longest_spin(environment: Mapping[str, str] = os.environ, processors: int | None = None) -> float:
    """Return the seconds for which the thread may spin before it sleeps.

    Args:
        environment: May have `VARIABLE`.
        processors: Number of CPUs, None to count them. With one CPU the initiator cannot run while the
            engine spins, so the default is 0.

    Raises:
        UsageError: The variable is not a number from 0 to 100,000.
    """
    processors = processors or os.cpu_count() or 1
    word = environment.get(VARIABLE) or str(_DEFAULT if processors > 1 else 0)
    if not (word.isascii() and word.isdecimal() and int(word) <= _MOST):
        raise UsageError(
            f"{VARIABLE}={word} is not a valid time to spin",
            cure=f"set it to microseconds from 0 (never) to {_MOST}, or unset it ({_DEFAULT};"
            " 0 with one CPU)",
        )
    return int(word) / 1e6


class Polling:
    """Decides how long the serving thread spins before it sleeps.

    Args:
        most: Seconds, at most; 0 never to spin.

    Attributes:
        window: Seconds to spin now; 0 to sleep at once.
    """

    __slots__ = ("_most", "_ways", "window")

    def __init__(self, most: float) -> None:
        self._most = most
        self._ways = AdaptiveChoice(probe=PROBE, hold=HOLD, threshold=THRESHOLD)
        self.window = 0.0

    def note(self, seconds: float, commands: int) -> None:
        """Add the measurement of one round.

        Args:
            seconds: Time since the end of the last round, waiting included.
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
