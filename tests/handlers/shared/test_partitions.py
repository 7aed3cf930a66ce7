"""Partition tables made by sfdisk, and damaged ones."""

import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import BinaryIO

import pytest

from vscsihba.errors import UsageError
from vscsihba.handlers.shared.partitions import Partition, find_partition, partitions
from vscsihba.handlers.stack import build

MiB = 1 << 20
SIZE = 64 * MiB
GPT = "label: gpt\nsize=10MiB\nsize=5MiB\nstart=30MiB, size=1MiB\n"
MBR = (
    "label: dos\nsize=10MiB\nsize=5MiB, type=83\nsize=30MiB, type=5\n"
    "size=4MiB\nsize=3MiB\nsize=2MiB\nsize=1MiB\n"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def write_table(image: Path, script: str) -> dict[int, Partition]:
    """Have sfdisk write a table; return what it says of it."""
    program = shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        pytest.skip("needs sfdisk (Debian package fdisk)")
    subprocess.run([program, "--quiet", image], input=script, text=True, check=True)
    shown = subprocess.run([program, "--json", image], stdout=subprocess.PIPE, check=True).stdout
    return {
        int(part["node"].removeprefix(str(image))): Partition(part["start"] * 512, part["size"] * 512)
        for part in json.loads(shown)["partitiontable"]["partitions"]
    }


def found(image: Path, **options: object) -> dict[int, Partition]:
    with build({"handler": "file", "path": str(image), "read_only": True, **options}) as disk:
        return dict(partitions(disk))


@pytest.mark.parametrize("script", [GPT, MBR], ids=["gpt", "mbr"])
def test_partitions_are_where_sfdisk_says(image: Path, script: str) -> None:
    said = write_table(image, script)
    assert len(said) == (3 if script == GPT else 7), "three of the seven are logical ones"
    assert found(image) == said


def damage(image: Path, *places: int) -> None:
    with image.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(b"\xa5")


@pytest.mark.parametrize(
    "place", [512, 512 + 20, 512 + 80, 2 * 512 + 40], ids=["magic", "crc", "count", "entry"]
)
def test_the_second_copy_is_taken_for_a_damaged_one(image: Path, place: int) -> None:
    said = write_table(image, GPT)
    damage(image, place)
    assert found(image) == said


def test_both_copies_damaged(image: Path) -> None:
    write_table(image, GPT)
    damage(image, 512, SIZE - 512)
    with pytest.raises(UsageError, match="both copies"):
        found(image)


def test_no_table(image: Path) -> None:
    with pytest.raises(UsageError, match="there is no partition table"):
        found(image)


def test_no_such_partition(image: Path) -> None:
    write_table(image, GPT)
    with build(str(image)) as disk, pytest.raises(UsageError, match="no partition 9; there are: 1, 2, 3"):
        find_partition(disk, 9)


def extended(first: int, links: dict[int, int]) -> bytes:
    """Return an MBR, and the blocks of a chain of logical partitions: where each is, and its link."""
    blocks = bytearray(100 * 512)
    _entry(blocks, 0, 0, 0x05, first, 90)
    for at, link in links.items():
        _entry(blocks, at, 0, 0x83, 1, 1)
        _entry(blocks, at, 1, 0x05, link, 1)
    return bytes(blocks)


def _entry(blocks: bytearray, block: int, number: int, kind: int, first: int, count: int) -> None:
    struct.pack_into("<4xB3xII", blocks, block * 512 + 446 + 16 * number, kind, first, count)
    blocks[block * 512 + 510 : block * 512 + 512] = b"\x55\xaa"


def test_a_chain_that_has_no_end(image: Path) -> None:
    image.write_bytes(extended(10, {10: 5, 15: 5}))
    with pytest.raises(UsageError, match="more than 256 links"):
        found(image)


def test_a_chain_that_leaves_the_disk(image: Path) -> None:
    image.write_bytes(extended(10, {10: 5000}))
    with pytest.raises(UsageError, match="leaves the disk at block 5010"):
        found(image)


def test_a_table_of_4096_byte_blocks(image: Path) -> None:
    blocks = bytearray(100 * 512)
    _entry(blocks, 0, 0, 0x83, 1, 2)
    image.write_bytes(bytes(blocks) + bytes(4096 * 10 - len(blocks) % 4096))
    assert found(image, block_size=4096) == {1: Partition(4096, 8192)}


def in_blocks(size: int, partitions: list[tuple[int, int]], disk: int) -> dict[int, bytes]:
    """Return the blocks of a GPT by their places in bytes, as UEFI's specification has them."""
    packed = (
        struct.pack("<16s16sQQ", b"\1" * 16, b"\2" * 16, first, last).ljust(128, b"\0")
        for first, last in partitions
    )
    entries = b"".join(packed).ljust(128 * 128, b"\0")
    last = disk // size - 1
    table_blocks = -(-len(entries) // size)

    def header(own: int, other: int, table: int) -> bytes:
        usable = (2 + table_blocks, last - table_blocks - 1)
        fields = (b"EFI PART", 0x10000, 92, 0, 0, own, other, *usable, b"\3" * 16)
        rest = (table, 128, 128, zlib.crc32(entries))
        plain = struct.pack("<8sIIIIQQQQ16sQIII", *fields, *rest)
        return plain[:16] + struct.pack("<I", zlib.crc32(plain)) + plain[20:]

    mbr = bytes(446) + struct.pack("<B3xB3xII", 0, 0xEE, 1, last) + bytes(48) + b"\x55\xaa"
    backup = last - table_blocks
    return {
        0: mbr,
        size: header(1, last, 2),
        2 * size: entries,
        backup * size: entries,
        last * size: header(last, 1, backup),
    }


def write_blocks(file: BinaryIO, blocks: dict[int, bytes]) -> None:
    for place, data in blocks.items():
        file.seek(place)
        file.write(data)


@pytest.mark.parametrize("size", [1024, 2048, 4096])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_table_that_counts_in_other_blocks(
    image: Path, caplog: pytest.LogCaptureFixture, size: int, damaged: bool
) -> None:
    with image.open("r+b") as file:
        write_blocks(file, in_blocks(size, [(256, 511), (1024, 2047)], SIZE))
    if damaged:
        damage(image, size)
    said = {1: Partition(256 * size, 256 * size), 2: Partition(1024 * size, 1024 * size)}
    with caplog.at_level("INFO"):
        assert found(image) == said
    assert f"in blocks of {size} bytes, not 512" in caplog.text
    assert found(image, block_size=size) == said
    with build({"handler": "offset", "partition": 2, "next": str(image)}) as disk:
        assert disk.geometry.size == 1024 * size


def test_tables_in_blocks_of_two_sizes(image: Path) -> None:
    with image.open("r+b") as file:
        write_blocks(file, in_blocks(4096, [(256, 511)], SIZE))
        behind = {place: data for place, data in in_blocks(2048, [(9, 9)], SIZE).items() if place > SIZE // 2}
        write_blocks(file, behind)
    with pytest.raises(UsageError, match=r"in blocks of 2048 and 4096 bytes; set the \"block_size\""):
        found(image)
    assert found(image, block_size=4096) == {1: Partition(1 << 20, 1 << 20)}
