"""The contract of a handler: the verbs that a disk is made of.

A handler is a *source*, which stores the bytes itself, or a *filter* (see `filter`),
which has another handler below it. The verbs and their order are nbdkit's. Everything
is in bytes: `offset` and `length` need not be aligned to blocks, `views` is a scatter
list of memoryviews of format ``B``. `vscsihba.handlers.checked` stands between the
verbs and their callers and holds both sides to the following.

* Callers stay inside the medium, never ask for 0 bytes, and never write to a medium
  that is read-only.
* A verb returns when it is done, or raises ``OSError`` with an errno (ENOSPC, EIO,
  ...). Bytes that are gone raise `MediumError`, which names the first of them; they
  are never made up as zeroes. After a failed write the bytes of its range are
  undefined, and no others.
* What was written and acknowledged may sit in a volatile cache until `flush` returns.
* A view may be used until the verb returns and no longer; an asynchronous verb (`AsyncVerbs`) until it
  calls `done`.

This module knows no SCSI, no engine and no particular handler.
"""

# ruff: noqa: B027  # optional verbs that do nothing by default

import errno
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Space, Views
from vscsihba.handlers import options as options_
from vscsihba.handlers.actions import Action

Mover = Callable[[Views, int, int], int]
"""Moves bytes as preadv(2) and pwritev(2) do: ``(views, offset, flags) -> bytes moved``."""


def _unheard(_size: int) -> None:
    """Take a size that nobody waits for."""


