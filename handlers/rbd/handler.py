"""rbd: an image of a Ceph cluster as a disk.

A write is acknowledged when all replicas have it on stable storage, so there is nothing to flush. Requests
are asynchronous, and end out of order. This module has the verbs; `session` opens the image, `lock` keeps
other writers away, `requests` keeps time limits.
"""

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from vscsihba.block import Buffer, Capabilities, ExtentStatus, Geometry, Space, Views
from vscsihba.errors import MediumError, UsageError
from vscsihba.handlers.asynchronous import wait
from vscsihba.handlers.base import AsyncVerbs, Done, Handler
from vscsihba.handlers.rbd import library, ticker
from vscsihba.handlers.rbd.extents import allocated_extents
from vscsihba.handlers.rbd.options import RbdOptions
from vscsihba.handlers.rbd.requests import Request, Requests
from vscsihba.handlers.rbd.session import Session
from vscsihba.handlers.rbd.space import space_of
from vscsihba.units import format_size

log = logging.getLogger(__name__)

_PHYSICAL_BLOCK = 4096
"""Bytes that the storage of Ceph (bluestore) writes at once."""
_DISCARD_UNIT = 64 << 10
"""Bytes of the smallest discard that Ceph recommends (rbd_discard_granularity_bytes); all are exact."""
_LONGEST = 1 << 30
"""Bytes of the longest request to librbd; longer ranges are cut into several."""


