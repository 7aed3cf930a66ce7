"""The CPU on which the kernel completes answered commands: the sender's, or the engine's.

The kernel's default is the sender's. It then wakes a thread on that CPU for nearly every answer, and the
engine pays for the wake-up. On the engine's CPU, all answers of a batch are completed together as soon as
they are published, but in the engine's time. Which is quicker depends on the size of the commands and on
the machine, so both are measured (`adaptive_choice`).

Knows numbers only: no clock, no ring, and not how the kernel is told.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from vscsihba.engine.serving.adaptive_choice import AdaptiveChoice
from vscsihba.errors import HostError, UsageError

VARIABLE: Final = "VSCSIHBA_COMPLETE"
"""Environment variable: `ENGINE` or `SENDER` to fix the choice."""
ENGINE: Final = "engine"
SENDER: Final = "sender"

PROBE: Final = 0.06
"""Seconds of a probe: longer than the probes of `polling`, which run at the same time."""
HOLD: Final = 1.0
"""Seconds of the longest hold."""
PAUSE: Final = 0.1
"""Seconds of a round from which on the initiator itself pauses, whichever way is taken."""
_THRESHOLD: Final = 0.95
"""The engine's CPU must take less than this fraction of the time."""


def fixed_affinity(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Return whether the environment fixes the engine's CPU (True) or the sender's (False); None if neither.

    Raises:
        UsageError: The variable has another value.
    """
    word = environment.get(VARIABLE) or None
    if word not in (None, ENGINE, SENDER):
        raise UsageError(
            f"{VARIABLE}={word} is not a valid choice",
            cure=f'set it to "{ENGINE}" or "{SENDER}", or unset it: the quicker one is measured',
        )
    return None if word is None else word == ENGINE


class CompletionAffinity:
    """Chooses the CPU on which the kernel completes commands.

    Args:
        tell: Tells the kernel; True: the engine's CPU. If it raises HostError, the kernel has one way only,
            and it is not called again.
        fixed: A choice that is not to be changed; None to measure.
    """

    __slots__ = ("_choosing", "_tell", "_ways")

    def __init__(self, tell: Callable[[bool], None], *, fixed: bool | None = None) -> None:
        self._tell = tell
        self._ways = AdaptiveChoice(probe=PROBE, hold=HOLD, threshold=_THRESHOLD)
        self._choosing = self._told(bool(fixed)) and fixed is None

    def note(self, seconds: float, commands: int) -> None:
        """Add the measurement of one round.

        Args:
            seconds: Time since the end of the last round, waiting included.
            commands: How many were served.
        """
        if not (commands and self._choosing):
            return
        ways = self._ways
        if seconds > PAUSE:
            ways.begin(second=ways.second)
            return
        before = ways.second
        ways.note(seconds, commands, seconds)
        if ways.second != before:
            self._choosing = self._told(ways.second)

    def _told(self, here: bool) -> bool:  # noqa: FBT001 - as `tell` has it
        """Tell the kernel; return whether it has both ways."""
        try:
            self._tell(here)
        except HostError:
            return False
        return True
