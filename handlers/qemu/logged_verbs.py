"""Asynchronous verbs of an image whose acknowledged writes survive the death of its daemon.

A write is acknowledged once it is in the write log (`write_log`), or, where that has no room, once a flush
has succeeded. A generation is the life of one daemon. A request that ends in a later generation than it began
in is begun again: its answer may be that of the dead daemon, and the log has been repeated without it.

This module knows neither processes nor sockets.
"""

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from vscsihba.block import Views
from vscsihba.handlers.base import AsyncVerbs, Done, Handler
from vscsihba.handlers.qemu.flushes import Flushes, Generation, Later
from vscsihba.handlers.qemu.write_log import Change, WriteLog
from vscsihba.threads import VitalThread, start

log = logging.getLogger(__name__)


class _Request:
    """A change on its way.

    Attributes:
        change: The change.
        views: Its data.
        fua: It must be on stable storage before it is acknowledged.
        done: Takes the result.
        generation: Life of the daemon in which it was begun last.
        logged: It is in the log.
    """

    __slots__ = ("change", "done", "fua", "generation", "logged", "views")

    def __init__(self, change: Change, views: Views, done: Done, *, fua: bool) -> None:
        self.change = change
        self.views = views
        self.fua = fua
        self.done = done
        self.generation = 0
        self.logged = False