class RbdHandler(Handler):
    """An image of a Ceph cluster."""

    name = "rbd"
    example = "rbd:rbd;image=vm1;user=vscsihba"
    workers = 16

    class Options(RbdOptions, kw_only=True):
        """Options of the rbd handler."""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._session = Session(options, may_make=False)
        self._requests = Requests(options.spec, options.timeout)

    def check(self) -> None:
        """Check that the packages, the configuration and the keyring are there; the cluster is not asked."""
        library.rados()
        library.rbd()
        self.options.check_files()
        if self.options.size is not None:
            self._shape(self.options.size, 0)

    def open(self) -> None:
        """Connect, open or create the image, and take its lock."""
        self._session = Session(self.options, may_make=self.may_make)
        self._requests = Requests(self.options.spec, self.options.timeout)
        self._session.open()
        try:
            self._image = self._session.image
            self._geometry = self._shape(self._session.size, self._image.stat()["obj_size"])
            self._thick = library.rbd().RBD_WRITE_ZEROES_FLAG_THICK_PROVISION
            ticker.DEADLINES.add(self._requests.expire)
            try:
                ticker.SIZES.add(self._look_at_size)
            except BaseException:
                ticker.DEADLINES.remove(self._requests.expire)
                raise
        except BaseException:
            self._session.close()
            raise

    def close(self) -> None:
        """Release the lock and end the connection."""
        ticker.SIZES.remove(self._look_at_size)
        ticker.DEADLINES.remove(self._requests.expire)
        self._session.close()

    @property
    def geometry(self) -> Geometry:
        """The size of the image at `open`, or after `resize`; objects are the optimal transfer."""
        return self._geometry

    @property
    def capabilities(self) -> Capabilities:
        """Nothing is cached, unmapped bytes read as zeroes, and old bytes may survive below."""
        return Capabilities(
            read_only=self.options.writes_nothing,
            unmap=True,
            unmap_zeroes=True,
            extents=True,
            unmap_granularity=_DISCARD_UNIT,
            in_place=False,  # snapshots keep old data, and bluestore writes to new places
        )

    @property
    def identity(self) -> str:
        """Cluster, pool, namespace and the internal ID of the image, which survives a rename."""
        return self._session.identity

    @property
    def asynchronous(self) -> AsyncVerbs:
        """All verbs of data; a thread of librbd finishes them."""
        if self.options.writes_nothing:
            return AsyncVerbs(read=self._read)
        return AsyncVerbs(
            read=self._read,
            write=self._write,
            flush=_flush,
            unmap=self._unmap,
            write_zeroes=self._write_zeroes,
        )

    def read(self, offset: int, views: Views) -> None:
        """Read from the cluster."""
        wait(partial(self._read, offset, views))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Write to stable storage of all replicas."""
        wait(partial(self._write, offset, views, fua))

    def flush(self) -> None:
        """Do nothing: acknowledged writes are on stable storage."""

    def unmap(self, offset: int, length: int) -> None:
        """Remove whole objects, and deallocate parts of others."""
        self.write_zeroes(offset, length, may_unmap=True)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Deallocate the range, or write zeroes without sending them."""
        start, end = offset, offset + length
        while start < end:
            stop = min((start // _LONGEST + 1) * _LONGEST, end)  # no object is cut in two
            wait(partial(self._write_zeroes, start, stop - start, may_unmap, fua))
            start = stop

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return allocated objects, as far as data was written to each."""
        self._check_end(offset, length)
        try:
            return allocated_extents(self._image, offset, length)
        except library.errors() as error:
            raise library.os_error(error, f"rbd {self.options.spec}: extents") from error

    def space(self) -> Space | None:
        """Return the bytes of its objects and those that its pool can take; None if that is not known."""
        try:
            return space_of(self._session.cluster, self._image)
        except library.errors() as error:
            raise library.os_error(error, f"rbd {self.options.spec}: space") from error

    def resize(self, size: int) -> None:
        """Resize the image, or take the size that another client has given it."""
        shape = replace(self._geometry, size=size)
        try:
            self._session.resize(size)
        except library.errors() as error:
            raise library.os_error(error, f"rbd {self.options.spec}: resize") from error
        self._geometry = shape

    # Requests: each is begun, and calls `done` later, on a thread of librbd.

    def _read(self, offset: int, views: Views, done: Done) -> None:
        length = sum(map(len, views))
        self._check_end(offset, length)
        requests = self._requests
        request = requests.begin(done, changes=False)

        def completed(completion: Any, data: bytes | None) -> None:
            count = completion.get_return_value()
            if count != length or data is None:
                requests.end(request, self._failure("read", offset, length, count))
            elif requests.take(request):
                if len(views) == 1:
                    views[0][:] = data
                else:
                    Buffer(views).scatter(data)
                done(None)

        self._send(request, partial(self._image.aio_read, offset, length, completed), "read")

    # The arguments are those of `AsyncVerbs`.

    def _write(self, offset: int, views: Views, _fua: bool, done: Done) -> None:  # noqa: FBT001
        length = sum(map(len, views))
        self._check_end(offset, length)
        data = b"".join(views)  # librbd takes nothing but bytes
        start = partial(self._image.aio_write, data, offset)
        self._change("write", offset, length, done, start)

    def _unmap(self, offset: int, length: int, done: Done) -> None:
        self._zero(offset, length, 0, done)

    def _write_zeroes(
        self,
        offset: int,
        length: int,
        may_unmap: bool,  # noqa: FBT001
        _fua: bool,  # noqa: FBT001
        done: Done,
    ) -> None:
        self._zero(offset, length, 0 if may_unmap else self._thick, done)

    def _zero(self, offset: int, length: int, flags: int, done: Done) -> None:
        """Begin to zero a range: without flags by an exact discard, since aio_discard rounds.

        Raises:
            BlockingIOError: The range is too long for one request.
        """
        if length > _LONGEST:
            raise BlockingIOError(errno.EAGAIN, "several requests, one after the other")
        self._check_end(offset, length)
        start = partial(self._image.aio_write_zeroes, offset, length, zero_flags=flags)
        self._change("write zeroes", offset, length, done, lambda completed: start(oncomplete=completed))

    def _change(
        self,
        verb: str,
        offset: int,
        length: int,
        done: Done,
        start: Callable[[Callable[[Any], None]], object],
    ) -> None:
        request = self._requests.begin(done, changes=True)

        def completed(completion: Any) -> None:
            result = completion.get_return_value()
            self._requests.end(request, None if result >= 0 else self._failure(verb, offset, length, result))

        self._send(request, lambda: start(completed), verb)

    def _send(self, request: Request, start: Callable[[], object], verb: str) -> None:
        try:
            start()
        except library.errors() as error:
            failed = library.os_error(error, f"rbd {self.options.spec}: {verb}")
            if self._requests.take(request):
                raise failed from error
        except BaseException:
            self._requests.take(request)
            raise

    def _failure(self, verb: str, offset: int, length: int, result: int) -> OSError:
        """Return the error for a result of librbd: a negative errno, or too few bytes."""
        if result >= 0 or -result == errno.EINVAL:
            return MediumError(
                offset + max(0, result), f"rbd {self.options.spec} ends before byte {offset + length}"
            )
        return library.failure(-result, f"rbd {self.options.spec}: {verb}")

    def _check_end(self, offset: int, length: int) -> None:
        """Refuse bytes behind the end of an image that another client has made smaller.

        librbd would drop writes there without an error.

        Raises:
            MediumError: They lie there.
        """
        end = self._session.size
        if offset + length > end:
            raise MediumError(max(offset, end), f"rbd {self.options.spec} was cut to {format_size(end)}")

    def _shape(self, size: int, object_size: int) -> Geometry:
        block = self.options.block_size
        try:
            return Geometry(
                size,
                block_size=block,
                physical_block_size=max(block, _PHYSICAL_BLOCK),
                optimal_io=object_size,
            )
        except UsageError as error:
            raise UsageError(f"the image {self.options.spec}: {error.message}", cure=error.cure) from error

    def _look_at_size(self) -> None:
        """Report an image that another client has resized."""
        if self._session.look_at_size():
            size = self._session.size
            log.warning(
                "rbd %s: another client has changed the size to %s", self.options.spec, format_size(size)
            )
            self.resized(size)


def _flush(done: Done) -> None:
    """Flush nothing: acknowledged writes are on stable storage."""
    done(None)
