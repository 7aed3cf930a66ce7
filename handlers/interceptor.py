"""Interceptor: filters that run the same code around every verb.

Such a filter defines `around`, a context manager that is entered before a verb goes down
and left after it. The bytes go by unseen. This module knows what is asked for, not what a filter makes of it.
"""

import os
from abc import abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

from msgspec import Meta

from vscsihba.block import ExtentStatus, Views
from vscsihba.handlers.asynchronous import ASYNC_VERBS, surrounded, without
from vscsihba.handlers.base import AsyncVerbs, InlineVerbs
from vscsihba.handlers.filter import PassThrough
from vscsihba.handlers.options import FilePath

Verb = Literal["read", "write", "flush", "unmap", "write_zeroes", "extents", "resize", "crypto_erase"]
"""The verbs of a handler."""
VERBS: tuple[Verb, ...] = get_args(Verb)

Trigger = Annotated[FilePath, Meta(description="Act only while a file of this name exists.")]
"""An option that switches a filter on and off while the disk is in use."""


def is_triggered(trigger: str) -> bool:
    """Return whether the file of a `Trigger` exists, or none was given."""
    return not trigger or os.path.exists(trigger)  # noqa: PTH110  # a Path costs more


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a verb.

    Attributes:
        verb: Which.
        offset: First byte of its range; 0 if it has none.
        length: Bytes of its range; 0 if it has none, the new size for a resize.
        fua: It is to end on stable storage.
    """

    verb: Verb
    offset: int = 0
    length: int = 0
    fua: bool = False

    def __str__(self) -> str:
        """Lay the request out as words."""
        ranged = self.verb not in ("flush", "resize", "crypto_erase")
        where = f" offset={self.offset} length={self.length}" if ranged else ""
        size = f" size={self.length}" if self.verb == "resize" else ""
        return f"{self.verb}{where}{size}{' fua' if self.fua else ''}"


class Interceptor(PassThrough):
    """A filter with one method, `around`, that runs around every verb of the layer below.

    Attributes:
        only_observes: `around` never waits, and may be left on another thread than it was entered on, so it
            can be put around asynchronous verbs too.
    """

    workers = 64
    only_observes: ClassVar[bool] = False

    @property
    def watched(self) -> Collection[Verb]:
        """The verbs that `around` makes a difference to; the others go down as if it were not there."""
        return VERBS

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the layer below where they are not watched."""
        inline, below = super().inline, self.next.inline
        if "read" not in self.watched:
            inline = replace(inline, read=below.read, read_flags=below.read_flags)
        if "write" not in self.watched:
            inline = replace(
                inline, write=below.write, write_flags=below.write_flags, write_limit=below.write_limit
            )
        return inline

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The asynchronous verbs of the layer below; of those that are watched, only if it can be done."""
        below = self.next.asynchronous
        if below is None:
            return None
        watched = ASYNC_VERBS.intersection(self.watched)
        if self.only_observes:
            return surrounded(below, watched, self._around_async)
        return without(below, watched)

    def _around_async(self, verb: str, *args: Any) -> AbstractContextManager[None]:
        """Return `around` of a request that is given as the arguments of an asynchronous verb."""
        match verb, args:
            case "read", (offset, views):
                return self.around(Request("read", offset, sum(map(len, views))))
            case "write", (offset, views, fua):
                return self.around(Request("write", offset, sum(map(len, views)), fua))
            case "unmap", (offset, length):
                return self.around(Request("unmap", offset, length))
            case "write_zeroes", (offset, length, _, fua):
                return self.around(Request("write_zeroes", offset, length, fua))
            case _:
                return self.around(Request("flush"))

    @abstractmethod
    def around(self, request: Request) -> AbstractContextManager[None]:
        """Return the context manager to enter before the verb goes down, and to leave after it.

        Several threads may be inside at once.

        Raises:
            OSError: Instead of going down.
        """

    def read(self, offset: int, views: Views) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("read", offset, sum(map(len, views)))):
            self.next.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("write", offset, sum(map(len, views)), fua)):
            self.next.write(offset, views, fua=fua)

    def flush(self) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("flush")):
            self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("unmap", offset, length)):
            self.next.unmap(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("write_zeroes", offset, length, fua)):
            self.next.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Pass down, with `around` around it."""
        with self.around(Request("extents", offset, length)):
            return self.next.extents(offset, length)

    def resize(self, size: int) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("resize", length=size)):
            self.next.resize(size)

    def crypto_erase(self) -> None:
        """Pass down, with `around` around it."""
        with self.around(Request("crypto_erase")):
            self.next.crypto_erase()
