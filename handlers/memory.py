"""memory: a disk in RAM, gone when it is closed.

Only pages that were written take memory; zeroes and what is unmapped give it back.
"""

import errno
import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Capabilities, Extent, ExtentStatus, Space, Views
from vscsihba.errors import InUseError
from vscsihba.handlers.options import Size
from vscsihba.handlers.shared.claims import NameClaim
from vscsihba.handlers.sized import Label, SizedSource
from vscsihba.units import format_size

PAGE = 64 << 10
_ZEROES = bytes(PAGE)
_EXTENTS_WITHIN = 4096 * PAGE
"""Bytes of which `extents` tells at once, so that it stays quick."""


class MemoryHandler(SizedSource):
    """A disk in RAM."""

    name = "memory"
    example = "memory:1GiB"
    volatile = True

    class Options(SizedSource.Options, kw_only=True):
        """Options of the memory handler."""

        limit: Annotated[
            Size | None, Meta(description="Limit of memory; further writes fail as on a full disk.")
        ] = None
        label: Label = ""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._pages: dict[int, bytearray] = {}
        self._label = options.label or str(uuid.uuid4())

    def open(self) -> None:
        """Open the disk; it reads as zeroes.

        Raises:
            InUseError: Another disk has the label, and so the same identity.
        """
        super().open()
        with ExitStack() as opened:
            if self.options.label:
                opened.enter_context(self._claim())
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Free every page."""
        self._pages.clear()
        self._opened.close()

    @property
    def capabilities(self) -> Capabilities:
        """Unmap gives pages back, there is nothing to flush to, and no write is ever half done.

        Nothing of the disk outlives its process, so no crash leaves half of a write behind.
        """
        return Capabilities(
            unmap=True, unmap_zeroes=True, extents=True, unmap_granularity=PAGE, atomic_write=sys.maxsize
        )

    @property
    def identity(self) -> str:
        """The label; without one, every memory disk is another medium."""
        return f"memory:{self._label}"

    def read(self, offset: int, views: Views) -> None:
        """Copy out; a page that is not there is zeroes."""
        for view in views:
            at = 0
            for number, start, end in _pieces(offset, len(view)):
                page = self._pages.get(number, _ZEROES)
                view[at : at + end - start] = page[start:end]
                at += end - start
            offset += len(view)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Copy in, if there is room for all of it; `fua` has no effect."""
        if self.options.limit is not None:
            self._check_room(offset, sum(map(len, views)))
        for view in views:
            at = 0
            for number, start, end in _pieces(offset, len(view)):
                page = self._pages.get(number)
                if page is None:
                    page = self._pages.setdefault(number, bytearray(PAGE))
                page[start:end] = view[at : at + end - start]
                at += end - start
            offset += len(view)

    def unmap(self, offset: int, length: int) -> None:
        """Free whole pages, zero the rest."""
        end = offset + length
        first, last = -(-offset // PAGE), end // PAGE
        if last < first:
            self._zero(offset, end)
            return
        self._zero(offset, first * PAGE)
        self._zero(last * PAGE, end)
        # Whichever is shorter: a terabyte may be unmapped on a disk with ten pages.
        whole = range(first, last)
        there = whole if len(whole) < len(self._pages) else [page for page in self._pages if page in whole]
        for number in there:
            self._pages.pop(number, None)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Free whole pages in any case: no storage is set aside in RAM."""
        self.unmap(offset, length)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Return allocated pages as data, others as holes."""
        extents: list[ExtentStatus] = []
        for number, start, end in _pieces(offset, min(length, _EXTENTS_WITHIN)):
            here = number in self._pages
            extent = Extent(number * PAGE + start, end - start)
            if extents and extents[-1].allocated == here:
                before = extents.pop().extent
                extent = Extent(before.offset, before.length + extent.length)
            extents.append(ExtentStatus(extent, allocated=here, zero=not here))
        return extents

    def space(self) -> Space | None:
        """Return the bytes that the limit leaves; None without a limit."""
        used, limit = len(self._pages) * PAGE, self.options.limit
        return None if limit is None else Space(available=max(0, limit - used), used=used)

    def resize(self, size: int) -> None:
        """Take a new size in bytes; pages that are cut off are freed."""
        before = self.geometry.size
        super().resize(size)
        if size < before:
            self.unmap(size, before - size)

    def _claim(self) -> AbstractContextManager[None]:
        label = self.options.label
        taken = InUseError(f"another memory disk has the label {label!r}", cure="give each disk its own")
        return NameClaim(self.identity, shared=False, taken=taken)

    def _zero(self, start: int, end: int) -> None:
        """Zero a range within one page, if the page is there."""
        number, first = divmod(start, PAGE)
        if start < end and number in self._pages:
            self._pages[number][first : first + end - start] = bytes(end - start)

    def _check_room(self, offset: int, length: int) -> None:
        """Refuse a write that needs more pages than the limit has left, before any of it is done.

        Raises:
            OSError: ENOSPC.
        """
        limit = self.options.limit
        new = sum(number not in self._pages for number, _start, _end in _pieces(offset, length))
        if limit is not None and new and (len(self._pages) + new) * PAGE > limit:
            raise OSError(errno.ENOSPC, f"the memory disk is full at its limit of {format_size(limit)}")


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range at the borders of pages: number of the page, first byte in it, byte after the last."""
    end = offset + length
    while offset < end:
        number, start = divmod(offset, PAGE)
        stop = min(PAGE, start + end - offset)
        yield number, start, stop
        offset += stop - start
