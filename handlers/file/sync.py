"""Syncing a file: after a sync has failed, no later one succeeds."""

import errno
from collections.abc import Callable
from typing import Final

from vscsihba.errors import FlushError

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Syncs:
    """Runs a sync call, and remembers that it failed.

    After a failed write-back the kernel takes the lost pages for clean, tells of it once, and
    reports success from then on (fsync(2)). So from a failure on everything fails here, until
    the file is opened anew. That holds for a want of room too: where storage is allocated later
    than by write(2), on NFS and on thinly provisioned volumes, pages that were written before are
    lost then.

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
        """
        self._check()
        try:
            sync()
        except OSError as error:
            raise self._note(error) from error

    def run_write(self, write: Callable[[], object], again: Callable[[], object]) -> None:
        """Run a write that syncs the bytes that it stores.

        Args:
            write: The write.
            again: The same without a sync, which tells whether there is room for the bytes.

        Raises:
            FlushError: The sync failed now, or something did before; bytes may be lost.
            OSError: There was no room for the bytes; none are lost.
        """
        self._check()
        try:
            write()
        except OSError as error:
            if error.errno in _NO_ROOM:
                again()
            raise self._note(error) from error

    def _check(self) -> None:
        if self._failed:
            raise FlushError(errno.EIO, f"{self._path}: an earlier flush failed, bytes may be lost")

    def _note(self, error: OSError) -> FlushError:
        self._failed = True
        return FlushError(error.errno or errno.EIO, f"{self._path}: {error.strerror}")
