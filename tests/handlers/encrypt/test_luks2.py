"""The LUKS2 header alone: its copies, its key slots, and the order in which they are written."""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from vscsihba.block import Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.encrypt import luks2, luks2_json
from vscsihba.handlers.encrypt.crypto import Pbkdf2, SealedKey
from vscsihba.handlers.encrypt.luks2 import Luks2
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared.vectored import read_bytes

pytest.importorskip("cryptography", reason="no python3-cryptography here")

KDF = Pbkdf2(b"salt" * 8, "sha256", 1)
KEY = bytes(range(64))
HEADER = 0x4000
AREA = luks2_json.area_size(len(KEY))
START = 2 * HEADER


class Disk(MemoryHandler):
    """A disk that notes where it is written, and when it is flushed."""

    def __init__(self) -> None:
        super().__init__(MemoryHandler.Options(size=luks2_json.PAYLOAD, label="disk"))
        self.asked: list[object] = []
        self.open()

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        self.asked.append((offset, sum(map(len, views))))
        super().write(offset, views)

    def flush(self) -> None:
        self.asked.append("flush")


@pytest.fixture
def disk() -> Disk:
    return Disk()


def new() -> Luks2:
    return luks2.create(KEY, KDF, sector_size=512)


def with_key(disk: Disk, header: Luks2, secret: bytes = b"secret") -> Luks2:
    return header.add_key(disk, header.seal(KEY, secret, KDF))


def stored(disk: Disk, at: int) -> Luks2:
    found = luks2.decode(read_bytes(disk, at, HEADER), at=at)
    assert found is not None
    return found


COPIES = [(0, HEADER), "flush", (HEADER, HEADER), "flush"]


def test_one_copy_is_on_stable_storage_before_the_other_is_written(disk: Disk) -> None:
    header = new()
    header.write(disk)
    assert disk.asked == COPIES
    for at in (0, HEADER):
        assert stored(disk, at).json == header.json


def test_a_key_is_on_stable_storage_before_the_header_says_so(disk: Disk) -> None:
    before = new()
    after = with_key(disk, before)
    assert disk.asked == [(START, luks2_json.stripes_size(len(KEY))), "flush", *COPIES]
    assert (before.used, after.used) == ([], [0])
    assert after.sequence == before.sequence + 1
    assert (stored(disk, 0).sequence, stored(disk, 0).json) == (after.sequence, after.json)
    assert after.unlock(disk, b"secret") == (0, KEY)
    assert after.unlock(disk, b"another") is None


def test_a_key_is_destroyed_before_the_header_forgets_it(disk: Disk) -> None:
    header = with_key(disk, with_key(disk, new()), b"other")
    header.json["tokens"] = {"0": {"type": "any", "keyslots": ["0", "1"]}, "1": {"type": "bare"}}
    sealed = read_bytes(disk, START, 2 * AREA)
    disk.asked.clear()
    after = header.remove_key(disk, 0)
    assert disk.asked == [(START, AREA), "flush", *COPIES]
    now = read_bytes(disk, START, 2 * AREA)
    assert all(now[at : at + 4096] != sealed[at : at + 4096] for at in range(0, AREA, 4096))
    assert now[AREA:] == sealed[AREA:]
    assert after.used == after.data_slots == [1]
    assert after.json["tokens"] == {"0": {"type": "any", "keyslots": ["1"]}, "1": {"type": "bare"}}
    assert header.used == [0, 1]
    assert after.unlock(disk, b"secret") is None
    assert after.unlock(disk, b"other") == (1, KEY)
    with pytest.raises(UsageError, match="only key that opens the data"):
        after.remove_key(disk, 1)
    with pytest.raises(UsageError, match="key slot 0 holds no key"):
        after.remove_key(disk, 0)


def test_keys_take_the_first_room_that_suffices(disk: Disk) -> None:
    header = new()
    for _ in range(3):
        header = with_key(disk, header)
    header = header.remove_key(disk, 1)
    assert header._free_area(len(KEY)) == START + AREA
    assert header._free_area(len(KEY) + 1) == START + 3 * AREA
    assert with_key(disk, header).used == [0, 1, 2]
    end = header.stripes[1]
    last = header.json["keyslots"]["2"]["area"]
    last["size"] = str(end - AREA - int(last["offset"]))
    header.json["keyslots"]["0"]["area"]["size"] = str(2 * AREA)
    assert header._free_area(len(KEY)) == end - AREA
    last["size"] = str(int(last["size"]) + 1)
    with pytest.raises(UsageError, match="all key slots are in use"):
        header._free_area(len(KEY))


def test_there_are_32_slots(disk: Disk) -> None:
    header = new()
    small = SealedKey(KDF, 1, bytes(luks2_json.area_size(1)))
    for number in range(32):
        assert header.used == list(range(number))
        header = header.add_key(disk, small)
    with pytest.raises(UsageError, match="all key slots are in use"):
        header.add_key(disk, small)


