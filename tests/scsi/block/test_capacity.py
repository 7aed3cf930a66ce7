"""READ CAPACITY."""

import struct

import pytest

from tests.scsi.disk import Disk
from vscsihba.block import Capabilities, Geometry
from vscsihba.scsi import Identity, LogicalUnit

CAPACITY_16 = "9e 10 0000000000000000 00000020 00 00"


def test_read_capacity_10() -> None:
    assert Disk(blocks=64).run("25" + "00" * 9).data == struct.pack(">II", 63, 512)


@pytest.mark.parametrize(
    ("blocks", "last"), [(1 << 32, 0xFFFFFFFF), (1 << 40, 0xFFFFFFFF), ((1 << 32) - 1, 0xFFFFFFFE)]
)
def test_read_capacity_10_of_a_large_unit(blocks: int, last: int) -> None:
    disk = Disk()
    disk.lu = LogicalUnit(Geometry(blocks * 512), Capabilities(), Identity.derive("large"))
    assert disk.run("25" + "00" * 9).data == struct.pack(">II", last, 512)


def test_read_capacity_16_of_2_to_the_40_blocks() -> None:
    disk = Disk()
    disk.lu = LogicalUnit(Geometry(1 << 49), Capabilities(), Identity.derive("large"))
    assert struct.unpack_from(">QI", disk.run(CAPACITY_16).data) == ((1 << 40) - 1, 512)


@pytest.mark.parametrize(
    ("capabilities", "provisioning"),
    [
        (Capabilities(), 0x00),
        (Capabilities(unmap=True), 0x80),
        (Capabilities(unmap=True, unmap_zeroes=True), 0xC0),
    ],
)
def test_read_capacity_16_provisioning(capabilities: Capabilities, provisioning: int) -> None:
    data = Disk(capabilities=capabilities).run(CAPACITY_16).data
    assert len(data) == 32
    assert data[12] == 0
    assert data[14] == provisioning


@pytest.mark.parametrize(("physical", "exponent"), [(512, 0), (4096, 3)])
def test_read_capacity_16_physical_blocks(physical: int, exponent: int) -> None:
    assert Disk(physical_block_size=physical).run(CAPACITY_16).data[13] == exponent
