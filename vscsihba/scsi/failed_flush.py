"""Failed flushes that no initiator knows of: later flushes report them.

A medium reports the loss of cached data once, to the next caller of fsync(2). That may be an engine that
gives the unit up, a resize, an aborted command, or a READ or WRITE with FUA. The next SYNCHRONIZE CACHE
would then succeed, and its sender would believe that acknowledged data is safe. Deferred errors (SPC-5) do
not help: Linux sends the command that reports one again, and ignores the error (`scsi_check_sense`).

Knows neither where the record is stored nor which command a flush belongs to.
"""

from collections.abc import Callable
from typing import Final

from vscsihba.errors import FlushError
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.sense import Sense, SenseKey

WINDOW: Final = 30_000
"""Milliseconds during which every flush reports the loss, from the first report on.

A disk has several users (file systems, a database), which cannot be distinguished; each of them flushes at
least every few seconds."""

LOST: Final = Sense(SenseKey.HARDWARE_ERROR, Asc.WRITE_ERROR)
"""HARDWARE ERROR: Linux repeats a flush that failed with MEDIUM ERROR, and the second one would succeed."""


class FailedFlush:
    """The state of one unit: whether acknowledged data may be lost without any initiator knowing.

    Args:
        pending: A flush has failed under an earlier engine.
        record: Called with the reason of a failure; stores it for the next engine.
        forget: Called when the loss was reported; removes the record.
        clock: Returns milliseconds.
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
        """Record that acknowledged data may be lost, and that no initiator knows."""
        self.pending, self._first_report = True, None
        self._record(reason)

    def note_failure(self, operation: str, fault: BaseException | None) -> None:
        """Record the failure of an operation that was no command to this unit, if a flush within it failed.

        Args:
            operation: For messages.
            fault: The failure, if there is one.
        """
        if isinstance(fault, FlushError):
            self.note(f"a flush of {operation} failed: {fault}")

    def report(self) -> Sense | None:
        """Return the sense data that a successful flush has to report all the same, None for GOOD."""
        if not self.pending:
            return None
        if self._first_report is None:
            self._first_report = self._clock()
        elif self._clock() - self._first_report > WINDOW:
            self.pending = False
            self._forget()
            return None
        return LOST
