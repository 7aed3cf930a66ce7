"""Logged changes repeated on a new daemon, before its clients can reach it."""

from collections.abc import Iterable
from pathlib import Path

from vscsihba.handlers.qemu.link import open_link
from vscsihba.handlers.qemu.write_log import Change

_TIMEOUT = 10.0


def repeat_changes(socket: Path, changes: Iterable[tuple[Change, memoryview]], *, flush: bool) -> None:
    """Carry out changes on the daemon that listens on a socket.

    Args:
        socket: Its socket.
        changes: The changes, in order, with their data.
        flush: Put them on stable storage.

    Raises:
        VscsihbaError, OSError: One of them failed; some of them may have been carried out.
    """
    link = open_link(socket, timeout=_TIMEOUT, read_only=False)
    try:
        for change, data in changes:
            if change.zero:
                link.write_zeroes(change.offset, change.length, may_unmap=change.may_unmap)
            else:
                link.write(change.offset, [data])
        if flush:
            link.flush()
    finally:
        link.close()
