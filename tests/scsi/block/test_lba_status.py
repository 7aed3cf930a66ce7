"""GET LBA STATUS."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scsi.disk import Disk
from vscsihba.block import Capabilities, Extent, ExtentStatus, Geometry
from vscsihba.scsi import Asc, Identity, LogicalUnit, SenseKey
from vscsihba.scsi.block.lba_status import DEALLOCATED, MAPPED, _whole_blocks


def status(disk: Disk, lba: int = 0, length: int = 4096) -> list[tuple[int, int, int]]:
    answer = disk.run(struct.pack(">BBQIxx", 0x9E, 0x12, lba, length))
    assert answer.good
    assert int.from_bytes(answer.data[:4], "big") == len(answer.data) - 4
    return [struct.unpack_from(">QIB", answer.data, at) for at in range(8, len(answer.data), 16)]


def test_lba_status_of_a_medium_without_holes() -> None:
    assert status(Disk()) == [(0, 64, MAPPED)]
    assert status(Disk(capabilities=Capabilities())) == [(0, 64, MAPPED)]


def test_lba_status_begins_where_it_is_asked() -> None:
    disk = Disk()
    disk.holes = set(range(10, 20))
    assert status(disk, 12) == [(12, 8, DEALLOCATED), (20, 44, MAPPED)]
    assert status(disk) == [(0, 10, MAPPED), (10, 10, DEALLOCATED), (20, 44, MAPPED)]
    assert status(disk, 63) == [(63, 1, MAPPED)]


def test_lba_status_follows_unmap_and_write() -> None:
    disk = Disk()
    disk.run("42 00 00000000 00 0018 00", out=struct.pack(">HH4xQI4x", 22, 16, 4, 4))
    assert status(disk, 4)[0] == (4, 4, DEALLOCATED)
    disk.run("2a 00 00000005 00 0001 00", out=bytes(512))
    assert status(disk, 4)[:2] == [(4, 1, DEALLOCATED), (5, 1, MAPPED)]


@pytest.mark.parametrize(("length", "descriptors"), [(24, 1), (39, 1), (40, 2), (55, 2)])
def test_lba_status_fills_the_allocation_length(length: int, descriptors: int) -> None:
    disk = Disk()
    disk.holes = set(range(0, 64, 2))
    answer = disk.run(struct.pack(">BBQIxx", 0x9E, 0x12, 0, length))
    assert len(answer.data) == 8 + 16 * descriptors


def test_lba_status_tells_why_it_ends() -> None:
    disk = Disk()
    disk.holes = set(range(0, 64, 2))
    for length, condition in ((24, 0b001), (4096, 0b011)):
        assert disk.run(struct.pack(">BBQIxx", 0x9E, 0x12, 0, length)).data[7] == condition << 1


def test_lba_status_past_the_end() -> None:
    answer = Disk().run(struct.pack(">BBQIxx", 0x9E, 0x12, 64, 24))
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def test_lba_status_of_a_large_unit_is_cut_to_32_bits() -> None:
    disk = Disk()
    disk.lu = LogicalUnit(Geometry(512 << 40), Capabilities(), Identity.derive("large"))
    runs = status(disk)
    assert runs[0] == (0, 0xFFFFFFFF, MAPPED)
    assert runs[1][0] == 0xFFFFFFFF


@given(st.lists(st.tuples(st.integers(1, 2000), st.booleans()), min_size=1))
@settings(deadline=None)
def test_lba_status_of_unaligned_extents_never_loses_data(pieces: list[tuple[int, bool]]) -> None:
    extents, data, at = [], set(), 0
    for length, allocated in pieces:
        extents.append(ExtentStatus(Extent(at, length), allocated=allocated, zero=False))
        if allocated:
            data |= set(range(at // 512, -(-(at + length) // 512)))
        at += length
    lba = 0
    for kind, blocks in _whole_blocks(extents, 0, 512):
        assert blocks > 0
        assert kind == MAPPED or not data & set(range(lba, lba + blocks))
        lba += blocks
    assert lba >= at // 512
