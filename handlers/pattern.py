"""pattern: every eight bytes tell their own offset, and what is written must be just that.

A disk of any size whose every byte is known, with no storage: for finding data that
came from the wrong place. It checks writes, and stores nothing.
"""

import struct
from typing import Annotated

from msgspec import Meta

from vscsihba.block import Geometry, Views
from vscsihba.errors import MediumError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import BlockSize, Size

_WORD = 8


class PatternHandler(Handler):
    """A disk of which each eight bytes hold their own offset."""

    name = "pattern"
    example = "pattern:1TiB"
    never_blocks = True

    class Options(Handler.Options, kw_only=True):
        """Options of the pattern handler."""

        size: Annotated[Size, Meta(description="Capacity, such as 1TiB.")]
        block_size: Annotated[BlockSize, Meta(description="Logical block in bytes.")] = 512

    options: Options

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

    def read(self, offset: int, views: Views) -> None:
        """Fill with the pattern."""
        for view in views:
            view[:] = pattern(offset, len(view))
            offset += len(view)

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        """Compare with the pattern.

        Raises:
            MediumError: They differ, from the named byte on.
        """
        for view in views:
            wanted = pattern(offset, len(view))
            if view != wanted:
                at = next(at for at, (is_, be) in enumerate(zip(view, wanted, strict=True)) if is_ != be)
                raise MediumError(offset + at, f"byte {offset + at} is written with what belongs elsewhere")
            offset += len(view)

    def resize(self, size: int) -> None:
        """Take a new size."""
        self._geometry = self._shape(size)

    def _shape(self, size: int) -> Geometry:
        block = self.options.block_size
        return Geometry(size, block_size=block, physical_block_size=block)


def pattern(offset: int, length: int) -> bytes:
    """Return `length` bytes of the pattern from `offset` on: 64-bit offsets, big-endian."""
    first = offset // _WORD
    last = -(-(offset + length) // _WORD)
    words = struct.pack(f">{last - first}Q", *range(first * _WORD, last * _WORD, _WORD))
    skip = offset - first * _WORD
    return words[skip : skip + length]
