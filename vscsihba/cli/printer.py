"""Printing of events, without ever making a disk wait for a terminal.

A thread prints lines from a queue: a paused terminal, a full pipe or a closed reader stops
the printing, not the serving.
"""

import json
import sys
import threading
from queue import Empty, Full, Queue
from typing import Self

from vscsihba.trace import TraceRecord
from vscsihba.units import format_size

_WAITING = 100_000
"""Lines kept for a reader that is slower than the disks."""


class Printer:
    """Prints one line an event, as text or JSON.

    Used as a context manager: leaving it prints the queue.

    Args:
        hba_id: HBA in every line.
        as_json: One JSON object a line.
    """

    def __init__(self, hba_id: int, *, as_json: bool) -> None:
        self._id = hba_id
        self._json = as_json
        self._lines: Queue[str | None] = Queue(_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Print the queue, but wait at most a second for a reader that has stopped."""
        try:
            self._lines.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=1)

    def line(self, event: str, text: str, **details: object) -> None:
        """Queue one line; if the queue is full, drop and count it."""
        record = {"event": event, "id": self._id, **details}
        try:
            self._lines.put_nowait(json.dumps(record) if self._json else text)
        except Full:
            self._dropped += 1

    def ready(self, lun: int, device: str, size: int, *, label: str, file: str) -> None:
        """Print that a disk is ready; text shows its `label`, JSON the whole `file`."""
        text = f"id={self._id} lun={lun} {device} {format_size(size)} {label}"
        self.line("ready", text, lun=lun, device=device, size=size, file=file)

    def notice(self, text: str) -> None:
        """Print a notice."""
        self.line("notice", text, notice=text)

    def failed(self, text: str) -> None:
        """Print that a disk has failed; the other disks are still served."""
        self.line("failed", f"HBA {self._id} failed: {text}", failure=text)

    def in_use(self, users: list[str]) -> None:
        """Print the users that keep the disks from being detached."""
        text = f"HBA {self._id} is still in use: {'; '.join(users)}"
        self.line("in use", f"{text}; release it, or send the signal again to detach anyway", users=users)

    def trace(self, record: TraceRecord) -> None:
        """Print one SCSI command."""
        self.line(
            "command",
            f"id={self._id} {record}",
            lun=record.lun,
            name=record.name,
            cdb=record.cdb.hex(),
            detail=record.detail,
            status=record.status,
            sense=record.sense,
            length=record.length,
            seconds=round(record.seconds, 6),
        )

    def _run(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                if self._dropped:
                    line, self._dropped = f"{line}\n({self._dropped} lines not printed)", 0
                sys.stdout.write(line + "\n")
                if self._lines.empty():
                    sys.stdout.flush()
            sys.stdout.flush()
        except (OSError, ValueError):  # the reader is gone, or the disk is full
            self._discard()

    def _discard(self) -> None:
        """Drop all further lines."""
        while True:
            try:
                if self._lines.get(timeout=60) is None:
                    return
            except Empty:
                continue
