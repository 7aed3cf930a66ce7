"""Ranges of bytes as blocks of lines: masks with a bit for each block, the lowest for the first one."""

from collections.abc import Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """The part of a request that lies in one line.

    Attributes:
        number: Of the line.
        within: First byte in the line.
        at: First byte in the request.
        length: Bytes.
    """

    number: int
    within: int
    at: int
    length: int


def pieces(offset: int, length: int, line_size: int) -> Iterator[Piece]:
    """Cut a range of the disk at the borders of lines."""
    at = 0
    while at < length:
        number, within = divmod(offset + at, line_size)
        count = min(line_size - within, length - at)
        yield Piece(number, within, at, count)
        at += count


def mask(first: int, last: int) -> int:
    """Return the mask of the blocks from `first` to before `last`."""
    return (1 << last) - (1 << first)


def touched(within: int, count: int, block_size: int) -> int:
    """Return the mask of the blocks that a range of bytes of a line touches."""
    return (1 << -(-(within + count) // block_size)) - (1 << within // block_size)


def cut(within: int, count: int, block_size: int) -> int:
    """Return the mask of the blocks that a range of bytes of a line touches, but not as a whole."""
    blocks = 0
    if within % block_size:
        blocks = 1 << within // block_size
    if (within + count) % block_size:
        blocks |= 1 << (within + count) // block_size
    return blocks


def runs(blocks: int) -> Iterator[tuple[int, int]]:
    """Yield each run of adjacent blocks in a mask: the first of it, and the one after its last."""
    while blocks:
        first = (blocks & -blocks).bit_length() - 1
        rest = blocks >> first
        last = first + (~rest & (rest + 1)).bit_length() - 1
        yield first, last
        blocks &= ~mask(first, last)