def _nothing() -> None:
    """End a batch whose end has no effect."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchedWrite:
    """An inline write in three parts, for a caller that executes several writes in a row.

    Attributes:
        first: The first write of a batch.
        rest: Those after it; called only if `first` has succeeded in the same batch.
        end: Called once after the last of them, before anything else is done. It never raises.
    """

    first: Mover
    rest: Mover
    end: Callable[[], object] = _nothing


_batched: WeakKeyDictionary[Mover, BatchedWrite] = WeakKeyDictionary()

_ZEROES = memoryview(bytes(64 << 10))
_ZEROES_AT_ONCE = 16 * len(_ZEROES)


@dataclass(frozen=True, slots=True)
class InlineVerbs:
    """Reads and writes that are quick enough for the thread that serves the ring.

    They must not block: one that would, raises ``BlockingIOError`` and has written nothing, or
    moves fewer bytes than it was given. Its caller then repeats the whole request through `Handler.read`
    or `Handler.write` on another thread, and does the same after any other ``OSError``,
    so that errors are told in one place only. They may run while other verbs run on
    threads, and keep no promise of `fua`.

    Attributes:
        read: Fills views, with the calling convention of ``os.preadv`` less its
            descriptor (``functools.partial(os.preadv, fd)``); None if there is none.
        read_flags: Its third argument.
        write: Likewise after ``os.pwritev``.
        write_flags: Its third argument.
        write_limit: Bytes above which `write` must not be used.
    """

    read: Mover | None = None
    read_flags: int = 0
    write: Mover | None = None
    write_flags: int = 0
    write_limit: int = 0


Done = Callable[[OSError | None], None]
"""Takes the result of an asynchronous verb: its error, None if there is none."""


class Pollable(Protocol):
    """A descriptor that the thread that serves the ring waits on for a handler.

    It is used between `attach` and `detach`, by that thread only. At all other times the handler finishes its
    verbs by itself.
    """

    def fileno(self) -> int:
        """Return the descriptor; it stays the same while the handler is open. Readable: `serve` has work."""

    def attach(self) -> None:
        """Leave it to the caller from now on to call `serve` whenever the descriptor is readable."""

    def serve(self) -> None:
        """Do the work that is due, without blocking; this may call `done` of several verbs."""

    def cork(self) -> None:
        """Expect several verbs: they may be held back until `uncork`, to be sent together.

        Also those that other threads begin meanwhile.
        """

    def uncork(self) -> None:
        """Send the requests that were held back; it never raises."""

    def detach(self) -> None:
        """Do without calls of `serve` from now on."""


@dataclass(frozen=True, slots=True)
class AsyncVerbs:
    """Verbs that return at once and are finished later, out of order, without a thread for each.

    A verb calls its `done` exactly once: on any thread, maybe before the verb returns, maybe while it holds
    locks of the handler. So `done` must only hand the result on. Views may be used until then. A verb that
    raises has begun nothing, and does not call `done`; after a ``BlockingIOError`` its caller uses the
    synchronous verb on another thread instead, as it does where there is no asynchronous one. The
    synchronous verbs may be used at the same time.

    Attributes:
        read: As `Handler.read`: ``(offset, views, done)``.
        write: As `Handler.write`: ``(offset, views, fua, done)``.
        flush: As `Handler.flush`: ``(done)``.
        unmap: As `Handler.unmap`: ``(offset, length, done)``.
        write_zeroes: As `Handler.write_zeroes`: ``(offset, length, may_unmap, fua, done)``.
        pollable: Finishes the verbs on the thread that serves the ring, if that can be done.
    """

    read: Callable[[int, Views, Done], None] | None = None
    write: Callable[[int, Views, bool, Done], None] | None = None
    flush: Callable[[Done], None] | None = None
    unmap: Callable[[int, int, Done], None] | None = None
    write_zeroes: Callable[[int, int, bool, bool, Done], None] | None = None
    pollable: Pollable | None = None


def note_batched(write: Mover, parts: BatchedWrite) -> Mover:
    """Return `write`, having noted the parts of which a batch of such writes can be made.

    Args:
        write: An inline write that is complete in itself.
        parts: The same for a batch, in which some checks are needed once only.
    """
    _batched[write] = parts
    return write


def batched(write: Mover) -> BatchedWrite:
    """Return the parts that `note_batched` has noted of an inline write, else the write as its only part.

    A filter that puts a function of its own around the write has none, and is never passed by.
    """
    return _batched.get(write) or BatchedWrite(write, write)


class Handler(ABC):
    """One layer of a disk.

    A source has to define `geometry` and `read`, and `write` unless it is read-only;
    what it leaves out has a safe default.

    Attributes:
        name: The name by which documents and messages call it.
        example: A disk made of it, as a command line or a document has it, for the help.
        workers: How many verbs may run at once, each on a thread of its own.
        never_blocks: Every verb is so quick that it runs on the thread that serves the ring.
        volatile: Its bytes are gone with the process that has opened it.
        may_make: `check` and `open` may make, enlarge or rebase the medium where the options ask for it. The
            stack withdraws it after the first `open` (`vscsihba.handlers.stack.Stack.forbid_making`).
        options: The options of this layer in the document.
        resized: To be called, on any thread, when another client of the storage has changed its size, with
            the bytes that it has now; the owner of the disk sets it. It never blocks.
    """

    class Options(options_.Options, kw_only=True):
        """No options."""

    name: ClassVar[str]
    example: ClassVar[str] = ""
    workers: int = 1
    never_blocks: bool = False
    volatile: ClassVar[bool] = False
    may_make: bool = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.resized: Callable[[int], None] = _unheard

    def check(self) -> None:
        """Check whether `open` can succeed, and change nothing.

        Called for every layer of a stack before the first of them opens.

        Raises:
            UsageError: The options cannot be meant, as the world is.
            HostError: This machine lacks something.
        """

    def check_reachable(self) -> None:
        """Check that storage of other processes is there, as far as that is quick; for new documents only.

        Unlike `check`, it is not called before `open`: a server may be away for a while.

        Raises:
            UsageError: It is not there.
        """

    def open(self) -> None:
        """Open the layer. A filter may rely on the layer below being open.

        Raises:
            UsageError: The options cannot be meant, as the world is.
            HostError: This machine lacks something, or another holds the medium.
            OSError: The system refused.
        """

    def close(self) -> None:
        """Release everything that `open` acquired; called once after it, and no verb is called after that."""

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """The shape of the medium; constant from `open` on except for `resize`."""

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the medium; constant from `open` on.

        By default that follows from the verbs that the class defines.
        """
        return Capabilities(
            read_only=not self._defines("write"),
            flush=self._defines("flush"),
            unmap=self._defines("unmap"),
            extents=self._defines("extents"),
            crypto_erase=self._defines("crypto_erase"),
        )

    @property
    def identity(self) -> str:
        """A text that names the medium, and no other, today and after every restart.

        By default that is the handler with its options.
        """
        return f"{self.name}:{options_.dump(self.options)}"

    @property
    def place(self) -> str:
        """A text that changes when another medium takes the place of this one under the same name.

        It holds for as long as the machine runs. By default nothing is known of that.
        """
        return ""

    def is_known_as(self, identity: str) -> bool:
        """Return whether a recorded identity, maybe of an earlier version, names this medium."""
        return identity == self.identity

    @property
    def inline(self) -> InlineVerbs:
        """The verbs that never block, if there are any; asked for once, after `open`.

        By default those of a handler that never blocks.
        """
        if not self.never_blocks:
            return InlineVerbs()

        def read(views: Views, offset: int, _flags: int) -> int:
            self.read(offset, views)
            return sum(map(len, views))

        def write(views: Views, offset: int, _flags: int) -> int:
            self.write(offset, views)
            return sum(map(len, views))

        return InlineVerbs(
            read=read, write=write if self._defines("write") else None, write_limit=sys.maxsize
        )

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The verbs that are finished later, if there are any; asked for once, after `open`."""
        return None

    @abstractmethod
    def read(self, offset: int, views: Views) -> None:
        """Fill `views` with the bytes from `offset` on.

        Raises:
            MediumError: Some of them are gone.
            OSError: They cannot be read.
        """

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Store the bytes of `views` from `offset` on; with `fua`, on stable storage.

        Raises:
            OSError: They cannot be written; ENOSPC if there is no room for them.
        """
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def flush(self) -> None:
        """Put everything that was written and acknowledged on stable storage.

        Raises:
            OSError: Some of it may be lost.
        """

    def unmap(self, offset: int, length: int) -> None:
        """Deallocate a range: nobody needs its bytes any more.

        They read as zeroes from then on if `Capabilities.unmap_zeroes`, else as zeroes
        or as what they were, each block on its own.

        Raises:
            OSError: EOPNOTSUPP unless `Capabilities.unmap`.
        """
        raise OSError(errno.EOPNOTSUPP, f"handler {self.name} does not unmap")

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Make a range read as zeroes; keep storage set aside for it unless `may_unmap`.

        By default zeroes are written.

        Raises:
            OSError: As `write`.
        """
        for start in range(offset, offset + length, _ZEROES_AT_ONCE):
            count = min(_ZEROES_AT_ONCE, offset + length - start)
            whole, rest = divmod(count, len(_ZEROES))
            self.write(start, [_ZEROES] * whole + [_ZEROES[:rest]] * bool(rest))
        if fua:
            self.flush()

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return the allocated extents: a non-empty head of the range, in order and without a gap."""
        return [ExtentStatus(Extent(offset, length), allocated=True, zero=False)]

    def space(self) -> Space | None:
        """Return the free space of the storage below, None if that is not known.

        Raises:
            OSError: It cannot be told just now.
        """
        return None

    def resize(self, size: int) -> None:
        """Change the capacity to `size` bytes; new bytes read as zeroes, unless a filter says otherwise.

        Raises:
            OSError: EOPNOTSUPP if the medium has a fixed size, or not this one.
            UsageError: No disk can have this size.
        """
        raise OSError(errno.EOPNOTSUPP, f"handler {self.name} cannot be resized")

    def crypto_erase(self) -> None:
        """Make every byte unreadable for ever by destroying the key.

        Raises:
            OSError: EOPNOTSUPP unless `Capabilities.crypto_erase`.
        """
        raise OSError(errno.EOPNOTSUPP, f"handler {self.name} has no key to destroy")

    def actions(self) -> Mapping[str, Action[Any]]:
        """Return the actions of this layer: operations beyond the verbs, while it is open."""
        return {}

    def _defines(self, verb: str) -> bool:
        """Return whether this handler's class defines `verb`."""
        return getattr(type(self), verb) is not getattr(Handler, verb)
