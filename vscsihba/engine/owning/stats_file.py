"""Counters and latencies of a LUN in a mapped file of the run directory, from its creation to its removal.

They go on when another engine takes the LUN over. If that engine was killed, the counters of its last few
batches are missing. Statistics never prevent that a disk is served: where there is no room for the file, they
begin anew with each owner.
"""

import contextlib
import logging
import mmap
import os
import struct
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Final

from vscsihba.latency import SIZE, Latencies
from vscsihba.stats import LunStats

log = logging.getLogger(__name__)

_HEAD: Final = struct.Struct("=8sQ")
"""magic, and the layout: its version and the number of counters."""
_COUNTERS: Final = struct.Struct(f"={len(fields(LunStats))}Q")
_values_of: Final = attrgetter(*(counter.name for counter in fields(LunStats)))
_LAYOUT: Final = _HEAD.pack(b"vscstats", 1 << 32 | len(fields(LunStats)))
_LATENCIES: Final = _HEAD.size + _COUNTERS.size
_LENGTH: Final = _LATENCIES + SIZE


class StatsFile:
    """The statistics of one LUN, for its owner.

    Args:
        lun: For log lines.
        path: Path of the file.

    Attributes:
        stats: Counters, with the values that the last owner has kept; the serving thread changes them.
        latencies: Histograms, which the file has at any time.
    """

    def __init__(self, lun: int, path: Path) -> None:
        self.stats = LunStats()
        self.latencies = Latencies()
        self._lun = lun
        self._path = path
        self._map: mmap.mmap | None = None

    def open(self) -> None:
        """Go on with the statistics of the last owner, or begin anew if there are none."""
        try:
            self._map = _mapped(self._path)
        except (OSError, ValueError) as error:
            log.warning(
                "lun %d: its statistics begin anew with this engine: %s: %s", self._lun, self._path, error
            )
            return
        self.stats = LunStats(*_COUNTERS.unpack_from(self._map, _HEAD.size))
        self.latencies = Latencies(memoryview(self._map)[_LATENCIES:])

    def keep(self) -> None:
        """Store the counters."""
        if self._map is not None:
            _COUNTERS.pack_into(self._map, _HEAD.size, *_values_of(self.stats))

    def close(self) -> None:
        """Store the counters, and unmap; nothing may be counted any more."""
        if self._map is not None:
            self.keep()
            self.latencies.release()
            with contextlib.suppress(BufferError):  # a snapshot is being taken; the map goes with it
                self._map.close()
            self._map = None

    def forget(self) -> None:
        """Begin anew with the next `open`: the LUN has been created."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _mapped(path: Path) -> mmap.mmap:
    """Map the file; one that does not exist or has another layout is replaced.

    Its space is allocated now: a store into a page that a full tmpfs cannot allocate is a SIGBUS.

    Raises:
        OSError: There is no room for it, or it cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(fd).st_size != _LENGTH or os.pread(fd, _HEAD.size, 0) != _LAYOUT:
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, _LENGTH)
            os.pwrite(fd, _LAYOUT, 0)
        made = mmap.mmap(fd, _LENGTH)
    finally:
        os.close(fd)
    made.madvise(mmap.MADV_DONTFORK)
    return made
