"""Sources without storage below them: the size is an option, and `resize` changes it.

Knows sizes, not where the bytes are kept.
"""

from typing import Annotated

from msgspec import Meta

from vscsihba.block import Geometry
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import BlockSize, Size

Label = Annotated[
    str, Meta(description="Name for the identity of the disk, which then stays the same after a restart.")
]
"""Option of a source that has no other identity."""


class SizedSource(Handler):
    """Base of a source whose size only the options decide."""

    never_blocks = True

    class Options(Handler.Options, kw_only=True):
        """Options of every such source."""

        size: Annotated[Size, Meta(description="Capacity, such as 10GiB.")]
        block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512

    options: Options

    def check(self) -> None:
        """Check that a disk can have this size."""
        self._shape(self.options.size)

    def open(self) -> None:
        """Take the size of the options."""
        self._geometry = self._shape(self.options.size)

    @property
    def geometry(self) -> Geometry:
        """As the options say, or `resize` last said."""
        return self._geometry

    def resize(self, size: int) -> None:
        """Take a new size in bytes."""
        self._geometry = self._shape(size)

    def _shape(self, size: int) -> Geometry:
        block = self.options.block_size
        return Geometry(size, block_size=block, physical_block_size=block)
