"""null: a disk of any size that reads as zeroes and forgets what is written.

For measuring what lies above a handler, and for trying out sizes that no machine has.
"""

import uuid
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry, Views
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import BlockSize, Size


class NullHandler(Handler):
    """A disk that stores nothing."""

    name = "null"
    example = "null:1PiB"
    never_blocks = True

    class Options(Handler.Options, kw_only=True):
        """Options of the null handler."""

        size: Annotated[Size, Meta(description="Capacity, such as 1PiB.")]
        block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512
        label: Annotated[
            str,
            Meta(description="Makes the disk the same one when it is opened anew, as far as its name goes."),
        ] = ""

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._label = options.label or str(uuid.uuid4())

    def check(self) -> None:
        """Look whether a disk can have this size."""
        self._shape(self.options.size)

    def open(self) -> None:
        """Take the size of the options."""
        self._geometry = self._shape(self.options.size)

    @property
    def geometry(self) -> Geometry:
        """As the options say, or `resize` last said."""
        return self._geometry

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

    def resize(self, size: int) -> None:
        """Take a new size."""
        self._geometry = self._shape(size)

    def _shape(self, size: int) -> Geometry:
        block = self.options.block_size
        return Geometry(size, block_size=block, physical_block_size=block)
