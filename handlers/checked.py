"""Checks of the contract between a handler and its caller, at one place.

`Checked` sits on top of a stack (in tests, between every two layers) and holds the
caller above and the handler below to `vscsihba.handlers.base`. It lets inline verbs
through untouched, so that the fast path costs nothing for it.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from vscsihba.block import Executed, ExtentStatus, Views
from vscsihba.handlers.base import AsyncVerbs, Done, Handler, InlineVerbs
from vscsihba.handlers.cdb_handler import execute
from vscsihba.handlers.filter import PassThrough
from vscsihba.units import format_size

P = ParamSpec("P")
T = TypeVar("T")


class ContractError(AssertionError):
    """A handler or its caller breaks the contract: a bug, whatever the input."""


class Checked(PassThrough):
    """The contract as a filter.

    A request for 0 bytes ends here, and so does one that would write to a read-only
    medium (EROFS): no handler ever sees either.
    """

    name = "checked"
    workers = 1 << 16
    never_blocks = True

    def __init__(self, below: Handler) -> None:
        super().__init__(Handler.Options(), below)
        self._open = False

    def open(self) -> None:
        """Let verbs pass from now on."""
        self._open = True

    def close(self) -> None:
        """Let none pass any more."""
        self._open = False

    @property
    def inline(self) -> InlineVerbs:
        """The inline verbs of the layer below, as they are."""
        self._check_open()
        return self.next.inline

    @property
    def asynchronous(self) -> AsyncVerbs | None:
        """The asynchronous verbs of the layer below, with the checks of the others."""
        self._check_open()
        below = self.next.asynchronous
        if below is None:
            return None
        ranged: dict[str, Any] = {
            name: partial(self._begin, verb)
            for name in ("unmap", "write_zeroes")
            if (verb := getattr(below, name)) is not None
        }
        return replace(
            below,
            read=below.read and self._checked_read(below.read),
            write=below.write and self._checked_write(below.write),
            **ranged,
        )

    def _checked_read(self, verb: Callable[[int, Views, Done], None]) -> Callable[[int, Views, Done], None]:
        """Return an asynchronous read with checks; a closure, since it runs once a command."""
        below = self.next

        def read(offset: int, views: Views, done: Done) -> None:
            length = _length(views)
            inside = self._open and 0 < length <= below.geometry.size - offset and offset >= 0
            if inside or self._check_range(offset, length):
                verb(offset, views, done)
            else:
                done(None)

        return read

    def _checked_write(
        self, verb: Callable[[int, Views, bool, Done], None]
    ) -> Callable[[int, Views, bool, Done], None]:
        """Return an asynchronous write with checks; likewise."""
        below = self.next

        def write(offset: int, views: Views, fua: bool, done: Done) -> None:  # noqa: FBT001 - see AsyncVerbs
            length = _length(views)
            inside = self._open and 0 < length <= below.geometry.size - offset and offset >= 0
            if not inside or below.capabilities.read_only:
                self._check_writable()
                if not self._check_range(offset, length):
                    done(None)
                    return
            verb(offset, views, fua, done)

        return write

    def _begin(self, verb: Callable[..., None], offset: int, length: int, *rest: Any) -> None:
        """Check, and begin an asynchronous verb that has a range and no data.

        Args:
            verb: That of the layer below.
            offset: First byte.
            length: Bytes.
            rest: The other arguments; the last is `done`.
        """
        self._check_writable()
        if self._check_range(offset, length):
            verb(offset, length, *rest)
        else:
            rest[-1](None)

    def read(self, offset: int, views: Views) -> None:
        """Check, and pass down."""
        if self._check_range(offset, _length(views)):
            self._pass_down(self.next.read, offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Check, and pass down."""
        self._check_writable()
        if self._check_range(offset, _length(views)):
            self._pass_down(self.next.write, offset, views, fua=fua)

    def flush(self) -> None:
        """Check, and pass down."""
        self._check_open()
        self._pass_down(self.next.flush)

    def unmap(self, offset: int, length: int) -> None:
        """Check, and pass down."""
        self._check_writable()
        if self._check_range(offset, length):
            self._pass_down(self.next.unmap, offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Check, and pass down."""
        self._check_writable()
        if self._check_range(offset, length):
            self._pass_down(self.next.write_zeroes, offset, length, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Check, pass down, and check the answer: a gapless head of the range."""
        if not self._check_range(offset, length):
            return []
        extents = self._pass_down(self.next.extents, offset, length)
        at = offset
        for status in extents:
            if status.extent.offset != at or status.extent.length <= 0:
                raise ContractError(f"extents of {self.next.name} have a gap or an overlap at byte {at}")
            at = status.extent.end
        if not offset < at <= offset + length:
            raise ContractError(f"extents of {self.next.name} end at {at}, asked for {offset}+{length}")
        return extents

    def resize(self, size: int) -> None:
        """Check, pass down, and check that the size took effect."""
        self._check_writable()
        self._pass_down(self.next.resize, size)
        if self.next.geometry.size != size:
            raise ContractError(f"{self.next.name} took a new size of {size} and shows another one")

    def crypto_erase(self) -> None:
        """Check, and pass down."""
        self._check_writable()
        self._pass_down(self.next.crypto_erase)

    def execute(self, cdb: bytes, views: Views) -> Executed:
        """Check, and pass down."""
        self._check_open()
        _length(views)
        return self._pass_down(execute, self.next, cdb, views)

    def _check_open(self) -> None:
        if not self._open:
            raise self._not_open()

    def _not_open(self) -> ContractError:
        return ContractError(f"{self.next.name} is asked for a verb while it is not open")

    def _check_writable(self) -> None:
        self._check_open()
        if self.next.capabilities.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def _check_range(self, offset: int, length: int) -> bool:
        """Check a range; return whether there is anything in it."""
        if not self._open:
            raise self._not_open()
        size = self.next.geometry.size
        if offset < 0 or length < 0 or offset + length > size:
            raise ContractError(
                f"bytes {offset}+{length} are outside of {self.next.name}, which has {format_size(size)}"
            )
        return length > 0

    def _pass_down(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a verb of the layer below, whose failures must be ``OSError`` with an errno."""
        try:
            return verb(*args, **kwargs)
        except OSError as error:
            if not error.errno:
                raise ContractError(f"{self.next.name} failed without an errno") from error
            raise


def _length(views: Views) -> int:
    """Check that the views are plain bytes; return how many there are.

    Raises:
        ContractError: One has another format, or is not contiguous.
    """
    if len(views) == 1:
        (view,) = views
        if view.format == "B" and view.c_contiguous:
            return len(view)
    for view in views:
        if view.format != "B" or not view.c_contiguous:
            raise ContractError("a view is not a contiguous run of unsigned bytes")
    return sum(map(len, views))
