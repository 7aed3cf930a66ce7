"""Allocated extents of an image, from the differences between it and nothing.

With the features object-map and fast-diff, librbd asks only for objects that exist.
"""

from typing import Any

from vscsihba.block import Extent, ExtentStatus
from vscsihba.handlers.rbd import library

_OBJECTS = 64
"""Objects of one answer, each of which costs a request."""
_OBJECTS_WITH_MAP = 1024
_UNIT = 4096
"""Bytes to which allocated extents are rounded."""


def allocated_extents(image: Any, offset: int, length: int) -> list[ExtentStatus]:
    """Return the extents of the head of a range; what is not allocated reads as zeroes.

    Args:
        image: The open image.
        offset: First byte.
        length: Bytes, 1 or more.

    Raises:
        rbd.Error: The cluster does not answer.
    """
    mapped = image.features() & library.rbd().RBD_FEATURE_OBJECT_MAP
    most = (_OBJECTS_WITH_MAP if mapped else _OBJECTS) * image.stat()["obj_size"]
    end = offset + min(length, most)
    runs: list[tuple[int, int]] = []

    def add(start: int, count: int, exists: bool) -> None:  # noqa: FBT001 - librbd's callback
        if exists:
            runs.append((max(start // _UNIT * _UNIT, offset), min(-(-(start + count) // _UNIT) * _UNIT, end)))

    image.diff_iterate(offset, end - offset, None, add)
    return without_gaps(sorted(runs), offset, end)


def without_gaps(runs: list[tuple[int, int]], offset: int, end: int) -> list[ExtentStatus]:
    """Return the extents of a range, of which some runs are allocated; neighbours are one extent.

    Args:
        runs: First byte of each run and the first byte after it, in order; they may overlap.
        offset: First byte of the range.
        end: The first byte after it.
    """
    extents: list[ExtentStatus] = []
    at = offset
    for start, stop in runs:
        if stop <= at:
            continue
        first = max(start, at)
        if first > at:
            extents.append(ExtentStatus(Extent(at, first - at), allocated=False, zero=True))
        elif extents and extents[-1].allocated:
            first = extents.pop().extent.offset
        extents.append(ExtentStatus(Extent(first, stop - first), allocated=True, zero=False))
        at = stop
    if at < end:
        extents.append(ExtentStatus(Extent(at, end - at), allocated=False, zero=True))
    return extents
