"""The record, in the HBA's run directory, of a last flush that has failed or was interrupted.

It is written before the last flush of a LUN begins, and removed after the flush has succeeded, both while the
LUN is still owned. So if the owner is killed in between, the next owner reports a failed flush to the
initiators (`vscsihba.scsi.failed_flush`), since it cannot know better. A reboot empties the directory, and
volatile caches as well.
"""

import logging
import os
from pathlib import Path
from types import TracebackType

from vscsihba.errors import FlushError

log = logging.getLogger(__name__)


class FlushRecord:
    """The record of one LUN, for its owner.

    Args:
        lun: For log lines.
        path: Path of the file.

    Attributes:
        reason: Why acknowledged data may be lost; None if it is not, or if initiators know already.
    """

    def __init__(self, lun: int, path: Path) -> None:
        self._lun = lun
        self._path = path
        self.reason: str | None = None
        self._serves = False

    def load(self) -> None:
        """Read the record of the last owner.

        Raises:
            OSError: It cannot be read.
        """
        try:
            self.reason = self._path.read_text(errors="replace").strip() or "an unknown reason"
        except FileNotFoundError:
            self.reason = None

    def serve(self) -> None:
        """Note that this process answers commands from now on; before that, it has acknowledged no data."""
        self._serves = True

    def begin(self) -> None:
        """Record that the last flush of this owner begins."""
        if self._serves and self.reason is None:
            self._write(f"process {os.getpid()} ended during its last flush")

    def end(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Record the result of the last flush; called as the exit function of the context that flushes.

        A flush that fails while the storage is opened may have lost data that a killed owner acknowledged.
        """
        if not self._serves:
            if isinstance(error, FlushError):
                self.write(f"a flush of process {os.getpid()} failed while the storage was opened: {error}")
            return
        self._serves = False
        if error is not None:
            self.write(f"the last flush of process {os.getpid()} failed: {error}")
        elif self.reason is None:
            self._remove()

    def write(self, reason: str) -> None:
        """Record that a flush has failed."""
        self.reason = reason
        log.error("lun %d: acknowledged data may be lost: %s", self._lun, reason)
        self._write(reason)

    def forget(self) -> None:
        """Remove the record: initiators know of the failure."""
        self.reason = None
        self._remove()

    def _write(self, reason: str) -> None:
        try:
            self._path.write_text(reason + "\n")
        except OSError as error:  # an empty file is a record, too
            log.error("lun %d: %s: %s", self._lun, self._path, error.strerror)  # noqa: TRY400 - it says all

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.error("lun %d: %s: %s", self._lun, self._path, error.strerror)  # noqa: TRY400 - it says all
