"""pattern: every eight bytes hold their own offset, and writes must match.

A disk of any size whose every byte is known, with no storage: for finding data that
came from the wrong place. It checks writes, and stores nothing.
"""

import struct

from vscsihba.block import Views
from vscsihba.errors import MediumError
from vscsihba.handlers.sized import SizedSource

_WORD = 8


class PatternHandler(SizedSource):
    """A disk whose every eight bytes contain their own offset."""

    name = "pattern"
    example = "pattern:1TiB"

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


def pattern(offset: int, length: int) -> bytes:
    """Return `length` bytes of the pattern from `offset` on: 64-bit offsets, big-endian."""
    first = offset // _WORD
    last = -(-(offset + length) // _WORD)
    words = struct.pack(f">{last - first}Q", *range(first * _WORD, last * _WORD, _WORD))
    skip = offset - first * _WORD
    return words[skip : skip + length]
