"""An open image: connection, pool, image and lock, opened and closed together.

A cluster that does not answer can hold up the library for longer than a caller may wait. So this happens on a
thread that then goes on by itself, and releases everything when it can.
"""

import ctypes
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from vscsihba.errors import HostError, VscsihbaError
from vscsihba.handlers.rbd import connection, image, library, lock
from vscsihba.handlers.rbd.options import RbdOptions
from vscsihba.handlers.shared.abandonable_pool import AbandonablePool

log = logging.getLogger(__name__)

T = TypeVar("T")

_MARGIN = 10.0
"""Seconds that opening and closing may take beyond the limits of their steps."""


class Session:
    """An image that is open, or being opened.

    Args:
        options: Which image, and how.
        may_make: A missing image may be created, and a smaller one enlarged.

    Attributes:
        image: The open ``rbd.Image``.
        cluster: Its connection, a ``rados.Rados``.
        identity: Names the image, whatever it is called.
        size: Size of the image in bytes, as of the last call of `look_at_size`.
        is_foreign_size: Another client has given the image this size.
    """

    def __init__(self, options: RbdOptions, *, may_make: bool) -> None:
        self._options = options
        self._may_make = may_make
        self._opened = ExitStack()
        self._guard = threading.Lock()
        self._is_open = self._abandoned = self._made = False
        self._image_closed = self._released = self._is_kept = False
        self._note: lock.LockNote | None = None
        self._using_image = threading.Lock()
        self.image: Any = None
        self.cluster: Any = None
        self.identity = ""
        self.size = 0
        self.is_foreign_size = False

    def open(self) -> None:
        """Open everything.

        Raises:
            UsageError, HostError: It cannot be opened; everything is as before.
        """
        options = self._options
        limit = 2 * options.timeout + options.lock_wait + _MARGIN
        try:
            failed = _within(limit, f"rbd-open-{options.image}", self._try_open)
        except TimeoutError as error:
            self._abandon()
            raise HostError(f"the image {options.spec} was not opened within {limit:g} seconds") from error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Close everything; if the cluster does not answer, go on in the background.

        Raises:
            OSError: Something could not be released; a successor will break the lock.
        """
        options = self._options
        try:
            _within(options.timeout + _MARGIN, f"rbd-close-{options.image}", self._close)
        except TimeoutError:
            log.error(  # noqa: TRY400 - the trace says nothing
                "rbd %s: the cluster does not answer; the image is closed in the background", options.spec
            )

    def look_at_size(self) -> bool:
        """Ask for the size of the image; return whether it has changed.

        This costs a request only if another client has changed the image, and then may wait for the cluster.
        """
        with self._using_image:
            if not self._is_open:
                return False
            try:
                size = self.image.size()
            except library.errors():
                return False  # requests tell of it
        changed: bool = size != self.size
        self.size = size
        self.is_foreign_size |= changed
        return changed

    def resize(self, size: int) -> None:
        """Resize the image to `size` bytes, unless it has that size.

        A size that another client has given it is never reduced: bytes of that client may lie there.

        Raises:
            rbd.Error: The cluster refuses.
        """
        self.look_at_size()
        if size == self.size or (size < self.size and self.is_foreign_size):
            return
        self.image.resize(size)
        self.size, self.is_foreign_size = size, False

    def _try_open(self) -> VscsihbaError | None:
        """Open everything, on the thread that may be abandoned; return the error that is for a person."""
        try:
            with ExitStack() as opened:
                self._open(opened)
                with self._guard:
                    if not self._abandoned:
                        self._opened = opened.pop_all()
                        self._is_open = True
        except VscsihbaError as error:
            return error
        except library.errors() as error:
            return HostError(f"the image {self._options.spec} cannot be opened: {error}")
        return None

    def _open(self, opened: ExitStack) -> None:
        options = self._options
        opened.callback(self._end_note)
        self.cluster = cluster = connection.connect(options)
        opened.callback(self._shut_down, cluster)
        pool = connection.open_pool(cluster, options)
        opened.callback(self._close_pool, pool)
        opened.callback(self._remove_made, pool)
        self.image = image.open_image(pool, options)
        if self.image is None:
            self._make(cluster, pool)
        opened.callback(self._close_image)
        self.identity = self._name(cluster, pool)
        if not options.writes_nothing:
            if options.lock == "exclusive":
                self._lock(cluster, pool)
            if self._may_make:
                image.enlarge(self.image, options)
        self.size = self.image.size()
        self._made = False

    def _make(self, cluster: Any, pool: Any) -> None:
        """Create the image, and open it."""
        options = self._options
        if options.size is None or not self._may_make:
            raise image.missing(pool, options, lost=options.size is not None)
        image.create(cluster, pool, options)
        self._made = True
        self.image = image.open_image(pool, options)
        if self.image is None:
            raise HostError(f"the image {options.spec} was removed while it was opened")

    def _remove_made(self, pool: Any) -> None:
        """Remove an image that was created by an `open` that has failed."""
        if self._made:
            self._made = False
            library.rbd().RBD().remove(pool, self._options.image)

    def _lock(self, cluster: Any, pool: Any) -> None:
        """Take the lock of the image, after noting our address for whoever comes after us."""
        options = self._options
        image.check_lockable(self.image, options)
        self._note = note = lock.LockNote(self.identity, options.spec)
        dead = note.dead
        note.begin(str(cluster.get_addrs()))
        lock.acquire(
            self.image,
            pool,
            options.spec,
            dead=dead,
            patience=options.lock_wait,
            go_on=lambda: not self._abandoned,
        )
        note.acquired()

    def _close_image(self) -> None:
        """Close the image, which ends its requests and releases its lock.

        If that fails, its connection stays for as long as the process lives. librbd crashes when an image
        is closed again, or after the end of its connection, and python3-rbd closes it when the object is
        freed.
        """
        try:
            self.image.close()
        except BaseException:
            self._is_kept = True
            _keep_for_ever(self.image)
            raise
        self._image_closed = True

    def _close_pool(self, pool: Any) -> None:
        if self._is_kept:
            _keep_for_ever(pool)
        else:
            pool.close()

    def _shut_down(self, cluster: Any) -> None:
        if self._is_kept:
            _keep_for_ever(cluster)
        else:
            cluster.shutdown()
            self._released = self._image_closed

    def _end_note(self) -> None:
        if self._note is not None:
            self._note.close(released=self._released)

    def _name(self, cluster: Any, pool: Any) -> str:
        options = self._options
        name = f"rbd:{cluster.get_fsid()}/{pool.get_pool_id()}/{options.namespace}/{self.image.id()}"
        if options.snapshot:
            name += f"@{self.image.snap_get_id(options.snapshot)}"
        return name

    def _close(self) -> None:
        with self._using_image:
            self._is_open = False
        self._opened.close()

    def _abandon(self) -> None:
        """Leave an `open` that takes too long to its thread, which releases everything."""
        with self._guard:
            self._abandoned = True
            is_open = self._is_open
        if is_open:
            self.close()


def _keep_for_ever(thing: object) -> None:
    """Keep an object from being freed, also at the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _within(seconds: float, name: str, job: Callable[[], T]) -> T:
    """Run `job` on a thread of its own.

    Raises:
        TimeoutError: It has not ended after `seconds`; it goes on.
        OSError: It has failed, or no thread can be started.
    """
    pool = AbandonablePool(name, 1)
    future = pool.submit(job)
    pool.close()
    return future.result(seconds)
