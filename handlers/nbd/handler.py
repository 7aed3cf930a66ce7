"""nbd: a disk of a server in the network.

Reads and writes go from and to the caller's memory without a copy, unless a request has several views. The
link takes care of the connections; this module makes the protocol's requests of verbs: no larger than the
server takes, in multiples of its smallest block.
"""

import errno
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.errors import InUseError, NoSuchFileError
from vscsihba.handlers.asynchronous import wait
from vscsihba.handlers.base import AsyncVerbs, Done, Handler
from vscsihba.handlers.nbd.address import libnbd
from vscsihba.handlers.nbd.faults import explain
from vscsihba.handlers.nbd.link import Link
from vscsihba.handlers.nbd.options import NbdOptions
from vscsihba.handlers.nbd.requests import Export, Kind, Request
from vscsihba.handlers.shared.claims import NameClaim
from vscsihba.handlers.shared.range_lock import RangeLock

_RANGE: Final = 1 << 30
"""Bytes of one request without data, at most: the protocol's length has 32 bits."""
_READ, _WRITE = Kind.READ, Kind.WRITE
_HOLE: Final = 1
_ZERO: Final = 2
"""Flags of base:allocation."""


class NbdHandler(Handler):
    """A disk of an NBD server: nbdkit, qemu-nbd, nbd-server.

    Args:
        options: The export.
        private: The server belongs to the caller alone, who sends lost writes again itself: the export is not
            claimed, and no flush fails for want of such writes.
    """

    name = "nbd"
    example = "nbd:nbd://server/disk"
    workers = 8
    Options = NbdOptions
    options: NbdOptions

    def __init__(self, options: NbdOptions, *, private: bool = False) -> None:
        super().__init__(options)
        self._private = private
        self._alone = RangeLock()
        self._geometry: Geometry
        self._capabilities: Capabilities

    def check(self) -> None:
        """Check the URI, the keys and that libnbd is installed; the server is not asked.

        Raises:
            UsageError: The URI or a key is not usable.
            HostError: libnbd is missing.
        """
        libnbd()
        self.options.address.check()

    def check_reachable(self) -> None:
        """Check that the socket of a local server is there."""
        socket = self.options.address.socket
        if socket and not Path(socket).is_socket():
            missing = explain(self.options.address, OSError(errno.ENOENT, ""))
            raise NoSuchFileError(missing.message, cure=missing.cure)

    def open(self) -> None:
        """Connect.

        Raises:
            UsageError: The server has no such export, or refuses writes, or no disk can have its shape.
            HostError: The server cannot be reached.
            InUseError: Another disk of this machine has the export.
        """
        with ExitStack() as failing:
            if not self._private:
                failing.enter_context(self._claim())
            link = Link(self.options.address, self.options.link)
            try:
                link.open()
            except OSError as error:
                raise explain(self.options.address, error) from error
            failing.callback(link.close)
            self._geometry = self.options.shape(link.export)
            self._opened = failing.pop_all()
        self._link = link
        self._capabilities = self._capabilities_of(export := link.export)
        self._minimum, self._most = export.minimum, export.maximum // export.minimum * export.minimum

    def _capabilities_of(self, export: Export) -> Capabilities:
        return Capabilities(
            read_only=self.options.read_only,
            flush=export.flush,
            unmap=export.trim,
            extents=export.extents,
            rotational=export.rotational,
            unmap_granularity=max(export.minimum, export.preferred) if export.trim else 0,
        )

    def _claim(self) -> NameClaim:
        """Return the claim on the export: NBD has no locks, and two disks of a machine must not share it."""
        taken = InUseError(
            f"{self.options.address.name} is a disk of this machine already", cure="remove the other disk"
        )
        return NameClaim(self.identity, shared=self.options.read_only, taken=taken)

    def close(self) -> None:
        """Flush acknowledged writes, if there are any without a flush, and take leave of the server.

        Raises:
            OSError: The flush has failed: these writes may be lost.
        """
        with self._opened:
            if self._link.has_unflushed:
                self.flush()

    @property
    def geometry(self) -> Geometry:
        """The size and the blocks of the export."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the server."""
        return self._capabilities

    @property
    def identity(self) -> str:
        """The URI."""
        return f"nbd:{self.options.address.name}"

    @property
    def asynchronous(self) -> AsyncVerbs:
        """All verbs that move data."""
        return AsyncVerbs(
            read=self._begin_read,
            write=self._begin_write,
            flush=self._begin_flush,
            unmap=self._begin_unmap,
            write_zeroes=self._begin_zero,
            pollable=self._link,
        )

    def read(self, offset: int, views: Views) -> None:
        """Read."""
        length = sum(map(len, views))
        start, end = self._widened(offset, length)
        if (start, end) == (offset, offset + length):
            wait(partial(self._begin_read, offset, views))
            return
        room = memoryview(bytearray(end - start))
        wait(partial(self._begin_read, start, [room]))
        _scatter(room[offset - start :], views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write; parts of the server's blocks by reading and writing them whole."""
        length = sum(map(len, views))
        start, end = self._widened(offset, length)
        with self._alone.held(start, end - start):
            if (start, end) != (offset, offset + length):
                room = memoryview(bytearray(end - start))
                block = self._minimum
                wait(partial(self._begin_read, start, [room[:block]]))
                if end - start > block:
                    wait(partial(self._begin_read, end - block, [room[-block:]]))
                _gather(views, room[offset - start :])
                offset, views = start, [room]
            wait(partial(self._write, offset, views, fua))

    def flush(self) -> None:
        """Flush the server's cache, and hear of writes that a lost server may have lost."""
        wait(self._begin_flush)

    def unmap(self, offset: int, length: int) -> None:
        """Deallocate the blocks that lie in the range."""
        wait(partial(self._begin_unmap, offset, length))

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Zero a range; what is no whole block of the server is written."""
        start, end = self._narrowed(offset, length)
        if not self._link.export.zero or (start, end) != (offset, offset + length):
            super().write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)
            return
        with self._alone.held(offset, length):
            wait(partial(self._zero, offset, length, may_unmap, fua))

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Ask for the allocation, which the server may tell of a head of the range only."""
        if not self._link.export.extents:
            return super().extents(offset, length)
        start, end = self._widened(offset, min(length, _RANGE))
        requests: list[Request] = []

        def begin(done: Done) -> None:
            requests.append(Request(Kind.STATUS, done, start, end - start))
            self._link.begin(requests[0])

        wait(begin)
        extents, at, last = [], start, min(end, offset + length)
        entries = requests[0].extents
        for size, flags in zip(entries[::2], entries[1::2], strict=True):
            first, after = max(at, offset), min(at + size, last)
            at += size
            if first < after:
                extent = Extent(first, after - first)
                extents.append(ExtentStatus(extent, allocated=not flags & _HOLE, zero=bool(flags & _ZERO)))
        return extents or super().extents(offset, length)

    def resize(self, size: int) -> None:
        """Take over a new size of the export; it can only be changed on the server.

        Raises:
            OSError: EOPNOTSUPP: the export has another size.
        """
        self._link.adopt(size)
        export = self._link.export
        self._geometry, self._capabilities = self.options.shape(export), self._capabilities_of(export)

    def replaced_on_purpose(self) -> AbstractContextManager[None]:
        """Return a context in which the owner of a private server may end its connections unnoticed."""
        return self._link.replaced_on_purpose()

    # Asynchronous.

    def _begin_read(self, offset: int, views: Views, done: Done) -> None:
        if self._minimum > 1:
            self._need_blocks(offset, sum(map(len, views)))
        if len(views) == 1 and (length := len(view := views[0])) <= self._most:
            self._link.begin(Request(_READ, done, offset, length, view))
            return
        room = memoryview(bytearray(sum(map(len, views))))

        def read(error: OSError | None) -> None:
            if error is None:
                _scatter(room, views)
            done(error)

        self._begin_pieces(Kind.READ, offset, room, read)

    def _begin_write(self, offset: int, views: Views, fua: bool, done: Done) -> None:  # noqa: FBT001 - see AsyncVerbs
        if self._minimum == 1:  # no block can be written in part
            if len(views) == 1 and (length := len(view := views[0])) <= self._most:
                self._link.begin(Request(_WRITE, done, offset, length, view, fua=fua))
            else:
                self._write(offset, views, fua, done)
            return
        self._begin_locked(offset, sum(map(len, views)), partial(self._write, offset, views, fua), done)

    def _write(self, offset: int, views: Views, fua: bool, done: Done) -> None:  # noqa: FBT001 - likewise
        if len(views) == 1 and len(views[0]) <= self._most:
            view = views[0]
            self._link.begin(Request(_WRITE, done, offset, len(view), view, fua=fua))
            return
        self._begin_pieces(Kind.WRITE, offset, memoryview(b"".join(views)), done, fua=fua)

    def _begin_flush(self, done: Done) -> None:
        if self._link.export.flush:
            begin = self._link.begin if self._private else self._link.begin_flush
            begin(Request(Kind.FLUSH, done, reports=not self._private))
        else:
            done(None)

    def _begin_unmap(self, offset: int, length: int, done: Done) -> None:
        if not self._link.export.trim:
            raise OSError(errno.EOPNOTSUPP, "the server does not unmap")
        start, end = self._narrowed(offset, length)
        if start >= end:
            done(None)
            return
        self._begin_ranges(Kind.TRIM, start, end - start, done)

    def _begin_zero(self, offset: int, length: int, may_unmap: bool, fua: bool, done: Done) -> None:  # noqa: FBT001
        if not self._link.export.zero:
            raise BlockingIOError
        self._begin_locked(offset, length, partial(self._zero, offset, length, may_unmap, fua), done)

    def _zero(self, offset: int, length: int, may_unmap: bool, fua: bool, done: Done) -> None:  # noqa: FBT001
        self._begin_ranges(Kind.ZERO, offset, length, done, fua=fua, keep_storage=not may_unmap)

    def _begin_pieces(
        self, kind: Kind, offset: int, data: memoryview, done: Done, *, fua: bool = False
    ) -> None:
        """Begin a request with data, in pieces that the server takes."""
        most = self._most
        self._begin_all(
            [
                partial(_request, kind, offset + at, len(data[at : at + most]), data[at : at + most], fua=fua)
                for at in range(0, len(data), most)
            ],
            done,
        )

    def _begin_ranges(
        self,
        kind: Kind,
        offset: int,
        length: int,
        done: Done,
        *,
        fua: bool = False,
        keep_storage: bool = False,
    ) -> None:
        """Begin a request without data, in pieces that the protocol can name."""
        self._begin_all(
            [
                partial(
                    _request,
                    kind,
                    at,
                    min(_RANGE, offset + length - at),
                    b"",
                    fua=fua,
                    keep_storage=keep_storage,
                )
                for at in range(offset, offset + length, _RANGE)
            ],
            done,
        )

    def _begin_all(self, makers: list[Callable[[Done], Request]], done: Done) -> None:
        """Begin requests side by side; `done` gets the first error when all have ended."""
        if len(makers) == 1:
            self._link.begin(makers[0](done))
            return
        joined = _Joined(len(makers), done)
        for make in makers:
            try:
                self._link.begin(make(joined))
            except OSError as error:
                joined(error)

    def _need_blocks(self, offset: int, length: int) -> None:
        """Leave a range that is no multiple of the server's blocks to the synchronous verb.

        Raises:
            BlockingIOError: It is none.
        """
        if offset % self._minimum or length % self._minimum:
            raise BlockingIOError

    def _begin_locked(self, offset: int, length: int, begin: Callable[[Done], None], done: Done) -> None:
        """Begin a change of whole blocks, and keep read-modify-write out of them until it has ended.

        Raises:
            BlockingIOError: They are no whole blocks, or are being changed: wait on a thread.
        """
        self._need_blocks(offset, length)
        if self._minimum == 1:
            begin(done)
            return
        release = self._alone.try_hold(offset, length)
        if release is None:
            raise BlockingIOError

        def end(error: OSError | None) -> None:
            release()
            done(error)

        try:
            begin(end)
        except BaseException:
            release()
            raise

    def _widened(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first and the last end of the server's blocks that a range touches."""
        block = self._minimum
        return offset // block * block, -(-(offset + length) // block) * block

    def _narrowed(self, offset: int, length: int) -> tuple[int, int]:
        """Return the first and the last end of the server's blocks that lie in a range."""
        block = self._minimum
        return -(-offset // block) * block, (offset + length) // block * block


class _Joined:
    """The `done` of several requests.

    Args:
        count: Their number.
        done: Called once, with the first error, when all have ended.
    """

    def __init__(self, count: int, done: Done) -> None:
        self._left = count
        self._done = done
        self._error: OSError | None = None
        self._lock = threading.Lock()

    def __call__(self, error: OSError | None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            last = not self._left
        if last:
            self._done(self._error)


def _request(
    kind: Kind,
    offset: int,
    length: int,
    view: memoryview | bytes,
    done: Done,
    *,
    fua: bool = False,
    keep_storage: bool = False,
) -> Request:
    return Request(kind, done, offset, length, view, fua=fua, keep_storage=keep_storage)


def _scatter(data: memoryview, views: Views) -> None:
    at = 0
    for view in views:
        view[:] = data[at : at + len(view)]
        at += len(view)


def _gather(views: Views, room: memoryview) -> None:
    at = 0
    for view in views:
        room[at : at + len(view)] = view
        at += len(view)