class LoggedVerbs:
    """The verbs of one disk, made of those of a link to its daemon.

    Args:
        link: A handler whose asynchronous verbs go on after the death of a daemon by themselves: what had no
            answer is sent to the next one.
        write_log: The log; None if every write that has an answer is on stable storage.
        name: The image, for messages.
        stuck: Called when a request has timed out: the daemon must not carry it out any more.

    Raises:
        OSError: No thread can be started.
    """

    def __init__(
        self, link: Handler, write_log: WriteLog | None, name: str, stuck: Callable[[], None]
    ) -> None:
        verbs = link.asynchronous
        assert verbs is not None  # noqa: S101 - it is a remote handler
        self._link = link
        self._verbs = verbs
        self._log = write_log
        self._name = name
        self._stuck = stuck
        self._generation = Generation()
        self._idle = threading.Condition()
        self._busy = 0
        self._paused = False
        # A link may call `done` while it holds its locks: what is begun then is begun on this thread.
        self._later = Later()
        flush = verbs.flush if verbs.flush is not None else _nothing_to_flush
        self._flushes = Flushes(flush, write_log, self._generation, self._later, name)
        start(VitalThread(self._begin_later, f"qemu {name}"))

    def close(self) -> None:
        """End; no verb is under way."""
        self._later.put(None)

    @property
    def verbs(self) -> AsyncVerbs:
        """The verbs; they raise BlockingIOError while the disk is paused, or where the link does."""
        return AsyncVerbs(
            read=self.read,
            write=self.write,
            flush=self.flush,
            write_zeroes=self.write_zeroes,
            unmap=self.unmap,
            pollable=self._verbs.pollable,
        )

    def read(self, offset: int, views: Views, done: Done, *, wait: bool = False) -> None:
        """Read; see `AsyncVerbs`. With `wait` it may block, and raises no BlockingIOError."""
        assert self._verbs.read is not None  # noqa: S101 - every link reads
        self._enter(wait=wait)
        try:
            self._begin_or_wait(
                partial(self._verbs.read, offset, views),
                partial(self._link.read, offset, views),
                partial(self._ended, done),
                wait=wait,
            )
        except BaseException:
            self._leave()
            raise

    def write(self, offset: int, views: Views, fua: bool, done: Done, *, wait: bool = False) -> None:  # noqa: FBT001 - see AsyncVerbs
        """Write; see `AsyncVerbs` and `read`."""
        self._change(_Request(Change(offset, sum(map(len, views))), views, done, fua=fua), wait=wait)

    def write_zeroes(
        self,
        offset: int,
        length: int,
        may_unmap: bool,  # noqa: FBT001 - see AsyncVerbs
        fua: bool,  # noqa: FBT001 - likewise
        done: Done,
        *,
        wait: bool = False,
    ) -> None:
        """Write zeroes; see `AsyncVerbs` and `read`."""
        change = Change(offset, length, zero=True, may_unmap=may_unmap)
        self._change(_Request(change, (), done, fua=fua), wait=wait)

    def unmap(self, offset: int, length: int, done: Done, *, wait: bool = False) -> None:
        """Make zeroes that need no storage; see `read`."""
        change = Change(offset, length, zero=True, may_unmap=True)
        self._change(_Request(change, (), done, fua=False), wait=wait)

    def flush(self, done: Done, *, wait: bool = False) -> None:
        """Flush; see `AsyncVerbs` and `read`."""
        self._enter(wait=wait)
        self._later.put(partial(self._flushes.add, partial(self._flushed, done)))

    def died(self) -> None:
        """Begin a new generation: the daemon is dead, and no answer of it counts from now on."""
        with self._generation.lock:
            self._generation.number += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Return a context in which no request is under way, and all have been flushed.

        Raises:
            OSError: The flush has failed.
        """
        with self._idle:
            while self._paused:
                self._idle.wait()
            self._paused = True
            while self._busy:
                self._idle.wait()
        try:
            self._flush_paused()
            yield
        finally:
            with self._idle:
                self._paused = False
                self._idle.notify_all()

    def _flush_paused(self) -> None:
        ended = threading.Event()
        errors: list[OSError | None] = []

        def done(error: OSError | None, _generation: int) -> None:
            errors.append(error)
            ended.set()

        self._later.put(partial(self._flushes.add, done))
        ended.wait()
        if errors[0] is not None:
            raise errors[0]

    def _enter(self, *, wait: bool) -> None:
        with self._idle:
            while self._paused:
                if wait:
                    self._idle.wait()
                    continue
                raise BlockingIOError(errno.EAGAIN, f"{self._name} is paused")
            self._busy += 1

    def _leave(self) -> None:
        with self._idle:
            self._busy -= 1
            if self._paused and not self._busy:
                self._idle.notify_all()

    def _ended(self, done: Done, error: OSError | None) -> None:
        if error is not None and error.errno == errno.ETIMEDOUT:
            self._stuck()
        self._leave()
        done(error)

    def _flushed(self, done: Done, error: OSError | None, _generation: int) -> None:
        self._ended(done, error)

    def _change(self, request: _Request, *, wait: bool) -> None:
        self._enter(wait=wait)
        try:
            self._begin(request, wait=wait)
        except BaseException:
            self._leave()
            raise

    def _begin(self, request: _Request, *, wait: bool) -> None:
        request.generation = self._generation.number
        change, verbs, link = request.change, self._verbs, self._link
        fua = request.fua and self._log is None
        if change.zero:
            assert verbs.write_zeroes is not None  # noqa: S101 - every link that writes has it
            start = partial(verbs.write_zeroes, change.offset, change.length, change.may_unmap, fua)
            run: Callable[[], None] = partial(
                link.write_zeroes, change.offset, change.length, may_unmap=change.may_unmap, fua=fua
            )
        else:
            assert verbs.write is not None  # noqa: S101 - likewise
            start = partial(verbs.write, change.offset, request.views, fua)
            run = partial(link.write, change.offset, request.views, fua=fua)
        self._begin_or_wait(start, run, partial(self._changed, request), wait=wait)

    def _begin_or_wait(
        self, start: Callable[[Done], None], run: Callable[[], None], done: Done, *, wait: bool
    ) -> None:
        """Begin an asynchronous verb of the link; where it has to block, and may, run the synchronous one."""
        try:
            start(done)
        except BlockingIOError:
            if not wait:
                raise
            done(_error_of(run))

    def _changed(self, request: _Request, error: OSError | None) -> None:
        """Take the answer to a change; it may come from a daemon that has died meanwhile."""
        if error is not None or self._log is None:
            self._ended(request.done, error)
            return
        with self._generation.lock:
            stale = request.generation != self._generation.number
            if not stale:
                request.logged = self._append(self._log, request)
                due = self._log.is_half_full
        if stale:
            self._later.put(partial(self._begin_again, request))
        elif request.fua or not request.logged:
            self._later.put(partial(self._flushes.add, partial(self._change_flushed, request)))
        else:
            if due:
                self._later.put(self._flushes.add_unless_running)
            self._ended(request.done, None)

    def _append(self, write_log: WriteLog, request: _Request) -> bool:
        try:
            return write_log.append(request.change, request.views)
        except OSError as error:
            log.error("%s: a write cannot be logged, so it is flushed: %s", self._name, error)  # noqa: TRY400
            return False

    def _change_flushed(self, request: _Request, error: OSError | None, generation: int) -> None:
        if error is None and not request.logged and generation != request.generation:
            self._begin_again(request)  # the daemon that had it died before the flush
        else:
            self._ended(request.done, error)

    def _begin_again(self, request: _Request) -> None:
        try:
            self._begin(request, wait=True)
        except OSError as error:
            self._ended(request.done, error)

    def _begin_later(self) -> None:
        while (begin := self._later.get()) is not None:
            begin()


def _error_of(run: Callable[[], None]) -> OSError | None:
    """Run a synchronous verb, and return its error."""
    try:
        run()
    except OSError as error:
        return error
    return None


def _nothing_to_flush(done: Done) -> None:
    """Flush a disk that is never written."""
    done(None)
