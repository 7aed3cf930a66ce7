"""Pending conditions of a logical unit: unit attentions and deferred errors, oldest first.

Does not know initiators (the transport does not distinguish them): each condition is reported once.
"""

from collections import deque
from dataclasses import replace

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import Sense, SenseKey


class Pending:
    """A queue of conditions; deferred errors go before unit attentions."""

    def __init__(self) -> None:
        self._attentions: deque[Asc] = deque()
        self._deferred: deque[Sense] = deque()

    def __bool__(self) -> bool:
        return bool(self._attentions or self._deferred)

    def attention(self, asc: Asc) -> None:
        """Add a unit attention condition (SAM-5), unless the same one is pending already."""
        if asc not in self._attentions:
            self._attentions.append(asc)

    def defer(self, sense: Sense) -> None:
        """Add the failure of a command that has already ended (SPC-5 "Deferred errors")."""
        self._deferred.append(replace(sense, deferred=True))

    def take(self) -> Sense | None:
        """Remove and return the first condition, None if there is none."""
        if self._deferred:
            return self._deferred.popleft()
        if self._attentions:
            return Sense(SenseKey.UNIT_ATTENTION, self._attentions.popleft())
        return None

    def clear(self) -> None:
        """Remove all conditions."""
        self._attentions.clear()
        self._deferred.clear()
