"""One leg of a mirror: a stack that may have all the data, be behind, be gone, or hang."""

import errno
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from queue import Empty
from typing import Any, TypeVar

import msgspec

from vscsihba.block import Capabilities, Geometry, Views
from vscsihba.errors import NoSuchFileError, VscsihbaError
from vscsihba.handlers.base import BatchedWrite, Handler, InlineVerbs, Mover, batched
from vscsihba.handlers.fan import Leg
from vscsihba.handlers.mirror.assembly import Candidate, Verdict
from vscsihba.handlers.mirror.mark import FoundMark, is_empty, read_mark, write_mark
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata, State, identity_text, short
from vscsihba.handlers.shared import token_lock
from vscsihba.handlers.shared.abandonable_pool import AbandonablePool, Future, attempt

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds to wait for what a leg was asked last, when the mirror closes."""
_SOON = 0.05
"""Seconds within which a change ends, of those under way, if the storage does not make them all wait."""
_LONG = 1.0
"""Seconds that a change takes at most if the storage does not make it wait, even on a busy machine."""

T = TypeVar("T")


class Standing(Enum):
    """The part of a leg in its mirror."""

    WHOLE = "whole"
    """It has all the data: it is read and written."""
    BEHIND = "behind"
    """It is written, and being made equal to the others."""
    GONE = "gone"
    """It cannot be used."""


_STATES: dict[Standing, State] = {Standing.WHOLE: "in", Standing.BEHIND: "behind", Standing.GONE: "out"}


@dataclass(frozen=True, slots=True)
class LegStatus:
    """Status of a leg, for display.

    Attributes:
        number: Where it stands.
        identity: Of its medium; empty if it was never open.
        standing: ``whole``, ``behind`` or ``gone``.
        error: Why it is gone.
        uuid: Of the leg, as its mark has it; empty if it is not known.
        marked: It carries a mark, so another medium in its place is noticed.
    """

    number: int
    identity: str
    standing: str
    error: str
    uuid: str = ""
    marked: bool = False


class MirrorLeg:
    """A leg.

    Everything that is asked of it runs on threads of its own, on memory of its own, since it
    may go on after nobody waits for it any more.

    Args:
        stack: The leg, unopened.
        number: Where it stands, for messages.

    Attributes:
        uuid: Names it, once that is known.
        event: The event count in its mark; 0 if it has none.
        marked_size: Capacity of the disk when its mark was written, in bytes.
        has_room: It is large enough for a mark.
        identity: Of its medium, once it was open.
        standing: Its part in the mirror.
        error: Why it is gone.
        geometry: Its shape, once it was open.
        capabilities: Capabilities of its stack, once it was open.
        overwrite: The content of its medium may be overwritten, the next time that it is opened.
    """

    def __init__(self, stack: Leg, number: int) -> None:
        self.number = number
        self.uuid = self.identity = self.error = ""
        self.event = self.marked_size = 0
        self.has_room = False
        self.standing = Standing.GONE
        self.geometry = Geometry(512)
        self.capabilities = Capabilities()
        self.overwrite = False
        self._stack = stack
        self._pool: AbandonablePool | None = None
        self._inline = InlineVerbs()
        self._inline_write: BatchedWrite | None = None
        self._inline_use = token_lock.TokenLock()
        self._changes: dict[object, float] = {}
        self._last_ended = -math.inf
        self._counting = threading.Lock()
        self._given_up: list[Future[Any]] = []

    def __str__(self) -> str:
        """Return the number and the document of the leg, for messages."""
        return f"leg {self.number} ({self.identity})" if self.identity else f"leg {self.number}"

    @property
    def status(self) -> LegStatus:
        """The status of the leg, for display."""
        return LegStatus(
            self.number, self.identity, self.standing.value, self.error, self.uuid, self.event > 0
        )

    @property
    def document(self) -> bytes:
        """Canonical text of its document, the same for the same words."""
        return msgspec.json.encode(self._stack.document, order="sorted")

    def entry(self, state: State | None = None) -> LegEntry:
        """Return its entry in the metadata, now or with another state."""
        return LegEntry(
            uuid=self.uuid,
            state=state or _STATES[self.standing],
            event=self.event,
            until=self.event,
            size=self.marked_size,
            identity="" if self.event else identity_text(self.identity),
            name=short(self.identity) if self.event else "",
        )

    def check(self) -> None:
        """Check whether the leg can be opened; see `Handler.check`."""
        self._stack.check()

    def open(self, timeout: float | None) -> Handler | None:
        """Try to open the leg; return it, or None and keep the reason in `error`.

        What it is good for then is for others to say. A leg that opens too late is closed as soon as it has.
        """
        if self._pool is not None and not self._pool.join(timeout):
            self.error = "what it was asked last has not ended yet"
            return None
        self._pool = pool = AbandonablePool(f"leg{self.number}", self._stack.workers)
        opened: list[Handler] = []

        def open_stack() -> str:
            try:
                opened.append(self._stack.open())
            except NoSuchFileError as error:
                return error.message  # a leg that is gone comes back; it need not be created
            except VscsihbaError as error:
                return str(error)
            return ""

        def close_stack() -> None:
            if opened:
                self._close_stack()

        self._at_end = close_stack
        try:
            self.error = pool.submit(open_stack).result(timeout)
            if opened:
                self._disk = opened[0]
                return pool.submit(self._look).result(timeout)
        except OSError as error:
            self.error = str(error)
        pool.close(close_stack)
        return None

    def _look(self) -> Handler:
        """Read identity and mark of the open stack, on a thread of the leg."""
        disk = self._disk
        self.identity, self.error = disk.identity, ""
        self.geometry, self.capabilities = disk.geometry, disk.capabilities
        self._inline = inline = disk.inline
        self._inline_write = batched(inline.write) if inline.write is not None else None
        return disk

    def candidate(self, metadata: Metadata | None, timeout: float | None) -> Candidate:
        """Return the facts about the open leg by which it is judged.

        Args:
            metadata: Metadata of the mirror, if there are any.
            timeout: Seconds to wait for the leg; None for ever.

        Raises:
            OSError: Its mark cannot be read.
        """

        def empty() -> bool:
            return self.submit(
                lambda disk: is_empty(disk, disk.geometry.size if metadata is None else metadata.size)
            ).result(timeout)

        def known(identity: str) -> bool:
            return self.submit(lambda disk: disk.is_known_as(identity)).result(timeout)

        sizes = () if metadata is None else metadata.sizes
        mark: FoundMark = self.submit(lambda disk: read_mark(disk, sizes)).result(timeout)
        return Candidate(str(self), self.identity, mark, empty, self.overwrite, known)

    def take(self, verdict: Verdict) -> None:
        """Take over the judgement of the leg."""
        self.uuid, self.event, self.marked_size = verdict.uuid, verdict.event, verdict.size
        self.overwrite = False

    def begin_mark(self, metadata: Metadata) -> Future[None]:
        """Start writing the mark on a thread of the leg.

        Raises:
            OSError: It was dropped, or may still write an older mark.
        """
        self.check_answers()
        own = msgspec.structs.replace(metadata, leg=self.uuid)
        return self.begin_change(lambda disk: write_mark(disk, own), waits=True)

    def give_up(self, future: Future[Any]) -> None:
        """Note a change of the leg that is not waited for any more, and may still happen."""
        self._given_up = [each for each in (*self._given_up, future) if not each.is_done]

    def check_answers(self) -> None:
        """Refuse a change while an earlier one may still happen.

        Else that could land after what is newer.

        Raises:
            OSError: Such a change was given up, and has not ended.
        """
        if self._has_given_up:
            raise OSError(errno.EIO, "a leg has not answered an earlier request yet")

    def submit(self, verb: Callable[[Handler], T]) -> Future[T]:
        """Run a call on a thread of the leg.

        Raises:
            OSError: It was dropped.
        """
        assert self._pool is not None  # noqa: S101  # a leg that was never open is not asked
        disk = self._disk
        return self._pool.submit(lambda: verb(disk))

    def begin_change(self, verb: Callable[[Handler], T], *, waits: bool = False) -> Future[T]:
        """Run a call that changes or flushes the leg on a thread of the leg.

        Args:
            verb: The call.
            waits: It waits for the storage: it flushes.

        Raises:
            OSError: It was dropped.
        """
        key = object()

        def change(disk: Handler) -> T:
            try:
                return verb(disk)
            finally:
                self._end_change(key)

        with self._counting:
            self._changes[key] = -math.inf if waits else time.monotonic()
        try:
            return self.submit(change)
        except BaseException:
            self._end_change(key)
            raise

    def _end_change(self, key: object) -> None:
        with self._counting:
            del self._changes[key]
            self._last_ended = time.monotonic()

    @property
    def under_way(self) -> int:
        """The number of calls on threads of the leg that have not ended."""
        return 0 if self._pool is None else self._pool.under_way

    @property
    def write_limit(self) -> int:
        """Bytes above which there is no inline write; 0 if there is none at all."""
        return self._inline.write_limit if self._inline_write is not None else 0

    def check_inline_write(self, length: int) -> BatchedWrite:
        """Return the inline write of the leg, if nothing suggests that it would block.

        A write to the page cache may wait for flushes that are under way, and for changes if the storage
        makes these wait. So writes go to threads, where a leg that does not answer is noticed, during a
        flush, while changes are under way and none of them ends, and while one takes very long. They also do
        while a change that nobody waits for may still happen. That changes on threads take long is no reason
        as long as they end one after the other: they do on a busy machine, all the more if all writes join
        them.

        Raises:
            BlockingIOError: There is none for so many bytes, or it may block.
        """
        write = self._inline_write
        if write is None or length > self._inline.write_limit or (self._changes and self._may_block()):
            raise BlockingIOError
        return write

    def _may_block(self) -> bool:
        with self._counting:
            began, last_ended = min(self._changes.values(), default=math.inf), self._last_ended
        now = time.monotonic()
        return now - began > _LONG or now - max(began, last_ended) > _SOON or self._has_given_up

    @property
    def _has_given_up(self) -> bool:
        """Whether a change that nobody waits for any more may still happen."""
        return bool(self._given_up) and not all(future.is_done for future in self._given_up)

    def write_inline(self, write: Mover, views: Views, offset: int, length: int) -> None:
        """Write without blocking.

        Args:
            write: One of the parts that `check_inline_write` has returned.
            views: The bytes.
            offset: Their place.
            length: How many there are.

        Raises:
            BlockingIOError: It would block, or the leg was closed; nothing is written.
            OSError: It failed, and some bytes may be written.
        """
        # The lock keeps a descriptor from being closed, and given to another file, under the write.
        use = self._inline_use
        try:
            use.take(False)  # noqa: FBT003 - see TokenLock
        except Empty:
            raise BlockingIOError from None
        try:
            if self._inline_write is None:
                raise BlockingIOError
            moved = write(views, offset, self._inline.write_flags)
        finally:
            use.release()
        if moved != length:
            raise OSError(errno.EIO, f"{self} took {moved} bytes of {length}")

    def read_inline(self, views: Views, offset: int) -> int:
        """Read without blocking; see `vscsihba.handlers.base.InlineVerbs`."""
        # The lock keeps a descriptor from being closed, and given to another file, under the read.
        use = self._inline_use
        try:
            use.take(False)  # noqa: FBT003 - see TokenLock
        except Empty:
            raise BlockingIOError from None
        try:
            if self._inline.read is None:
                raise BlockingIOError
            return self._inline.read(views, offset, self._inline.read_flags)
        finally:
            use.release()

    def drop(self, error: Exception | str) -> None:
        """Use the leg no more, because of `error`, and close it when its requests have ended."""
        self.standing, self.error = Standing.GONE, str(error)
        if self._pool is not None:
            self._pool.close(self._at_end)

    def wait_until_closed(self) -> None:
        """Wait until a leg that was dropped is closed, but not for one that hangs."""
        if self._pool is not None:
            self._pool.join(_PATIENCE)

    def close(self) -> None:
        """Close the leg, once its requests have ended; one that hangs is left to the kernel.

        Raises:
            OSError: As the stack's close.
        """
        self.standing = Standing.GONE
        if self._pool is None:
            return
        failures: list[OSError] = []

        def close_stack() -> None:
            try:
                self._forget_inline()
                attempt(self._stack.close)
            except OSError as error:
                failures.append(error)

        self._pool.close(close_stack)
        if not self._pool.join(_PATIENCE):
            log.error("%s hangs, and is left open", self)
        if failures:
            raise failures[0]

    def _close_stack(self) -> None:
        self._forget_inline()
        try:
            attempt(self._stack.close)
        except OSError as error:
            log.warning("%s: closing it failed: %s", self, error)

    def _forget_inline(self) -> None:
        with self._inline_use:
            self._inline, self._inline_write = InlineVerbs(), None
