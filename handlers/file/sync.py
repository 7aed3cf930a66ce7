"""Syncing a file: after a sync has failed, no later one succeeds."""

import errno
from collections.abc import Callable

from vscsihba.errors import FlushError


class Syncs:
    """Runs a sync call, and remembers that it failed.

    After a failed write-back the kernel takes the lost pages for clean, tells of it once, and
    reports success from then on (fsync(2)). So from a failure on everything fails here, until
    the file is opened anew. A full disk is not such a failure: it refuses a write before
    anything is lost.

    Args:
        path: For messages.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._failed = False

    def run(self, sync: Callable[[], object]) -> None:
        """Run `sync`.

        Raises:
            FlushError: It failed now, or something did before; bytes may be lost.
            OSError: There was no room.
        """
        if not self._failed:
            try:
                sync()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._failed = True
                raise FlushError(error.errno or errno.EIO, f"{self._path}: {error.strerror}") from error
        if self._failed:
            raise FlushError(errno.EIO, f"{self._path}: an earlier flush failed, bytes may be lost")
