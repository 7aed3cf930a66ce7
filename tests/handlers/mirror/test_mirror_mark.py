"""The mark of one leg, without a mirror: its place when the leg changes its size, and empty media."""

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest import mock

import msgspec
import pytest

from tests.handlers.mirror.test_mirror_marks import without_growing
from vscsihba.block import Extent, ExtentStatus, Geometry, Views
from vscsihba.handlers.base import Handler
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.mirror.mark import (
    MARK,
    enlarge,
    erase_mark,
    is_empty,
    length_with_mark,
    make_room,
    read_mark,
    shrink,
    write_mark,
)
from vscsihba.handlers.mirror.metadata import LegEntry, Metadata, encode
from vscsihba.handlers.shared import superblock
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write

SIZE = 256 << 10
MIB = 1 << 20
METADATA = Metadata(
    uuid="m",
    leg="a",
    event=5,
    session="s",
    size=SIZE,
    region_size=65536,
    legs=(LegEntry(uuid="a", state="in", event=4),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A leg of bytes that are no zeroes, without a mark, and no larger than the disk needs."""
    path = tmp_path / "a.img"
    path.write_bytes(b"d" * length_with_mark(SIZE))
    return path


@pytest.fixture
def leg(path: Path) -> Iterator[Handler]:
    """The leg, open and with a mark."""
    with build(str(path)) as leg:
        write_mark(leg, METADATA)
        yield leg


def mark_at(path: Path, at: int) -> bool:
    """Return whether a slot of a mark begins at an offset."""
    return path.read_bytes()[at : at + 8] == b"VSCSILEG"


def test_nothing_of_a_damaged_mark_stays(path: Path) -> None:
    """After a power cut its second slot could be whole again, and newer than the first one."""
    with build(str(path)) as leg:
        write_mark(leg, METADATA)
    assert path.read_bytes()[SIZE + 4096 :] == bytes(4096)


# A leg that is enlarged


def test_the_marks_of_an_enlarged_leg_do_not_overlap(path: Path, leg: Handler) -> None:
    """A power cut while the new one is written leaves the old one as it was."""
    before = path.read_bytes()[SIZE : SIZE + MARK]
    failing = mock.patch.object(FileHandler, "write_zeroes", side_effect=OSError(errno.EIO, "gone"))
    with failing, pytest.raises(OSError, match="gone"):
        enlarge(leg, SIZE, SIZE + 4096)
    found = path.read_bytes()
    assert len(found) == len(before) + SIZE + MARK
    assert found[SIZE : SIZE + MARK] == before
    assert mark_at(path, SIZE + MARK)
    with mock.patch.object(FileHandler, "write_zeroes") as zeroes:
        enlarge(leg, SIZE, SIZE + 4096)
    assert zeroes.call_args == mock.call(SIZE, 4096, may_unmap=True, fua=True)
    enlarge(leg, SIZE, SIZE + 4096)
    assert read_mark(leg).metadata == METADATA
    assert not any(read(cast("Any", leg), SIZE, 4096))


@pytest.mark.parametrize("longer", [0, 4096, 8192, 12288, 65536])
@pytest.mark.parametrize("grow", [enlarge, lambda leg, _before, size: make_room(leg, size)])
def test_a_mark_is_found_although_the_leg_has_a_new_end_without_one(
    path: Path, longer: int, grow: Callable[[Handler, int, int], object]
) -> None:
    """The leg may be longer than it needs to be, for instance after an attempt that was not recorded."""
    with path.open("r+b") as file:
        file.truncate(length_with_mark(SIZE) + longer)
    with build(str(path)) as leg:
        for event in range(5, 9):  # the first slot has the last one but one
            newest = msgspec.structs.replace(METADATA, event=event)
            write_mark(leg, newest)
        failing = mock.patch(
            "vscsihba.handlers.mirror.mark.write_mark", side_effect=OSError(errno.EIO, "gone")
        )
        before = path.read_bytes()[SIZE + longer :]
        for size in (SIZE + 2 * 65536, SIZE + 4 * 65536):
            with failing, suppress(OSError):
                grow(leg, SIZE, size)
            assert leg.geometry.size >= length_with_mark(size)
            assert (
                path.read_bytes()[SIZE + longer : SIZE + longer + MARK] == before
            )  # a crash leaves it whole
            assert read_mark(leg, [SIZE]).metadata == newest
        grow(leg, SIZE, SIZE + 4 * 65536)
        write_mark(leg, newest)
        assert read_mark(leg).metadata == newest
        assert read(leg, 0, SIZE) == b"d" * SIZE


def test_a_mark_with_a_torn_slot_is_copied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(length_with_mark(SIZE) + 4096)
    with build(str(path)) as leg:
        for _ in range(2):
            write_mark(leg, METADATA)
        write(leg, SIZE + 4096 + 100, b"torn")
        assert make_room(leg, SIZE + 65536)
        assert read_mark(leg, [SIZE]).metadata == METADATA


def test_bytes_behind_the_disk_do_not_become_a_part_of_a_copied_mark(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(length_with_mark(SIZE) + 65536)
    with build(str(path)) as leg:
        write_mark(leg, METADATA)
        forged = encode(msgspec.structs.replace(METADATA, event=99))
        write(leg, SIZE + 4096, superblock.encode(99, forged, b"VSCSILEG", "mark"))
        assert make_room(leg, SIZE + 2 * 65536)
        assert read_mark(leg, [SIZE]).metadata == METADATA


def test_a_leg_that_has_room_stays_as_it_is(path: Path, leg: Handler) -> None:
    before = path.read_bytes()
    assert make_room(leg, SIZE)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [SIZE + 65536, SIZE + 65536 - 4096])
def test_a_leg_without_a_mark_needs_room_for_the_disk_only(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(SIZE + 65536)
    with build(str(path)) as leg, without_growing():
        enlarge(leg, SIZE, size)
        assert not any(read(leg, SIZE, size - SIZE))
        with pytest.raises(OSError, match="fixed size"):
            enlarge(leg, SIZE, SIZE + 65536 + 512)


def test_a_leg_with_a_mark_needs_room_for_that_as_well(leg: Handler) -> None:
    with without_growing(), pytest.raises(OSError, match="fixed size"):
        enlarge(leg, SIZE, SIZE + 4096)
    assert read_mark(leg).metadata == METADATA


# A leg that is made smaller


def test_a_leg_is_made_smaller_with_its_mark(path: Path, leg: Handler) -> None:
    shrink(leg, SIZE - MARK)
    assert path.stat().st_size == SIZE
    assert mark_at(path, SIZE - MARK)
    assert not mark_at(path, SIZE - MARK + 4096)  # the older slot does not count
    assert read_mark(leg).metadata is None  # it says a larger size than fits before it
    assert read(cast("Any", leg), 0, SIZE - MARK) == b"d" * (SIZE - MARK)


def test_bytes_of_the_disk_do_not_become_a_part_of_the_mark(leg: Handler) -> None:
    """A guest may have written there something that looks like a newer mark."""
    smaller = msgspec.structs.replace(METADATA, size=SIZE - 65536)
    write_mark(leg, smaller)
    forged = encode(msgspec.structs.replace(smaller, event=99))
    write(cast("Any", leg), SIZE - 65536 + 4096, superblock.encode(99, forged, b"VSCSILEG", "mark"))
    shrink(leg, SIZE - 65536)
    assert read_mark(leg).metadata == smaller


def test_a_mark_never_overlaps_the_one_that_it_replaces(path: Path, leg: Handler) -> None:
    before = path.read_bytes()
    shrink(leg, SIZE - 4096)
    assert path.read_bytes() == before


def test_a_leg_without_a_mark_keeps_its_size(path: Path) -> None:
    before = path.read_bytes()
    with build(str(path)) as leg:
        shrink(leg, SIZE - 65536)
    assert path.read_bytes() == before


def test_a_leg_that_cannot_be_made_smaller_has_two_marks(path: Path, leg: Handler) -> None:
    with without_growing():
        shrink(leg, SIZE - 65536)
    assert mark_at(path, SIZE)
    assert mark_at(path, SIZE - 65536)
    assert read_mark(leg).metadata == METADATA


def test_a_mark_that_was_erased_does_not_come_back_with_a_power_cut(path: Path, leg: Handler) -> None:
    seen = []

    def flush(_leg: FileHandler) -> None:
        seen.append(path.read_bytes()[SIZE:])

    with mock.patch.object(FileHandler, "flush", flush):
        erase_mark(leg)
    assert seen == [bytes(MARK)]


# Emptiness


class Medium:
    """A medium of zeroes with a few other bytes, which tells one extent at a time.

    Args:
        size: Bytes.
        data: The extents that are allocated.
        other: Offset of a byte that is no zero; none if negative.
    """

    def __init__(self, size: int, data: list[Extent], other: int = -1) -> None:
        self.geometry = Geometry(size)
        self.data = data
        self.other = other
        self.reads: list[Extent] = []

    def read(self, offset: int, views: Views) -> None:
        (view,) = views
        self.reads.append(Extent(offset, len(view)))
        view[:] = bytes(len(view))
        if offset <= self.other < offset + len(view):
            view[self.other - offset] = 1

    def extents(self, offset: int, length: int) -> list[ExtentStatus]:
        end = offset + length
        for extent in self.data:
            if extent.offset <= offset < extent.end:
                return [
                    ExtentStatus(Extent(offset, min(extent.end, end) - offset), allocated=True, zero=False)
                ]
            if extent.offset > offset:
                end = min(end, extent.offset)
                break
        return [ExtentStatus(Extent(offset, end - offset), allocated=False, zero=True)]


def looked_at(medium: Medium, size: int) -> list[Extent]:
    """Return the extents that are read to see that a medium is empty."""
    assert is_empty(cast("Any", medium), size)
    return medium.reads


def pieces(begin: int, end: int) -> list[Extent]:
    return [Extent(at, MIB) for at in range(begin, end, MIB)]


def test_up_to_64_mib_of_allocated_bytes_are_all_read() -> None:
    data = [Extent(3 * MIB, 63 * MIB), Extent(200 * MIB, MIB)]
    assert looked_at(Medium(256 * MIB, data), 256 * MIB) == pieces(3 * MIB, 66 * MIB) + pieces(
        200 * MIB, 201 * MIB
    )
    assert not is_empty(cast("Any", Medium(256 * MIB, data, 201 * MIB - 1)), 256 * MIB)
    odd = [Extent(4096, MIB + 512)]
    assert looked_at(Medium(8 * MIB, odd), 8 * MIB) == [Extent(4096, MIB), Extent(4096 + MIB, 512)]


def test_of_more_than_64_mib_the_ends_and_1024_places_are_read() -> None:
    size = 256 * MIB
    data = [Extent(3 * MIB, 63 * MIB), Extent(200 * MIB, MIB), Extent(202 * MIB, 512)]
    between = [Extent(at, 4096) for at in range(16 * MIB, size - 16 * MIB, size // 1024)]
    expected = pieces(0, 16 * MIB) + pieces(size - 16 * MIB, size) + between
    assert looked_at(Medium(size, data), size) == expected
    assert (
        looked_at(Medium(size + 65536, data), size) == expected
    )  # what lies behind the disk does not matter


def test_the_places_are_multiples_of_4096_bytes() -> None:
    size = 65 * MIB
    places = looked_at(Medium(size, [Extent(0, size)]), size)[32:]
    assert places == [Extent(at, 4096) for at in range(16 * MIB, size - 16 * MIB, 65536)]
