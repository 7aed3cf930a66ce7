"""MODE SENSE."""

import struct

import pytest

from tests.scsi.disk import Disk, invalid_field
from vscsihba.scsi.mode_pages import PAGES

ALL_6 = "1a 08 3f 00 ff 00"


@pytest.mark.parametrize("key", PAGES, ids=[page.name for page in PAGES.values()])
def test_mode_page_lengths_agree(key: tuple[int, int]) -> None:
    page = PAGES[key]
    length = int.from_bytes(page.default[2:4], "big") + 4 if key[1] else page.default[1] + 2
    assert length == len(page.default) == len(page.changeable)
    assert page.default[0] & 0x3F == key[0]


@pytest.mark.parametrize("key", PAGES, ids=[page.name for page in PAGES.values()])
@pytest.mark.parametrize("control", range(4))
def test_mode_sense_each_page(key: tuple[int, int], control: int) -> None:
    answer = Disk().run(bytes([0x1A, 8, control << 6 | key[0], key[1], 255, 0]))
    page = PAGES[key]
    assert answer.data[0] == len(answer.data) - 1
    header = 4 if key[1] else 2
    assert answer.data[4 : 4 + header] == page.default[:header]
    assert answer.data[4 + header :] == (page.changeable if control == 1 else page.default)[header:]


def test_mode_sense_all_pages_in_order() -> None:
    data = Disk().run("1a 08 3f ff ff 00").data[4:]
    assert data == b"".join(PAGES[key].default for key in sorted(PAGES))


def test_mode_sense_all_pages_without_subpages() -> None:
    data = Disk().run(ALL_6).data[4:]
    assert data == b"".join(PAGES[key].default for key in sorted(PAGES) if key[1] == 0)


def test_mode_sense_6_block_descriptor() -> None:
    data = Disk().run("1a 00 08 00 ff 00").data
    assert data[3] == 8
    assert data[4:12] == struct.pack(">II", 64, 512)


def test_mode_sense_10_long_block_descriptor() -> None:
    data = Disk().run("5a 10 08 00 000000 00ff 00").data
    assert struct.unpack(">HBBBBH", data[:8]) == (len(data) - 2, 0, 0x10, 1, 0, 16)
    assert data[8:24] == struct.pack(">Q4xI", 64, 512)


def test_mode_sense_10_without_block_descriptor() -> None:
    data = Disk().run("5a 08 08 00 000000 00ff 00").data
    assert struct.unpack(">HBBBBH", data[:8]) == (len(data) - 2, 0, 0x10, 0, 0, 0)


@pytest.mark.parametrize(("read_only", "parameter"), [(False, 0x10), (True, 0x90)])
def test_mode_sense_device_specific_parameter(read_only: bool, parameter: int) -> None:
    assert Disk(read_only=read_only).run(ALL_6).data[2] == parameter


@pytest.mark.parametrize(("write_cache", "byte"), [(True, 0x04), (False, 0x00)])
def test_mode_sense_write_cache(write_cache: bool, byte: int) -> None:
    assert Disk(write_cache=write_cache).run("1a 08 08 00 ff 00").data[6] == byte


@pytest.mark.parametrize(
    ("cdb", "pointer"),
    [
        ("1a 08 00 00 ff 00", (2, 5)),
        ("1a 08 15 00 ff 00", (2, 5)),
        ("1a 08 08 77 ff 00", (3, None)),
        ("1a 08 3f 01 ff 00", (3, None)),
    ],
)
def test_mode_sense_unknown_page_is_refused(cdb: str, pointer: tuple[int, int | None]) -> None:
    assert invalid_field(Disk().run(cdb)) == pointer
