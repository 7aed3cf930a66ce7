"""Fans: handlers that sit on several others, their legs.

A fan opens its legs itself, because only it knows what the loss of one means. What is
said of a `Transform` in `filter` holds for it too: what it does not define goes nowhere.
"""

from collections.abc import Sequence
from typing import Protocol

from vscsihba.handlers.base import Handler


class Leg(Protocol):
    """One of the handlers below, unopened: a `vscsihba.handlers.stack.Stack`."""

    @property
    def document(self) -> object:
        """The document of the leg."""

    @property
    def workers(self) -> int:
        """How many of its verbs may run at once."""

    def check(self) -> None:
        """Check whether it can open; see `Handler.check`."""

    def open(self) -> Handler:
        """Open it and return its top; see `Handler.open`."""

    def forbid_making(self) -> None:
        """Let it make no medium from now on; see `vscsihba.handlers.stack.Stack.forbid_making`."""

    def close(self) -> None:
        """Close it; see `Handler.close`."""


class Fan(Handler):
    """A handler on several legs.

    Attributes:
        legs: In the order of the document.
    """

    def __init__(self, options: Handler.Options, legs: Sequence[Leg]) -> None:
        super().__init__(options)
        self.legs = list(legs)
        self.workers = min(type(self).workers, *(leg.workers for leg in self.legs))
