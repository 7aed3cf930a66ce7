"""Partition tables made by sfdisk, and damaged ones."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from vscsihba.errors import UsageError
from vscsihba.handlers.partitions import Partition, find_partition, partitions
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
