"""MODE SELECT, and the effect of its settings."""

import errno
import json
import struct

import pytest

from tests.scsi.disk import BLOCK, Answer, Disk, invalid_field
from vscsihba.block import Capabilities, Flush, Write
from vscsihba.errors import UsageError
from vscsihba.scsi import TABLE, Asc, SenseKey
from vscsihba.scsi.mode_pages import CACHING, CONTROL, PAGES, PageKey

WRITE = "2a 00 00000000 00 0001 00"
IN_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def page(key: PageKey, **changes: int) -> bytes:
    """Return a page's default values with the bytes named ``b2=0x04`` changed."""
    values = bytearray(PAGES[key].default)
    values[0] &= 0x7F
    for name, value in changes.items():
        values[int(name[1:])] = value
    return bytes(values)


def select(disk: Disk, *pages: bytes, save: bool = False, header: bytes = bytes(4)) -> Answer:
    data = header + b"".join(pages)
    return disk.run(bytes([0x15, 0x10 | save, 0, 0, len(data), 0]), out=data)


def sense(disk: Disk, key: PageKey, control: int = 0) -> bytes:
    return disk.run(bytes([0x1A, 8, control << 6 | key[0], key[1], 255, 0])).data[4:]


D_SENSE = page(CONTROL, b2=0x04)
SWP = page(CONTROL, b4=0x08)
NO_CACHE = page(CACHING, b2=0x00)


def test_mode_select_d_sense_changes_the_format() -> None:
    disk = Disk()
    assert select(disk, D_SENSE).good
    answer = disk.run("28 00 ffffffff 00 0001 00")
    assert answer.sense[0] == 0x72
    assert answer.condition == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def test_mode_select_swp_protects_the_medium() -> None:
    disk = Disk()
    assert select(disk, SWP).good
    assert not disk.lu.writable
    protected = (SenseKey.DATA_PROTECT, Asc.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED)
    assert disk.run(WRITE, out=bytes(BLOCK)).condition == protected
    assert disk.run("1a 08 0a 00 ff 00").data[2] & 0x80
    assert select(disk, page(CONTROL)).good
    assert disk.run(WRITE, out=bytes(BLOCK)).good


def test_mode_select_without_write_cache() -> None:
    disk = Disk()
    assert select(disk, NO_CACHE).good
    assert disk.operations == [Flush()], "what the cache holds goes to the medium"
    disk.run(WRITE, out=bytes(BLOCK))
    assert [op.fua for op in disk.operations if isinstance(op, Write)] == [True]


def test_mode_select_10() -> None:
    disk = Disk()
    data = bytes(8) + D_SENSE
    assert disk.run(struct.pack(">BB5xHB", 0x55, 0x10, len(data), 0), out=data).good
    assert sense(disk, CONTROL)[2] == 0x04


def test_mode_select_of_nothing() -> None:
    assert Disk().run("15 10 00 00 00 00", out=b"").good
    assert select(Disk()).good


def test_mode_select_takes_several_pages_or_none() -> None:
    disk = Disk()
    assert select(disk, NO_CACHE, page(CONTROL, b3=0xFF)).condition == IN_LIST
    assert disk.lu.mode_pages.write_cache_enabled
    assert select(disk, NO_CACHE, D_SENSE).good
    assert not disk.lu.mode_pages.write_cache_enabled
    assert disk.lu.mode_pages.descriptor_sense


@pytest.mark.parametrize("key", PAGES, ids=[one.name for one in PAGES.values()])
def test_mode_select_every_unchangeable_bit_is_refused(key: PageKey) -> None:
    disk = Disk()
    for byte in range(PAGES[key].header, len(PAGES[key].default)):
        for bit in range(8):
            changed = page(key, **{f"b{byte}": PAGES[key].default[byte] ^ 1 << bit})
            if PAGES[key].changeable[byte] >> bit & 1:
                continue
            answer = select(disk, changed)
            assert answer.condition == IN_LIST
            assert answer.field == (4 + byte, bit)


@pytest.mark.parametrize("key", PAGES, ids=[one.name for one in PAGES.values()])
def test_mode_select_what_is_changeable_changes(key: PageKey) -> None:
    disk = Disk()
    flipped = bytes(a ^ b for a, b in zip(PAGES[key].default, PAGES[key].changeable, strict=True))
    assert select(disk, bytes([flipped[0] & 0x7F]) + flipped[1:]).good
    control_format = disk.lu.mode_pages.current[key]
    assert control_format == flipped


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (bytes([0, 1, 0, 0]), (1, None)),
        (bytes([0, 0, 0, 7]), (3, None)),
        (bytes([0, 0, 0, 8]) + struct.pack(">II", 63, BLOCK), (4, None)),
        (bytes([0, 0, 0, 8]) + struct.pack(">II", 64, 4096), (9, None)),
        (bytes(4) + b"\x15\x02\x00\x00", (4, 5)),
        (bytes(4) + b"\x0a\x0b" + bytes(11), (5, None)),
        (bytes(4) + b"\x4a\x01\x00\x1d" + bytes(29), (6, None)),
    ],
)
def test_mode_select_wrong_field_is_pointed_at(data: bytes, pointer: tuple[int, int | None]) -> None:
    answer = Disk().run(bytes([0x15, 0x10, 0, 0, len(data), 0]), out=data)
    assert answer.condition == IN_LIST
    assert answer.field == pointer


