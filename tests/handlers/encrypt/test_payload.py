"""The payload of a container, and which of its requests are inline."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.encrypt import openssl
from vscsihba.block import Views
from vscsihba.errors import MediumError
from vscsihba.handlers.base import BatchedWrite, Handler, InlineVerbs, batched, note_batched
from vscsihba.handlers.encrypt import libcrypto
from vscsihba.handlers.encrypt.handler import EncryptHandler
from vscsihba.handlers.encrypt.payload import INLINE_BYTES, INLINE_SECTORS, Payload
from vscsihba.handlers.encrypt.sectors import Sectors
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared.rwlock import RWLock
from vscsihba.handlers.shared.vectored import read_bytes
from vscsihba.handlers.stack import build

START = 8192
SIZE = 4 << 20

pytestmark = pytest.mark.skipif(not openssl.is_there(), reason="no libcrypto here")


class Below(MemoryHandler):
    """A disk in memory; its inline verbs may be short, or be counted."""

    def __init__(self) -> None:
        super().__init__(MemoryHandler.Options(size=START + SIZE, label="below"))
        self.open()
        self.short = False
        self.asked: list[str] = []

    @property
    def inline(self) -> InlineVerbs:
        whole = super().inline

        def read(views: Views, offset: int, flags: int) -> int:
            assert whole.read is not None
            assert flags == 7
            return whole.read(views, offset, flags) - 512 * self.short

        def write(views: Views, offset: int, flags: int) -> int:
            assert whole.write is not None
            assert flags == 9
            self.asked.append("alone")
            return whole.write(views, offset, flags) - 512 * self.short

        def part(name: str) -> object:
            def counted(views: Views, offset: int, flags: int) -> int:
                done = write(views, offset, flags)
                self.asked[-1] = name
                return done

            return counted

        parts = BatchedWrite(part("first"), part("rest"), lambda: self.asked.append("end"))  # type: ignore[arg-type]
        return InlineVerbs(read, 7, note_batched(write, parts), 9, 1 << 20)


@pytest.fixture
def below() -> Iterator[Below]:
    disk = Below()
    yield disk
    disk.close()


@pytest.fixture(params=[512, 4096])
def sectors(request: pytest.FixtureRequest) -> Sectors:
    return Sectors(bytearray(os.urandom(64)), request.param)


@pytest.fixture
def payload(below: Below, sectors: Sectors) -> Payload:
    return Payload(below, START, sectors, holes=False)


def views_of(data: bytes, *cuts: int) -> list[memoryview]:
    """Return writable views of the data, cut at some bytes."""
    edges = (0, *cuts, len(data))
    return [memoryview(bytearray(data[a:b])) for a, b in pairwise(edges)]


def moved_inline(verbs: InlineVerbs, verb: str, views: list[memoryview], offset: int) -> int | None:
    """Return the bytes that an inline verb has moved, None if it would not."""
    move = verbs.read if verb == "read" else verbs.write
    assert move is not None
    try:
        return move(views, offset, 0)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("cuts", [(), (4096,), (4096, 12288), (100, 4100), (4096, 4096)])
def test_views_of_any_lengths(
    payload: Payload, below: Below, sectors: Sectors, cuts: tuple[int, ...]
) -> None:
    data = os.urandom(16384)
    views = views_of(data, *cuts)
    payload.write(4096, views, fua=False)
    assert b"".join(views) == data  # the writer's memory is left as it is
    assert read_bytes(below, START + 4096, len(data)) == sectors.encrypt(data, 4096)
    room = views_of(bytes(len(data)), *cuts)
    payload.read(4096, room)
    assert b"".join(room) == data


@pytest.mark.parametrize("cuts", [(), (4096,), (4096, 12288)])
def test_whole_sectors_are_inline(payload: Payload, cuts: tuple[int, ...]) -> None:
    verbs, data = payload.inline(RWLock()), os.urandom(16384)
    views = views_of(data, *cuts)
    assert moved_inline(verbs, "write", views, 8192) == len(data)
    assert b"".join(views) == data
    room = views_of(bytes(len(data)), *cuts)
    payload.read(8192, room)
    assert b"".join(room) == data
    room = views_of(bytes(len(data)), *cuts)
    assert moved_inline(verbs, "read", room, 8192) == len(data)
    assert b"".join(room) == data


@pytest.mark.parametrize("verb", ["read", "write"])
@pytest.mark.parametrize(("offset", "cuts"), [(100, ()), (256, ()), (0, (100, 4196)), (0, (4096, 4096))])
def test_parts_of_sectors_are_not_inline(
    payload: Payload, below: Below, verb: str, offset: int, cuts: tuple[int, ...]
) -> None:
    before = read_bytes(below, 0, START + 16384)
    assert moved_inline(payload.inline(RWLock()), verb, views_of(bytes(8192), *cuts), offset) is None
    assert read_bytes(below, 0, START + 16384) == before


def test_large_requests_are_not_inline(payload: Payload, sectors: Sectors) -> None:
    verbs = payload.inline(RWLock())
    most = min(INLINE_SECTORS * sectors.size, INLINE_BYTES)
    assert verbs.write_limit == most
    assert moved_inline(verbs, "read", views_of(bytes(most)), 0) == most
    assert moved_inline(verbs, "read", views_of(bytes(most + sectors.size)), 0) is None


def test_a_lower_limit_of_the_layer_below_holds(
    payload: Payload, below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = InlineVerbs(write=below.inline.write, write_limit=512)
    monkeypatch.setattr(Below, "inline", verbs)
    assert payload.inline(RWLock()).write_limit == 512
    assert payload.inline(RWLock()).read is None
    monkeypatch.setattr(Below, "inline", InlineVerbs(read=lambda *_: 0))
    assert payload.inline(RWLock()).write is None


@pytest.mark.parametrize("verb", ["read", "write"])
def test_a_short_transfer_is_repeated_elsewhere(payload: Payload, below: Below, verb: str) -> None:
    verbs = payload.inline(RWLock())
    assert moved_inline(verbs, verb, views_of(bytes(8192)), 0) == 8192
    below.short = True
    # A short write is told as such: None would say that nothing was written.
    assert moved_inline(verbs, verb, views_of(bytes(8192)), 0) == (None if verb == "read" else 7680)


def test_an_inline_write_does_not_wait(payload: Payload) -> None:
    gate = RWLock()
    verbs, views = payload.inline(gate), views_of(bytes(4096))
    with gate.alone():
        assert moved_inline(verbs, "write", views, 0) is None
    with gate.together():
        assert moved_inline(verbs, "write", views, 0) == 4096
    with gate.alone():  # it was released each time
        pass


def test_an_inline_write_that_fails_releases_the_gate(payload: Payload, sectors: Sectors) -> None:
    gate = RWLock()
    verbs = payload.inline(gate)
    sectors.wipe()
    for verb in ("read", "write"):
        with pytest.raises(OSError, match="was destroyed"):
            moved_inline(verbs, verb, views_of(bytes(4096)), 0)
    with gate.alone():
        pass


def test_batches_are_those_of_the_layer_below(payload: Payload, below: Below) -> None:
    verbs = payload.inline(RWLock())
    assert verbs.write is not None
    parts = batched(verbs.write)
    for move in (parts.first, parts.rest, verbs.write):
        move(views_of(bytes(4096)), 0, 0)
    parts.end()
    assert below.asked == ["first", "rest", "alone", "end"]


def test_lost_bytes_are_named_as_seen_from_above(
    payload: Payload, below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise MediumError(START + 4096 + 7, "gone")

    monkeypatch.setattr(below, "read", lost)
    monkeypatch.setattr(below, "write", lost)
    for verb in (payload.read, partial(payload.write, fua=False)):
        with pytest.raises(MediumError, match="gone") as told:
            verb(4096, views_of(bytes(4096)))
        assert told.value.offset == 4096 + 7


def test_only_inline_verbs_keep_the_interpreters_lock(
    payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    transform = Sectors._transform

    def noting(*arguments: Any, keep_lock: bool, **options: Any) -> None:
        kept.append(keep_lock)
        transform(*arguments, keep_lock=keep_lock, **options)

    monkeypatch.setattr(Sectors, "_transform", noting)
    payload.write(0, views_of(bytes(4096)), fua=False)
    payload.read(0, views_of(bytes(4096)))
    assert kept == [False, False]
    for verb in ("write", "read"):
        moved_inline(payload.inline(RWLock()), verb, views_of(bytes(4096)), 0)
    assert kept[2:] == [True, True]


def test_another_key_holds_for_inline_verbs_too(payload: Payload, below: Below) -> None:
    verbs, data = payload.inline(RWLock()), os.urandom(4096)
    former = payload.sectors
    former.wipe()
    payload.sectors = Sectors(os.urandom(64), former.size)
    assert moved_inline(verbs, "write", views_of(data), 0) == 4096
    assert read_bytes(below, START, 4096) == payload.sectors.encrypt(data, 0)
    room = views_of(bytes(4096))
    assert moved_inline(verbs, "read", room, 0) == 4096
    assert room[0] == data


@pytest.mark.parametrize("inline", [True, False])
def test_holes_read_as_zeroes(below: Below, sectors: Sectors, inline: bool) -> None:
    size = sectors.size
    payload = Payload(below, START, sectors, holes=True)
    data = bytearray(os.urandom(16384))
    payload.write(0, [memoryview(data)], fua=False)
    for at in (0, size, 2 * size):
        below.write_zeroes(START + at, size, may_unmap=False)
        data[at : at + size] = bytes(size)
    below.write(START + 3 * size, [memoryview(bytes(size - 1) + b"x")])  # ciphertext that is nearly zero
    data[3 * size : 4 * size] = sectors.decrypt(bytes(size - 1) + b"x", 3 * size)
    for cuts in ((), (4096,), (4096, 8192)):
        room = views_of(bytes(16384), *cuts)
        if inline:
            assert moved_inline(payload.inline(RWLock()), "read", room, 0) == 16384
        else:
            payload.read(0, room)
        assert b"".join(room) == data
    room = views_of(bytes(16384), 100)
    payload.read(0, room)
    assert b"".join(room) == data


def test_zeroes_are_no_holes_unless_asked_for(payload: Payload, sectors: Sectors) -> None:
    room = views_of(bytes(4096))
    payload.read(0, room)
    assert room[0] == sectors.decrypt(bytes(4096), 0) != bytes(4096)


@pytest.mark.parametrize("quick", [True, False])
def test_a_disk_is_inline_if_its_cipher_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """With the package ``cryptography`` a command of 64 KiB could hold up all other disks for 5 ms."""
    (tmp_path / "key").write_bytes(b"secret")
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(18 << 20)
    if not quick:
        pytest.importorskip("cryptography")
        monkeypatch.setattr(libcrypto, "library", lambda: None)
    document = {
        "handler": "encrypt",
        "key_file": str(tmp_path / "key"),
        "create": True,
        "kdf": "pbkdf2",
        "kdf_time": 0,
        "next": str(tmp_path / "disk.img"),
    }
    with build(document) as disk:
        handler: Handler = disk.next
        assert isinstance(handler, EncryptHandler)
        assert (disk.inline != InlineVerbs()) == quick
        disk.write(0, [memoryview(b"x" * 8192)])
        assert read_bytes(disk, 100, 8000) == b"x" * 8000
    monkeypatch.undo()
    with build(document) as disk:
        assert read_bytes(disk, 0, 8192) == b"x" * 8192
