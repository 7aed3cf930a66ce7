"""Filters: handlers that sit on another one, in two kinds.

A `PassThrough` leaves the bytes where and what they are; what it does not define goes
down unchanged. A `Transform` moves or changes them; what it does not define never
reaches the layer below: it inherits from `Handler`, whose defaults are made of
the other verbs or refuse, and nothing in `Transform` delegates a verb. So an encrypting
filter that knows nothing of write_zeroes writes encrypted zeroes, and cannot pass the
request down to store plain ones; the same holds for verbs that do not exist yet.
"""

from abc import abstractmethod
from dataclasses import replace

from vscsihba.block import Capabilities, ExtentStatus, Geometry, Space, Views
from vscsihba.handlers.asynchronous import ASYNC_VERBS, without
from vscsihba.handlers.base import AsyncVerbs, Handler, InlineVerbs


class Filter(Handler):
    """Base of both kinds: a layer below. Derive from one of the two, not from this.

    Attributes:
        next: The handler below; open whenever this one is.
        only_reads: The layer below is never written to, so it may be shared.
    """

    only_reads: bool = False

    def __init__(self, options: Handler.Options, below: Handler) -> None:
        super().__init__(options)
        self.next = below
        self.workers = min(type(self).workers, below.workers)
        self.never_blocks = type(self).never_blocks and below.never_blocks

    @property
    def place(self) -> str:
        """The place of the layer below."""
        return self.next.place


class PassThrough(Filter):
    """A filter that does not change or move bytes: it watches, delays, refuses or distributes requests.

    Every verb goes down as it came unless the class defines it.
    """

    @property
    def geometry(self) -> Geometry:
        """The shape of the layer below."""
        return self.next.geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the layer below."""
        return self.next.capabilities

    @property
    def identity(self) -> str:
        """The identity of the layer below: it is the same medium."""
        return self.next.identity

    def is_known_as(self, identity: str) -> bool:
        """Ask the layer below: it is the same medium."""
        return self.next.is_known_as(identity)

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the layer below; of those that this class wants to see, its own if any."""
        inline, own = self.next.inline, super().inline
        if type(self).read is not PassThrough.read:
            inline = replace(inline, read=own.read, read_flags=own.read_flags)
        if type(self).write is not PassThrough.write:
            inline = replace(
                inline, write=own.write, write_flags=own.write_flags, write_limit=own.write_limit
            )
        return inline

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The asynchronous verbs of the layer below, except those that this class defines."""
        below, own = self.next.asynchronous, type(self)
        if below is None:
            return None
        return without(
            below, {verb for verb in ASYNC_VERBS if getattr(own, verb) is not getattr(PassThrough, verb)}
        )

    def read(self, offset: int, views: Views) -> None:
        """Pass down."""
        self.next.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Pass down."""
        self.next.write(offset, views, fua=fua)

    def flush(self) -> None:
        """Pass down."""
        self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Pass down."""
        self.next.unmap(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Pass down."""
        self.next.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Pass down."""
        return self.next.extents(offset, length)

    def space(self) -> Space | None:
        """Pass down."""
        return self.next.space()

    def resize(self, size: int) -> None:
        """Pass down."""
        self.next.resize(size)

    def crypto_erase(self) -> None:
        """Pass down."""
        self.next.crypto_erase()


class Transform(Filter):
    """A filter that changes bytes or moves them.

    It has to say how to read and write, what shape the medium has from above, and what
    a flush means. Nothing that it does not define goes down.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities that this class defines, of those that the layer below has."""
        below = self.next.capabilities
        return replace(
            super().capabilities,
            read_only=below.read_only,
            flush=below.flush,
            rotational=below.rotational,
            in_place=below.in_place,
        )

    @property
    def identity(self) -> str:
        """This filter's name and the identity of the layer below."""
        return f"{self.name}:{self.next.identity}"

    def is_known_as(self, identity: str) -> bool:
        """Ask the layer below, if what comes before its identity is the same."""
        before = self.identity.removesuffix(self.next.identity)
        if before == self.identity or not identity.startswith(before):
            return super().is_known_as(identity)
        return self.next.is_known_as(identity.removeprefix(before))

    @abstractmethod
    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Store the bytes, changed or elsewhere."""

    @abstractmethod
    def flush(self) -> None:
        """Flush this layer, then the one below."""
