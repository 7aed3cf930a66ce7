"""Direct I/O on a file: past the page cache, in whole sectors of the storage.

``O_DIRECT`` (open(2)) takes memory, offsets and lengths that are aligned; requests are not.
So everything goes through a buffer of its own, and a write that does not fill its sectors
reads the rest of them first, alone.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import Empty, SimpleQueue

from vscsihba.block import Buffer, Views
from vscsihba.errors import MediumError, UsageError
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.shared.vectored import store, transfer

DIRECT_ALIGNMENT = 4096
"""What every file system takes, in bytes."""
_ROOM = 1 << 20
"""Bytes of one buffer, a multiple of every alignment; what is longer takes several turns."""


class DirectFile:
    """An open file whose page cache is not used.

    Args:
        fd: The file; it is opened once more.
        path: For messages.
        alignment: Bytes that everything has to be a multiple of.

    Raises:
        UsageError: The file system has no such thing.
    """

    def __init__(self, fd: int, path: str, alignment: int) -> None:
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", access | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise UsageError(f"{path}: O_DIRECT is not supported here", cure='leave "direct" out') from error
        self._path = path
        self._alignment = alignment
        self._gate = RWLock()
        self._rooms: SimpleQueue[mmap.mmap] = SimpleQueue()

    def close(self) -> None:
        """Close it."""
        fd, self._fd = self._fd, -1
        os.close(fd)

    def read(self, offset: int, views: Views) -> None:
        """Fill `views`.

        Raises:
            MediumError: The file ends before.
        """
        buffer = Buffer(views)
        for start, end in self._turns(offset, offset + buffer.length):
            first, last = max(start, offset), min(end, offset + buffer.length)
            with self._room() as room:
                self._load(start, room[: end - start])
                buffer.scatter(room[first - start : last - start], first - offset)

    def write(self, offset: int, views: Views, *, flags: int) -> None:
        """Store `views`, with the flags of pwritev(2)."""
        buffer = Buffer(views)
        for start, end in self._turns(offset, offset + buffer.length):
            first, last = max(start, offset), min(end, offset + buffer.length)
            whole = (first, last) == (start, end)
            with self._gate.together() if whole else self._gate.alone(), self._room() as room:
                if not whole:
                    self._load(start, room[: end - start])
                Buffer([room[first - start : last - start]]).scatter(
                    buffer.gather(first - offset, last - first)
                )
                store(lambda part, at: os.pwritev(self._fd, part, at, flags), start, [room[: end - start]])

    def beside_writes(self) -> AbstractContextManager[None]:
        """Return a context in which no write reads the rest of its sectors.

        Whatever changes the file other than by `write` (zeroing, unmapping, truncation) is done in it:
        a write that has read before the change and writes after it would undo the change.
        """
        return self._gate.together()

    def _load(self, start: int, room: memoryview) -> None:
        done = transfer(lambda part, at: os.preadv(self._fd, part, at), start, [room])
        if done < len(room):
            raise MediumError(start + done, f"{self._path} ends at byte {start + done}")

    def _turns(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a range into aligned parts that fit into the buffer."""
        start = start // self._alignment * self._alignment
        end = -(-end // self._alignment) * self._alignment
        for at in range(start, end, _ROOM):
            yield at, min(at + _ROOM, end)

    @contextmanager
    def _room(self) -> Iterator[memoryview]:
        """Return a context with an aligned buffer."""
        try:
            room = self._rooms.get_nowait()
        except Empty:
            room = mmap.mmap(-1, _ROOM)
        try:
            yield memoryview(room)
        finally:
            self._rooms.put(room)
