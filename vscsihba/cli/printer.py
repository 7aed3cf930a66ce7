"""Prints what happens, without ever making a disk wait for a terminal.

Lines go through a queue to a thread of their own: a paused terminal, a full pipe or a
reader that has gone stops the printing, not the serving.
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
    """Prints one line an event, for people or for programs.

    Used as a context manager: what was queued is printed on leaving.

    Args:
        hba_id: Shown in every line.
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
        """Print what is queued, within reason: a reader that has stopped is not waited for."""
        try:
            self._lines.put(None, timeout=1)
        except Full:
            return
        self._thread.join(timeout=1)

    def line(self, event: str, text: str, **details: object) -> None:
        """Queue one line; drop it, and count that, where the reader is too far behind."""
        record = {"event": event, "id": self._id, **details}
        try:
            self._lines.put_nowait(json.dumps(record) if self._json else text)
        except Full:
            self._dropped += 1

    def ready(self, lun: int, device: str, size: int, *, label: str, file: str) -> None:
        """Say that a disk is there; people see its `label`, programs the `file` in full."""
        text = f"id={self._id} lun={lun} {device} {format_size(size)} {label}"
        self.line("ready", text, lun=lun, device=device, size=size, file=file)

    def notice(self, text: str) -> None:
        """Say what a person should know."""
        self.line("notice", text, notice=text)

    def failed(self, text: str) -> None:
        """Say that a disk is not served for now, while the others are."""
        self.line("failed", f"id={self._id} failed: {text}", failure=text)

    def in_use(self, users: list[str]) -> None:
        """Say why the disks are not detached yet."""
        text = f"id={self._id} still in use: {'; '.join(users)}"
        self.line("in use", f"{text}; end that, or signal again to detach all the same", users=users)

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
        except (OSError, ValueError):  # nobody reads any more, or there is no room for more
            self._discard()

    def _discard(self) -> None:
        """Make room for ever."""
        while True:
            try:
                if self._lines.get(timeout=60) is None:
                    return
            except Empty:
                continue
