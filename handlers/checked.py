"""The choke point: everything that the contract of a handler says, asserted at one place.

`Checked` sits on top of a stack (in tests, between every two layers) and holds the
caller above and the handler below to `vscsihba.handlers.base`. It lets inline verbs
through untouched, so that the fast path costs nothing for it.
"""

import errno
import os

from vscsihba.block import Executed, ExtentStatus, Views
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.cdb_handler import execute
from vscsihba.handlers.filter import PassThrough
from vscsihba.units import format_size


class ContractError(AssertionError):
    """One side of a handler's contract does not keep it: a bug, whatever the input."""


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
        self._demand_open()
        return self.next.inline

    def read(self, offset: int, views: Views) -> None:
        """Check, and pass down."""
        if self._wanted(offset, _length(views)):
            with _Honest(self.next):
                self.next.read(offset, views)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Check, and pass down."""
        self._demand_writable()
        if self._wanted(offset, _length(views)):
            with _Honest(self.next):
                self.next.write(offset, views, fua=fua)

    def flush(self) -> None:
        """Check, and pass down."""
        self._demand_open()
        with _Honest(self.next):
            self.next.flush()

    def unmap(self, offset: int, length: int) -> None:
        """Check, and pass down."""
        self._demand_writable()
        if self._wanted(offset, length):
            with _Honest(self.next):
                self.next.unmap(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Check, and pass down."""
        self._demand_writable()
        if self._wanted(offset, length):
            with _Honest(self.next):
                self.next.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Check, pass down, and check the answer: a gapless head of the range."""
        if not self._wanted(offset, length):
            return []
        with _Honest(self.next):
            found = self.next.extents(offset, length)
        at = offset
        for status in found:
            if status.extent.offset != at or status.extent.length <= 0:
                raise ContractError(f"extents of {self.next.name} have a gap or an overlap at byte {at}")
            at = status.extent.end
        if not offset < at <= offset + length:
            raise ContractError(f"extents of {self.next.name} end at {at}, asked for {offset}+{length}")
        return found

    def resize(self, size: int) -> None:
        """Check, pass down, and check that the size took effect."""
        self._demand_writable()
        with _Honest(self.next):
            self.next.resize(size)
        if self.next.geometry.size != size:
            raise ContractError(f"{self.next.name} took a new size of {size} and shows another one")

    def crypto_erase(self) -> None:
        """Check, and pass down."""
        self._demand_writable()
        with _Honest(self.next):
            self.next.crypto_erase()

    def execute(self, cdb: bytes, views: Views) -> Executed:
        """Check, and pass down."""
        self._demand_open()
        _length(views)
        with _Honest(self.next):
            return execute(self.next, cdb, views)

    def _demand_open(self) -> None:
        if not self._open:
            raise ContractError(f"{self.next.name} is asked for a verb while it is not open")

    def _demand_writable(self) -> None:
        self._demand_open()
        if self.next.capabilities.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def _wanted(self, offset: int, length: int) -> bool:
        """Check a range; return whether there is anything in it."""
        self._demand_open()
        size = self.next.geometry.size
        if offset < 0 or length < 0 or offset + length > size:
            raise ContractError(
                f"bytes {offset}+{length} are outside of {self.next.name}, which has {format_size(size)}"
            )
        return length > 0


class _Honest:
    """Hold a handler to the rule that a failure is an ``OSError`` with an errno."""

    __slots__ = ("handler",)

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError) and not error.errno:
            raise ContractError(f"{self.handler.name} failed without an errno") from error


def _length(views: Views) -> int:
    """Check that the views are plain bytes; return how many there are.

    Raises:
        ContractError: One has another format, or is not contiguous.
    """
    for view in views:
        if view.format != "B" or not view.c_contiguous:
            raise ContractError("a view is not a contiguous run of unsigned bytes")
    return sum(map(len, views))
