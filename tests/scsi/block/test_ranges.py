"""LBA ranges in parameter lists: the last block, past the end, and wrapping around, for every command."""

import struct
from collections.abc import Callable

import pytest

from tests.scsi.disk import Answer, Disk, everything
from vscsihba.scsi import TABLE, Asc, SenseKey

BLOCKS = 64
ZERO_TOKEN = bytes.fromhex("ffff0001") + bytes(2) + bytes.fromhex("01f8") + bytes(504)
OUT_OF_RANGE = (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)

Ask = Callable[[Disk, int, int], Answer]


def get_lba_status(disk: Disk, lba: int, _blocks: int) -> Answer:
    return disk.run(struct.pack(">BBQIxx", 0x9E, 0x12, lba, 24))


def unmap(disk: Disk, lba: int, blocks: int) -> Answer:
    out = struct.pack(">HH4xQI4x", 22, 16, lba, blocks)
    return disk.run("42 00 00000000 00 0018 00", out=out)


def reassign(disk: Disk, lba: int, blocks: int) -> Answer:
    """Name each block; numbers wrap around at 64 bits."""
    addresses = b"".join(((lba + at) % (1 << 64)).to_bytes(8, "big") for at in range(blocks))
    return disk.run("07 02 00 00 00 00", out=struct.pack(">HH", 0, len(addresses)) + addresses)


def populate_token(disk: Disk, lba: int, blocks: int) -> Answer:
    out = struct.pack(">HBxII2xHQI4x", 30, 0, 0, 0, 16, lba, blocks)
    return disk.run(struct.pack(">BB4xIIxx", 0x83, 0x10, 1, len(out)), out=out)


def write_using_token(disk: Disk, lba: int, blocks: int) -> Answer:
    out = struct.pack(">H6xQ512s6xHQI4x", 550, 0, ZERO_TOKEN, 16, lba, blocks)
    return disk.run(struct.pack(">BB4xIIxx", 0x83, 0x11, 1, len(out)), out=out)


IN_LISTS: dict[str, Ask] = {
    "GET LBA STATUS(16)": get_lba_status,
    "UNMAP": unmap,
    "REASSIGN BLOCKS": reassign,
    "POPULATE TOKEN": populate_token,
    "WRITE USING TOKEN": write_using_token,
}


def copy(disk: Disk, source: int, destination: int, blocks: int) -> Answer:
    """Copy within the unit by EXTENDED COPY(LID1)."""
    naa = disk.lu.identity.naa
    target = (struct.pack(">BBHBBBB", 0xE4, 0, 0, 1, 3, 0, len(naa)) + naa).ljust(28, b"\0")
    target += disk.lu.block_size.to_bytes(4, "big")
    segment = struct.pack(">BBHHHxxHQQ", 0x02, 0, 24, 0, 0, blocks, source, destination)
    out = struct.pack(">BBH4xI4x", 1, 0, len(target), len(segment)) + target + segment
    return disk.run(struct.pack(">BB8xIxx", 0x83, 0, len(out)), out=out)


@pytest.mark.parametrize("name", IN_LISTS)
@pytest.mark.parametrize(
    ("lba", "blocks"),
    [
        (BLOCKS, 1),
        (BLOCKS + 7, 1),
        pytest.param((1 << 64) - 1, 1, id="highest"),
        pytest.param((1 << 63), 1, id="highest-bit"),
    ],
)
def test_rule_14_range_past_the_end_is_refused_and_nothing_happens(name: str, lba: int, blocks: int) -> None:
    disk = everything(blocks=BLOCKS)
    assert IN_LISTS[name](disk, lba, blocks).condition == OUT_OF_RANGE
    assert disk.operations == []


@pytest.mark.parametrize("name", sorted(IN_LISTS.keys() - {"GET LBA STATUS(16)"}))
@pytest.mark.parametrize("lba", [BLOCKS - 1, (1 << 64) - 1], ids=["one-past-the-end", "wraps-to-0"])
def test_range_of_two_blocks_must_have_room_for_both(name: str, lba: int) -> None:
    disk = everything(blocks=BLOCKS)
    assert IN_LISTS[name](disk, lba, 2).condition == OUT_OF_RANGE
    assert disk.operations == []


@pytest.mark.parametrize("name", IN_LISTS)
def test_range_up_to_the_last_block_is_done(name: str) -> None:
    disk = everything(blocks=BLOCKS)
    assert IN_LISTS[name](disk, BLOCKS - 1, 1).good


@pytest.mark.parametrize("outside", [BLOCKS - 1, BLOCKS, (1 << 64) - 1, 1 << 63])
def test_copy_past_the_end_is_refused_and_nothing_happens(outside: int) -> None:
    disk = everything(blocks=BLOCKS)
    for source, destination in ((outside, 0), (0, outside)):
        assert copy(disk, source, destination, 2).condition == (
            SenseKey.COPY_ABORTED,
            Asc.NO_ADDITIONAL_SENSE_INFORMATION,
        )
    assert disk.operations == []
    assert copy(disk, 0, BLOCKS - 2, 2).good
    assert copy(disk, BLOCKS - 2, 0, 2).good


def test_every_command_with_an_lba_is_walked() -> None:
    """Commands with an LBA and a number of blocks in the CDB are tested by `tests.scsi.test_table`."""
    in_cdb = {row.name for row in TABLE.values() if "lba" in row.layout.fields}
    counted = {row.name for row in TABLE.values() if {"lba", "blocks"} <= row.layout.fields.keys()}
    assert in_cdb - counted <= IN_LISTS.keys()
