"""null: a disk of any size that reads as zeroes and discards writes.

For measuring what lies above a handler, and for trying out sizes that no machine has.
"""

import uuid

from vscsihba.block import Capabilities, Extent, ExtentStatus, Views
from vscsihba.handlers.sized import Label, SizedSource


class NullHandler(SizedSource):
    """A disk that drops all writes and reads as zeroes."""

    name = "null"
    example = "null:1PiB"

    class Options(SizedSource.Options, kw_only=True):
        """Options of the null handler."""

        label: Label = ""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._label = options.label or str(uuid.uuid4())

    @property
    def capabilities(self) -> Capabilities:
        """Everything is a hole, and unmapping one leaves it one."""
        return Capabilities(unmap=True, unmap_zeroes=True, extents=True)

    @property
    def identity(self) -> str:
        """The label; without one, every null disk is another medium."""
        return f"null:{self._label}"

    def read(self, offset: int, views: Views) -> None:
        """Fill with zeroes."""
        for view in views:
            view[:] = bytes(len(view))

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Forget."""

    def unmap(self, offset: int, length: int) -> None:
        """Forget."""

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool, fua: bool = False) -> None:
        """Forget."""

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        """Show one hole."""
        return [ExtentStatus(Extent(offset, length), allocated=False, zero=True)]
