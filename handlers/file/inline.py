"""Inline reads and writes of a file: which of them may run on the thread that serves the ring.

*Reads* use ``RWF_NOWAIT`` (preadv(2), Linux 4.14) where the file system has it: the page
cache answers, or nobody does. tmpfs has it not, and needs it not: its page cache is the
storage. Elsewhere every read goes to a thread.

*Writes* are buffered, which no flag makes non-blocking on ext4, and nearly always take
as long as the copy: 2 us for 4 KiB, where a trip to a thread costs 33 us. They block
when the kernel throttles a writer of too much dirty data (balance_dirty_pages in
``mm/page-writeback.c``: naps of 10 to 200 ms), or when somebody else holds the inode.
Nothing tells so in advance. So the clock does: inline writes that took longer than
`SLOW` send those that follow to threads for `PATIENCE` times as long, and the serving
thread can lose at most 1/`PATIENCE` of its time that way. The clock is read before and after a
batch of writes, and after each `STRIDE` bytes in between: where reading it is a system call (User-Mode
Linux, a machine whose clock source the vDSO cannot read), two readings cost more than a write of 4 KiB.

A processor that is taken away from us makes writes slow, too, and threads would only make
that worse. So slow writes only arouse suspicion; for `WARY` seconds the next ones are asked
whether they slept (``ru_nvcsw`` of getrusage(2)), which costs a system call, and another one if
they were slow again. A process that is traced (strace) sleeps in every call: of its writes
nothing can be told.

tmpfs has no writeback that could be throttled, so its writes are not timed at all. A file on another machine
(NFS and the like) is never written inline: when that machine does not answer, even asking for the size of the
file hangs, and with it every disk of the engine.
"""

import errno
import os
import resource
import time
from dataclasses import dataclass
from functools import partial

from vscsihba.block import Views
from vscsihba.handlers.base import BatchedWrite, InlineVerbs, Mover, note_batched
from vscsihba.handlers.shared import linux

SLOW = 0.005
"""Seconds from which on a few writes have surely waited for something."""
PATIENCE = 50
WARY = 1.0
"""Seconds for which writes are looked at closely after a slow one."""
STRIDE = 128 << 10
"""Bytes of a batch after which the clock is read again."""
WRITE_LIMIT = 1 << 20
"""Bytes: a tenth of a millisecond. Threads would not speed that up, for a file has one writer at a time."""


@dataclass(slots=True)
class Expected:
    """The size that a file should have, in bytes; 0 for a device, which nobody truncates."""

    size: int


def inline_verbs(fd: int, expected: Expected, *, read_only: bool) -> InlineVerbs:
    """Return the verbs that may run inline on the open file `fd`."""
    flags = read_flags(fd)
    return InlineVerbs(
        read=None if flags is None else partial(os.preadv, fd),
        read_flags=flags or 0,
        write=None if read_only or linux.is_remote(fd) else bounded_writer(fd, expected),
        write_limit=WRITE_LIMIT,
    )


def read_flags(fd: int) -> int | None:
    """Return the flags with which a read of `fd` never blocks, None if there are none."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return os.RWF_NOWAIT
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return 0 if linux.is_memory(fd) else None
    return os.RWF_NOWAIT


def bounded_writer(fd: int, expected: Expected) -> Mover:
    """Return a pwritev that refuses for a while after a slow write.

    It also leaves a file alone that has become shorter than `expected`: writing behind
    its end would bring the lost bytes back as zeroes. lseek(2) is the cheapest way to ask, and
    once for each batch is enough (`vscsihba.handlers.base.BatchedWrite`): it takes less than
    somebody needs to notice that the file has lost its end.
    """
    return _untimed_writer(fd, expected) if linux.is_memory(fd) else _timed_writer(fd, expected)


def _untimed_writer(fd: int, expected: Expected) -> Mover:
    """Return the writer of a file whose writes are never throttled."""
    size_of, pwritev, end = os.lseek, os.pwritev, os.SEEK_END

    def write(views: Views, offset: int, flags: int) -> int:
        if size_of(fd, 0, end) < expected.size:
            raise BlockingIOError
        return pwritev(fd, views, offset, flags)

    return note_batched(write, BatchedWrite(write, partial(pwritev, fd)))


def _timed_writer(fd: int, expected: Expected) -> Mover:
    """Return the writer of a file whose writes may be throttled."""
    size_of, pwritev, end = os.lseek, os.pwritev, os.SEEK_END
    watch = _Watch()

    def first(views: Views, offset: int, flags: int) -> int:
        if size_of(fd, 0, end) < expected.size:
            raise BlockingIOError
        watch.begin()
        return rest(views, offset, flags)

    def rest(views: Views, offset: int, flags: int) -> int:
        if watch.blocked:
            raise BlockingIOError
        done = pwritev(fd, views, offset, flags)
        watch.left -= done
        if watch.left <= 0:
            watch.judge()
            watch.go_on()
        return done

    def write(views: Views, offset: int, flags: int) -> int:
        done = first(views, offset, flags)
        watch.judge()
        return done

    return note_batched(write, BatchedWrite(first, rest, watch.judge))


class _Watch:
    """Measures whether inline writes of a file block.

    Attributes:
        blocked: They do: no more of them in this batch.
        left: Bytes until the clock must be read again.
    """

    __slots__ = ("_began", "_calm", "_clock", "_now", "_resume", "_slept", "_wary", "blocked", "left")

    def __init__(self) -> None:
        self.blocked = False
        self.left = 0
        self._clock = time.monotonic
        self._began = self._now = self._resume = self._wary = self._calm = 0.0
        self._slept: int | None = None

    def begin(self) -> None:
        """Begin a batch.

        Raises:
            BlockingIOError: It is too early for inline writes again.
        """
        self._now = self._clock()
        if self._now < self._resume:
            raise BlockingIOError
        self.blocked = False
        self.go_on()

    def go_on(self) -> None:
        """Measure the next writes from the last reading of the clock on."""
        self._began = now = self._now
        self.left = STRIDE
        self._slept = times_slept() if now < self._wary else None

    def judge(self) -> None:
        """Judge the time that the writes since `begin` or `go_on` have taken."""
        began = self._began
        self._now = now = self._clock()
        if (spent := now - began) <= SLOW or began <= self._calm:
            return
        if linux.is_traced():
            self._calm = began + WARY
            return
        if self._slept is not None and self._slept != times_slept():
            self._resume, self.blocked = began + PATIENCE * spent, True
        self._wary = max(self._resume, now) + WARY


def times_slept() -> int:
    """Return the number of voluntary context switches of this thread."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