@pytest.mark.parametrize(
    ("offset", "size", "right"),
    [
        (START, 4096, True),
        (START - 1, 4096, False),
        (luks2_json.PAYLOAD - 4096, 4096, True),
        (luks2_json.PAYLOAD - 4096, 4097, False),
    ],
)
def test_key_slots_are_inside_the_room_for_keys(disk: Disk, offset: int, size: int, right: bool) -> None:
    header = with_key(disk, new())
    header.json["keyslots"]["0"]["area"].update(offset=str(offset), size=str(size))
    if right:
        header.check_areas()
    else:
        with pytest.raises(HostError, match="key slot 0 of the LUKS2 header lies outside"):
            header.check_areas()


def test_the_json_ends_before_its_area_does() -> None:
    header = new()
    header.json["config"]["note"] = ""
    room = HEADER - 4096 - len(msgspec.json.encode(header.json))
    header.json["config"]["note"] = "x" * (room - 1)
    found = luks2.decode(header.encode(second=False), at=0)
    assert found is not None
    assert found.json == header.json
    header.json["config"]["note"] += "x"
    with pytest.raises(HostError, match="no room for more"):
        header.encode(second=False)


def signed(change: Callable[[bytearray], None]) -> bytes:
    """Return a changed copy with the right checksum."""
    copy = bytearray(new().encode(second=False))
    change(copy)
    copy[448:512] = bytes(64)
    size = int.from_bytes(copy[8:16], "big")
    copy[448:480] = hashlib.sha256(copy[:size]).digest()
    return bytes(copy)


def put(at: int, data: bytes) -> Callable[[bytearray], None]:
    def change(copy: bytearray) -> None:
        copy[at : at + len(data)] = data

    return change


def test_a_copy_that_is_signed_again_is_whole() -> None:
    found = luks2.decode(signed(put(24, b"a label")), at=0)
    assert found is not None
    assert found.label.rstrip(b"\0") == b"a label"


@pytest.mark.parametrize(
    "change",
    [
        put(0, b"LUKS\xba\xbe\x00\x01"),
        put(8, (HEADER + 1).to_bytes(8, "big")),
        put(8, (4095).to_bytes(8, "big")),
        put(72, b"no such hash"),
        put(256, (HEADER).to_bytes(8, "big")),
    ],
)
def test_a_copy_that_says_what_it_is_not_is_not_whole(change: Callable[[bytearray], None]) -> None:
    assert luks2.decode(signed(change), at=0) is None


@pytest.mark.parametrize("at", [24, 447, 448, 479, 512, HEADER - 1])
def test_a_copy_with_a_wrong_byte_is_not_whole(at: int) -> None:
    copy = bytearray(new().encode(second=False))
    copy[at] ^= 1
    assert luks2.decode(bytes(copy), at=0) is None


def test_a_copy_that_is_cut_short_or_elsewhere_is_not_whole() -> None:
    copy = new().encode(second=True)
    assert luks2.decode(copy, at=HEADER) is not None
    assert luks2.decode(copy + bytes(512), at=HEADER) is not None
    assert luks2.decode(copy, at=0) is None
    for length in (0, 4095, 4096, HEADER - 1):
        assert luks2.decode(copy[:length], at=HEADER) is None


@pytest.mark.parametrize("change", [put(4096, b"no json"), put(8, (4096).to_bytes(8, "big"))])
def test_json_that_is_none_is_told(change: Callable[[bytearray], None]) -> None:
    with pytest.raises(HostError, match="metadata that is not understood"):
        luks2.decode(signed(change), at=0)


def test_places_of_the_second_copy() -> None:
    """Table 1 of the specification: a copy has 16 KiB to 4 MiB."""
    sizes = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert tuple(size << 10 for size in sizes) == luks2.SECOND_COPIES


def test_a_slot_that_cannot_be_opened_is_told_if_no_other_opens(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = with_key(disk, with_key(disk, new()), b"other")
    header.json["keyslots"]["0"]["kdf"]["type"] = "unknown"
    assert header.unlock(disk, b"other") == (1, KEY)
    with pytest.raises(HostError, match="key slot 0 is of a kind that is not known here"):
        header.unlock(disk, b"secret")


def test_the_shape_of_a_container() -> None:
    header = new()
    changed: dict[str, Any] = header.json["segments"]["0"]
    assert (header.payload, header.size, header.sector_size) == (luks2_json.PAYLOAD, None, 512)
    changed.update(offset="32768", size="8192", sector_size=4096)
    assert (header.payload, header.size, header.sector_size) == (32768, 8192, 4096)
    assert (header.stripes, header.end) == ((START, luks2_json.PAYLOAD), luks2_json.PAYLOAD)


def test_another_key_needs_slots_of_its_own(disk: Disk) -> None:
    header = with_key(disk, new())
    header.json["tokens"] = {"0": {"type": "any", "keyslots": ["0"]}}
    rekeyed = header.rekeyed(KEY[::-1], KDF)
    assert rekeyed.used == []
    assert rekeyed.json["tokens"] == {}
    assert header.used == [0]
    other = rekeyed.add_key(disk, rekeyed.seal(KEY[::-1], b"secret", KDF))
    assert other.unlock(disk, b"secret") == (0, KEY[::-1])