@pytest.mark.parametrize("blocks", [0, 64, 0xFFFFFFFF])
def test_mode_select_block_descriptor_that_changes_nothing(blocks: int) -> None:
    header = bytes([0, 0, 0, 8]) + struct.pack(">II", blocks, BLOCK)
    assert select(Disk(), D_SENSE, header=header).good


@pytest.mark.parametrize("cut", range(1, 16))
def test_mode_select_cut_short_is_refused(cut: int) -> None:
    data = bytes(4) + D_SENSE
    answer = Disk().run(bytes([0x15, 0x10, 0, 0, len(data), 0]), out=data[:cut])
    assert answer.condition == TOO_SHORT
    if cut != 4:
        answer = Disk().run(bytes([0x15, 0x10, 0, 0, cut, 0]), out=data[:cut])
        assert answer.condition == TOO_SHORT


def test_mode_select_block_descriptor_cut_short_is_refused() -> None:
    answer = Disk().run("15 10 00 00 08 00", out=bytes([0, 0, 0, 8]) + bytes(4))
    assert answer.condition == TOO_SHORT


def test_mode_select_vendor_page_format_is_refused() -> None:
    assert invalid_field(Disk().run("15 00 00 00 04 00", out=bytes(4))) == (1, 4)


def test_mode_select_saved_values_survive() -> None:
    kept: list[bytes] = []
    disk = Disk(on_save=kept.append)
    assert select(disk, D_SENSE).good
    assert kept == []
    assert select(disk, NO_CACHE, save=True).good
    assert sense(disk, CACHING, control=3)[2] == 0
    assert sense(disk, CONTROL, control=3)[2] == 0
    assert sense(disk, CACHING, control=2)[2] == 0x04
    again = Disk(saved_state=kept[0])
    assert again.lu.write_through
    assert not again.lu.mode_pages.descriptor_sense


def test_mode_select_that_cannot_be_saved_changes_nothing() -> None:
    def full(_state: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room", "/var/lib")

    disk = Disk(on_save=full)
    for pages in (NO_CACHE, D_SENSE, SWP):
        answer = select(disk, pages, save=True)
        assert answer.condition == (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    for control in (0, 3):
        assert sense(disk, CACHING, control=control)[2] == 0x04
    assert not disk.lu.write_through
    assert disk.lu.writable
    assert not disk.lu.mode_pages.descriptor_sense


def test_mode_select_whose_flush_fails_keeps_the_cache() -> None:
    kept: list[bytes] = []
    disk = Disk(on_save=kept.append)
    disk.faults[Flush] = OSError(errno.EIO, "lost")
    assert not select(disk, NO_CACHE, save=True).good
    assert not disk.lu.write_through
    assert sense(disk, CACHING)[2] == 0x04
    assert kept == []
    disk.faults.clear()
    assert not select(disk, NO_CACHE).good, "nobody flushes after it, so it reports what was lost"


@pytest.mark.parametrize("opcode", [0x15, 0x55])
def test_mode_select_runs_alone(opcode: int) -> None:
    assert TABLE[opcode, None].exclusive


def test_reset_brings_saved_values_back() -> None:
    disk = Disk()
    select(disk, SWP, save=True)
    select(disk, page(CONTROL))
    assert disk.lu.writable
    disk.lu.reset()
    assert not disk.lu.writable


def test_saved_state_takes_over_only_what_can_change() -> None:
    state = json.dumps({"mode_pages": {"0a/00": "ff" * 12, "08/00": "00", "77/00": "00"}}).encode()
    disk = Disk(saved_state=state)
    assert sense(disk, CONTROL) == bytes.fromhex("8a 0a 04 10 08 000000 ffff 0000")


@pytest.mark.parametrize(
    "state",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"mode_pages": 1}',
        b'{"mode_pages": {"0a/00": "x"}}',
        b"\xff",
        b'{"mode_pages": {}, "erasure": {"kind": "burn", "may_exit": true}}',
        b'{"mode_pages": {}, "erasure": 1}',
    ],
)
def test_saved_state_that_is_none(state: bytes) -> None:
    with pytest.raises(UsageError, match="saved state"):
        Disk(saved_state=state)


def test_provisioning_page_only_where_there_is_thin_provisioning() -> None:
    assert Disk().run("1a 08 1c 02 ff 00").good
    assert invalid_field(Disk(capabilities=Capabilities()).run("1a 08 1c 02 ff 00")) == (3, None)
