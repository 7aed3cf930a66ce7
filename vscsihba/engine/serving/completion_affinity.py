"""On whose processor the kernel completes what was answered: the sender's, or the engine's.

The kernel's own way is the sender's. It then wakes a thread there for nearly every answer, in the
middle of what that processor does, and the engine pays for the waking. On the engine's, all
answers of a batch are completed together as soon as the engine has shown them, but in its own
time. Small commands are cheap to complete, large ones are not: so which of the two is quicker
depends on the load, and on the machine, and both are tried in turns (`adaptive_choice`).

Knows numbers only: no clock, no ring, and not how the kernel is told.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from vscsihba.engine.serving.adaptive_choice import AdaptiveChoice
from vscsihba.errors import HostError, UsageError

VARIABLE: Final = "VSCSIHBA_COMPLETE"
"""Of the environment: `ENGINE` or `SENDER`, for one way and no trials."""
ENGINE: Final = "engine"
SENDER: Final = "sender"

PROBE: Final = 0.06
"""Seconds for which the way that seems worse is tried: longer than a turn of `polling`'s own trials."""
HOLD: Final = 1.0
"""Seconds for which the way that seems better is kept before that."""
PAUSE: Final = 0.1
"""Seconds for a round that are the initiator's own doing, whichever way is taken."""
_THRESHOLD: Final = 0.95
"""The engine's processor must take less than this part of the time."""


def fixed_affinity(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Return whether the environment has it on the engine's processor; None if that is to be found out.

    Raises:
        UsageError: It has what cannot be meant.
    """
    word = environment.get(VARIABLE) or None
    if word not in (None, ENGINE, SENDER):
        raise UsageError(
            f"{VARIABLE}={word} is no place to complete commands",
            cure=f'set it to "{ENGINE}" or "{SENDER}", or not at all: the quicker one is found out',
        )
    return None if word is None else word == ENGINE


class CompletionAffinity:
    """Where the kernel is to complete what is answered from now on.

    Args:
        tell: Tells the kernel; True: on the engine's processor. It may raise HostError: of a kernel that
            knows one way only, nothing is asked again.
        fixed: The way to be taken, None for the one that is quicker.
    """

    __slots__ = ("_choosing", "_tell", "_ways")

    def __init__(self, tell: Callable[[bool], None], *, fixed: bool | None = None) -> None:
        self._tell = tell
        self._ways = AdaptiveChoice(probe=PROBE, hold=HOLD, threshold=_THRESHOLD)
        self._choosing = self._told(bool(fixed)) and fixed is None

    def note(self, seconds: float, commands: int) -> None:
        """Take in one round.

        Args:
            seconds: From the end of the last round: waiting and serving.
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
        """Tell the kernel; return whether it knows both ways."""
        try:
            self._tell(here)
        except HostError:
            return False
        return True
