"""Inline verbs of an overlay: they use all layers, store new clusters, and never wait."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from tests.handlers.cow.test_cow import CONTENT, SIZE, abandon, cow
from vscsihba.handlers.base import InlineVerbs, batched
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.cow.format import DATA, LOST
from vscsihba.handlers.cow.handler import CowHandler
from vscsihba.handlers.cow.inline import inline_verbs
from vscsihba.handlers.file.handler import FileHandler
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import KIB, read, write


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.img").write_bytes(CONTENT[:SIZE])
    return tmp_path


def spread(disk: Checked) -> bytes:
    """Store clusters 1 and 3, make zeroes of 2, leave 0 and 4 to the base; return the content."""
    write(disk, 64 * KIB, b"one!" * 16 * KIB)
    disk.unmap(128 * KIB, 64 * KIB)
    write(disk, 192 * KIB, b"three???" * 4 * KIB)
    return read(disk, 0, SIZE)


@pytest.mark.parametrize("start", [0, 32, 100, 200, 300])
@pytest.mark.parametrize("length", [1, 40, 64, 200])
def test_inline_reads_go_through_the_layers(base: Path, start: int, length: int) -> None:
    with build(cow(base)) as disk:
        expected = spread(disk)[start * KIB :][: length * KIB]
        assert inline_read(disk, start * KIB, len(expected)) == expected


def test_inline_reads_that_have_one_byte_of_a_cluster(base: Path) -> None:
    with build(cow(base)) as disk:
        expected = spread(disk)
        for number in range(1, 5):
            border = number * 64 * KIB
            for start, end in ((border - 100, border + 1), (border - 1, border + 300)):
                assert inline_read(disk, start, end - start) == expected[start:end]


def test_an_inline_read_of_zeroes_finds_none_of_the_storage_that_was_not_given_back(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"x" * 64 * KIB)
        monkeypatch.setattr(linux, "punch_hole", mock.Mock(side_effect=OSError(errno.EIO, "kept")))
        disk.unmap(0, 64 * KIB)
        assert inline_read(disk, 512, 4096) == bytes(4096)


def test_an_inline_write_stores_the_clusters_that_it_touches_only(base: Path) -> None:
    with build(cow(base)) as disk:
        read(disk, 0, SIZE)
        handler = disk.next
        assert isinstance(handler, CowHandler)
        assert inline_write(disk, 64 * KIB, b"n" * 64 * KIB) == 64 * KIB
        assert bytes(handler._overlay.states) == bytes([0, 1, 0, 0, 0])
        assert inline_write(disk, 256 * KIB - 512, b"n" * 512) == 512
        assert bytes(handler._overlay.states) == bytes([0, 1, 0, 1, 0])
        assert inline_write(disk, 256 * KIB - 512, b"n" * 1024) == 1024
        assert bytes(handler._overlay.states) == bytes([0, 1, 0, 1, 1])


def inline_read(disk: Checked, offset: int, length: int) -> bytes:
    """Read once into one view and once into two, and compare."""
    one, two = memoryview(bytearray(b"?" * length)), memoryview(bytearray(b"?" * length))
    verb = disk.inline.read
    assert verb is not None
    assert verb([one], offset, disk.inline.read_flags) == length
    assert verb([two[:300], two[300:]], offset, disk.inline.read_flags) == length
    assert one == two
    return bytes(one)


def inline_write(disk: Checked, offset: int, data: bytes) -> int:
    view = memoryview(data)
    verb = disk.inline.write
    assert verb is not None
    return verb([view[:300], view[300:]], offset, disk.inline.write_flags)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 64), (10, 4), (60, 8), (0, 130), (20, 44), (20, 108), (100, 4), (120, 100), (200, 1), (250, 30)],
)
def test_inline_writes_store_new_clusters(base: Path, offset: int, length: int) -> None:
    with build(cow(base)) as disk:
        expected = bytearray(spread(disk))
        data = bytes(range(1, 129)) * 8 * length
        assert inline_write(disk, offset * KIB, data) == len(data)
        expected[offset * KIB : offset * KIB + len(data)] = data
        assert read(disk, 0, SIZE) == inline_read(disk, 0, SIZE) == expected
        disk.flush()
    with build(cow(base)) as disk:
        assert read(disk, 0, SIZE) == expected


def test_an_inline_read_of_two_clusters_is_whole_or_refused(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"s" * 64 * KIB)
        handler = disk.next
        assert isinstance(handler, CowHandler)
        border, room = 64 * KIB, [memoryview(bytearray(1024))]
        for read_base in (None, mock.Mock(side_effect=BlockingIOError)):
            verbs = inline_verbs([handler._disk], blocking(handler, read_base))
            assert verbs.read is not None
            with pytest.raises(BlockingIOError):
                verbs.read(room, border - 512, 0)
        verbs = inline_verbs([handler._disk], blocking(handler, mock.Mock(return_value=511)))
        assert verbs.read is not None
        assert verbs.read(room, border - 512, 0) == 1023  # the base has moved less than the rest
        write(disk, 128 * KIB, b"s" * 64 * KIB)
        with pytest.raises(BlockingIOError):  # the base has moved less than the first part
            verbs.read(room, 128 * KIB - 512, 0)


def test_an_inline_read_of_what_may_be_lost_is_refused(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"s" * 128 * KIB)
        handler = disk.next
        assert isinstance(handler, CowHandler)
        overlay, room = handler._overlay, [memoryview(bytearray(512))]
        verb = disk.inline.read
        assert verb is not None
        overlay.broken = True
        with pytest.raises(BlockingIOError):
            verb(room, 0, 0)
        overlay.map.states[1] = LOST
        with pytest.raises(BlockingIOError):
            verb(room, 64 * KIB, 0)
        overlay.broken, overlay.map.states[1] = False, DATA


def test_an_inline_read_of_a_store_that_has_none_is_refused(base: Path) -> None:
    with build(cow(base)) as disk:
        write(disk, 0, b"s" * 64 * KIB)
        handler = disk.next
        assert isinstance(handler, CowHandler)
        stored = mock.Mock(wraps=handler._overlay.store, inline=InlineVerbs())
        with mock.patch.object(handler._overlay, "store", stored):
            verb = inline_verbs([handler._disk], handler.next).read
        assert verb is not None
        room = [memoryview(bytearray(512))]
        with pytest.raises(BlockingIOError):
            verb(room, 0, 0)
        read(disk, 64 * KIB, 512)
        assert verb(room, 64 * KIB, handler.next.inline.read_flags) == 512


def blocking(handler: CowHandler, read_base: mock.Mock | None) -> mock.Mock:
    """Return a stand-in for the base, with this inline read."""
    return mock.Mock(inline=InlineVerbs(read=read_base), geometry=handler.next.geometry)


def overlay_path(disk: Checked) -> Path:
    handler = disk.next
    assert isinstance(handler, CowHandler)
    return Path(handler.options.path)


def test_an_inline_write_of_new_clusters_survives_the_process(base: Path) -> None:
    disk = build(cow(base)).open()
    read(disk, 0, 128 * KIB)
    assert inline_write(disk, 60 * KIB, b"kept" * 2048) == 8192
    abandon(disk)
    with build(cow(base)) as disk:
        assert read(disk, 60 * KIB, 8192) == b"kept" * 2048
        assert read(disk, 0, 60 * KIB) == CONTENT[: 60 * KIB]


def test_an_inline_write_of_new_clusters_waits_for_nothing(base: Path) -> None:
    with build(cow(base)) as disk:
        read(disk, 0, SIZE)
        handler = disk.next
        assert isinstance(handler, CowHandler)
        overlay = handler._overlay

        def refused(offset: int = 0, length: int = 512) -> bool:
            before = bytes(overlay.states), overlay_path(disk).read_bytes()
            with pytest.raises(BlockingIOError):
                inline_write(disk, offset, b"n" * length)
            return (bytes(overlay.states), overlay_path(disk).read_bytes()) == before

        for lock in (handler._disk.allocating, overlay._changing):
            with lock:
                assert refused()
            assert not handler._disk.allocating.locked()
            assert not overlay._changing.locked()
        note, overlay._note = overlay._note, None
        assert refused()
        overlay._note, overlay.broken = note, True
        assert refused()
        overlay.broken = False
        before = bytes(overlay.states)
        for read_base in (None, mock.Mock(side_effect=BlockingIOError), mock.Mock(return_value=511)):
            verb = inline_verbs([handler._disk], blocking(handler, read_base)).write
            assert verb is not None
            with pytest.raises(BlockingIOError):
                verb([memoryview(bytes(512))], 0, 0)
        assert bytes(overlay.states) == before
        assert inline_write(disk, 0, b"n" * 512) == 512


def test_an_inline_write_that_stores_a_part_or_cannot_be_noted_is_no_refusal(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build(cow(base)) as disk:
        read(disk, 0, SIZE)
        with monkeypatch.context() as patch:
            short = InlineVerbs(write=lambda *_: 512, write_limit=1 << 20)
            patch.setattr(FileHandler, "inline", short)
            verb = disk.inline.write
            assert verb is not None
            with pytest.raises(OSError, match="only a part") as raised:
                verb([memoryview(bytes(65536))], 0, 0)
            assert not isinstance(raised.value, BlockingIOError)
            patch.setattr(FileHandler, "inline", replace(short, write_limit=65535))
            verb = disk.inline.write
            assert verb is not None
            with pytest.raises(BlockingIOError):
                verb([memoryview(bytes(65536))], 0, 0)
        with monkeypatch.context() as patch:
            patch.setattr(TmpfsStore, "put_some", mock.Mock(side_effect=OSError(errno.ENOSPC, "full")))
            with pytest.raises(OSError, match="full"):
                inline_write(disk, 0, b"n" * 512)
        assert read(disk, 0, 128 * KIB) == CONTENT[: 128 * KIB]


def test_inline_reads_cross_the_border_of_a_group_and_inline_writes_do_not(base: Path) -> None:
    border = 4032 * 4096
    with build(cow(base, cluster_size=4096, size=border + (1 << 20))) as disk:
        write(disk, border - 8192, b"b" * 16384)
        assert inline_read(disk, border - 512, 1024) == b"b" * 1024
        with pytest.raises(BlockingIOError):
            inline_write(disk, border - 512, b"n" * 1024)
        for offset in (border - 1024, border):
            assert inline_write(disk, offset, b"n" * 1024) == 1024
            assert inline_read(disk, offset, 1024) == b"n" * 1024
        assert inline_write(disk, border + 65536, b"far" * 512) == 1536
        assert inline_read(disk, border + 65536, 1537) == b"far" * 512 + bytes(1)
        # A run of stored clusters that ends at the border, or begins there, is in one place.
        disk.unmap(border - 8192, 4096)
        disk.unmap(border + 4096, 4096)
        assert inline_read(disk, border - 8192, 8192) == bytes(4096) + b"b" * 3072 + b"n" * 1024
        assert inline_read(disk, border, 8192) == b"n" * 1024 + b"b" * 3072 + bytes(4096)
        across = bytes(4096) + b"b" * 3072 + b"n" * 2048 + b"b" * 3072 + bytes(4096)
        assert inline_read(disk, border - 8192, 16384) == across
        assert read(disk, border - 2048, 4096) == b"b" * 1024 + b"n" * 2048 + b"b" * 1024


def test_what_lies_behind_the_base_is_read_and_stored_inline(base: Path) -> None:
    with build(cow(base, size=SIZE + 100 * KIB)) as disk:
        read(disk, 0, SIZE)
        assert inline_read(disk, SIZE - 1000, 2000) == CONTENT[SIZE - 1000 : SIZE] + bytes(1000)
        assert inline_read(disk, SIZE - 10, 11) == CONTENT[SIZE - 10 : SIZE] + bytes(1)
        assert inline_read(disk, SIZE + 512, 1000) == bytes(1000)
        last = (SIZE // (64 * KIB)) * 64 * KIB
        assert inline_write(disk, last + 512, b"n" * 512) == 512
        expected = (CONTENT[last:SIZE] + bytes(64 * KIB))[: 64 * KIB]
        assert read(disk, last, 64 * KIB) == expected[:512] + b"n" * 512 + expected[1024:]
        with pytest.raises(BlockingIOError):  # the last cluster is cut short by the end of the disk
            inline_write(disk, SIZE + 100 * KIB - 512, b"n" * 512)


def test_a_batch_of_inline_writes_has_the_parts_of_the_file(base: Path) -> None:
    with build(cow(base)) as disk:
        read(disk, 0, SIZE)
        before = overlay_path(disk).stat().st_size
        verb = disk.inline.write
        assert verb is not None
        parts = batched(verb)
        for number, move in enumerate((verb, parts.first, parts.rest, parts.rest)):
            assert move([memoryview(bytes([number + 1]) * 512)], number * 512, 0) == 512
        parts.end()
        assert read(disk, 0, 2048) == b"".join(bytes([number + 1]) * 512 for number in range(4))
        # The size of the file is asked for by the first write of a batch only.
        os.truncate(overlay_path(disk), before - 512)
        assert parts.rest([memoryview(b"r" * 512)], 0, 0) == 512
        with pytest.raises(BlockingIOError):
            parts.first([memoryview(b"f" * 512)], 0, 0)
        os.truncate(overlay_path(disk), before)
