"""Extents of a sparse file: its holes and data, by lseek(2)."""

import errno
import os

from vscsihba.block import Extent, ExtentStatus

_AT_ONCE = 1024


def holes_and_data(fd: int, start: int, end: int) -> list[ExtentStatus]:
    """Return the holes and the data of a file from `start` to `end`, or the first of them.

    Storage that was set aside and never written counts as a hole here.

    Raises:
        OSError: As lseek(2).
    """
    # A description of its own: the file position is locked while SEEK_DATA reads metadata.
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _look(own, start, end)
    finally:
        os.close(own)


def _look(fd: int, start: int, end: int) -> list[ExtentStatus]:
    extents: list[ExtentStatus] = []
    while start < end and len(extents) < _AT_ONCE:
        try:
            data = min(os.lseek(fd, start, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end  # nothing but a hole up to the end of the file
        if start < data:
            extents.append(ExtentStatus(Extent(start, data - start), allocated=False, zero=True))
        if data < end:
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
            extents.append(ExtentStatus(Extent(data, hole - data), allocated=True, zero=False))
            data = hole
        start = data
    return extents
