"""A failed flush that no initiator knows of, until the flushes that come next have reported it.

A medium reports the loss of cached data once, to whoever flushes then (fsync(2)): the owner that gives a unit
up, a command whose sender takes it for done, a READ with FUA. The next SYNCHRONIZE CACHE would succeed,
and its sender would believe that acknowledged data is safe. Deferred errors (SPC-5) do not help: Linux
sends the command that reports one again, and passes over the error (`scsi_check_sense`).

Knows neither where the record is kept nor which command a flush belongs to.
"""

from collections.abc import Callable
from typing import Final

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import Sense, SenseKey

WINDOW: Final = 30_000
"""Milliseconds from the first report on for which every flush reports the loss.

A disk has several users (file systems, a database), who cannot be told apart; each of them flushes at least
every few seconds."""

LOST: Final = Sense(SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)
"""HARDWARE ERROR: Linux sends a flush that failed with MEDIUM ERROR again, and believes the second answer."""


class FailedFlush:
    """Whether acknowledged data may be lost without any initiator knowing.

    Args:
        pending: A flush has failed in an earlier life of the unit.
        record: Called with the reason when one fails: keeps it for the unit's next life.
        forget: Called when initiators know.
        clock: Milliseconds.
    """

    def __init__(
        self,
        *,
        pending: bool = False,
        record: Callable[[str], None] = lambda _reason: None,
        forget: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = lambda: 0,
    ) -> None:
        self.pending = pending
        self._record = record
        self._forget = forget
        self._clock = clock
        self._first_report: int | None = None

    def note(self, reason: str) -> None:
        """Note that acknowledged data may be lost, and that those who flush do not know."""
        self.pending, self._first_report = True, None
        self._record(reason)

    def report(self) -> Sense | None:
        """Return how a flush that has succeeded is answered all the same; None: with GOOD."""
        if not self.pending:
            return None
        if self._first_report is None:
            self._first_report = self._clock()
        elif self._clock() - self._first_report > WINDOW:
            self.pending = False
            self._forget()
            return None
        return LOST
