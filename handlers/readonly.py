"""readonly: nothing is written to the layer below.

It changes no byte, yet it is a `Transform`: of all verbs, present and future, only those
that read may go down.
"""

import errno
import os
from dataclasses import replace

from vscsihba.block import Capabilities, ExtentStatus, Geometry, Views
from vscsihba.handlers.asynchronous import ASYNC_VERBS, without
from vscsihba.handlers.base import AsyncVerbs, InlineVerbs
from vscsihba.handlers.filter import Transform


class ReadonlyHandler(Transform):
    """A write-protected disk."""

    name = "readonly"
    example = "readonly|/srv/disk.img"
    workers = 64
    never_blocks = True
    only_reads = True

    @property
    def geometry(self) -> Geometry:
        """The shape of the layer below."""
        return self.next.geometry

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities that need no writing, extents among them; punching a hole is refused like a write."""
        below = self.next.capabilities
        return Capabilities(
            read_only=True,
            unmap=below.unmap,
            unmap_zeroes=below.unmap_zeroes,
            extents=below.extents,
            rotational=below.rotational,
            in_place=below.in_place,
            unmap_granularity=below.unmap_granularity,
        )

    @property
    def identity(self) -> str:
        """The identity of the layer below: it is the same medium."""
        return self.next.identity

    @property
    def inline(self) -> InlineVerbs:
        """The inline read of the layer below."""
        return replace(self.next.inline, write=None)

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The asynchronous read of the layer below."""
        below = self.next.asynchronous
        return below and without(below, ASYNC_VERBS - {"read"})

    def read(self, offset: int, views: Views) -> None:
        """Pass down."""
        self.next.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Refuse.

        Raises:
            OSError: EROFS.
        """
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def flush(self) -> None:
        """Do nothing: nothing was written."""

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Pass down."""
        return self.next.extents(offset, length)
