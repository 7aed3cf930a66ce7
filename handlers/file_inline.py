"""Inline reads and writes of a file: which of them may run on the thread that serves the ring.

*Reads* use ``RWF_NOWAIT`` (preadv(2), Linux 4.14) where the file system has it: the page
cache answers, or nobody does. tmpfs has it not, and needs it not: its page cache is the
storage. Elsewhere every read goes to a thread.

*Writes* are buffered, which no flag makes non-blocking on ext4, and nearly always take
as long as the copy: 2 us for 4 KiB, where a trip to a thread costs 33 us. They block
when the kernel throttles a writer of too much dirty data (balance_dirty_pages in
``mm/page-writeback.c``: naps of 10 to 200 ms), or when somebody else holds the inode.
Nothing tells so in advance. So the clock does: an inline write that took longer than
`SLOW` sends those that follow to threads for `PATIENCE` times as long, and the serving
thread can lose at most 1/`PATIENCE` of its time that way.

A processor that is taken away from us makes a write slow, too, and threads would only make
that worse. So a slow write only arouses suspicion; for `WARY` seconds the next one is asked
whether it slept (``ru_nvcsw`` of getrusage(2)), which costs a system call, and another one if
it was slow again. A process that is traced (strace) sleeps in every call: of its writes nothing can be told.
"""

import errno
import os
import resource
import time
from dataclasses import dataclass
from functools import partial

from vscsihba.block import Views
from vscsihba.handlers import linux
from vscsihba.handlers.base import InlineVerbs, Mover, followed_up

SLOW = 0.005
"""Seconds from which on a write has surely waited for something."""
PATIENCE = 50
WARY = 1.0
"""Seconds for which writes are looked at closely after a slow one."""
WRITE_LIMIT = 1 << 20
"""Bytes: a tenth of a millisecond. Threads would not speed that up, for a file has one writer at a time."""


@dataclass(slots=True)
class Expected:
    """The size that a file should have, in bytes; 0 for a device, which nobody truncates."""

    size: int


def inline_verbs(fd: int, expected: Expected, *, read_only: bool) -> InlineVerbs:
    """Return what may run inline on the open file `fd`."""
    flags = read_flags(fd)
    return InlineVerbs(
        read=None if flags is None else partial(os.preadv, fd),
        read_flags=flags or 0,
        write=None if read_only else bounded_writer(fd, expected),
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
    """Return a pwritev that stops being tried while writes are slow.

    It also leaves a file alone that has become shorter than `expected`: writing behind
    its end would bring the lost bytes back as zeroes. lseek(2) is the cheapest way to ask, and
    once for each batch is enough (`vscsihba.handlers.base.follow_up`): it takes less than
    somebody needs to notice that the file has lost its end.
    """
    clock, size_of, pwritev, end = time.monotonic, os.lseek, os.pwritev, os.SEEK_END
    resume = wary = calm = 0.0

    def write_on(views: Views, offset: int, flags: int) -> int:
        nonlocal resume, wary, calm
        start = clock()
        if start < resume:
            raise BlockingIOError
        slept = times_slept() if start < wary else None
        done = pwritev(fd, views, offset, flags)
        if (spent := clock() - start) > SLOW and start > calm:
            if linux.is_traced():
                calm = start + WARY
                return done
            if slept is not None and slept != times_slept():
                resume = start + PATIENCE * spent
            wary = max(resume, start + spent) + WARY
        return done

    def write(views: Views, offset: int, flags: int) -> int:
        if size_of(fd, 0, end) < expected.size:
            raise BlockingIOError
        return write_on(views, offset, flags)

    return followed_up(write, write_on)


def times_slept() -> int:
    """Return how often this thread has given up its processor by itself."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
