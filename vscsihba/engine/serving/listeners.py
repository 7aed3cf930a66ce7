"""Callbacks of an engine: taps of its LUNs, failures of rings, notices for the user."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vscsihba.engine.serving.tap import Taps


def _ignore(_text: str) -> None:
    """Do nothing: no listener is set."""


def _unheard() -> None:
    """Do nothing: no listener is set."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks of an engine; they are called on its threads and must not block.

    Attributes:
        taps: The taps of its LUNs, for observers of finished commands.
        failed: Called with a line of text about a ring that can no longer be served.
        notice: Called with a line of text for the user.
        resized: Called when another client of a LUN's storage has changed its size.
    """

    taps: Taps = field(default_factory=Taps)
    failed: Callable[[str], None] = _ignore
    notice: Callable[[str], None] = _ignore
    resized: Callable[[], None] = _unheard
