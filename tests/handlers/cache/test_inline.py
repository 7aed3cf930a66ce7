"""Inline verbs of a cache move what is at hand, and leave everything else untouched or to be repeated."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.cache.test_cache import CONTENT, SIZE, Below, content_of, on, opened
from vscsihba.block import Views
from vscsihba.handlers.base import BatchedWrite, InlineVerbs, Mover, batched, note_batched
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore
from vscsihba.handlers.stack import build
from vscsihba.testing.disk_model import read, write


class InlineBelow(Below):
    """A layer with writes that never block; it records their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.most = 1 << 20

    @property
    def inline(self) -> InlineVerbs:
        def named(name: str) -> Mover:
            def move(views: Views, offset: int, flags: int) -> int:
                self.calls.append(name)
                assert flags == 7
                if self.fails:
                    raise OSError(errno.EIO, "broken")
                data = b"".join(views)[: self.most]
                MemoryHandler.write(self, offset, [memoryview(data)])
                return len(data)

            return move

        parts = BatchedWrite(named("first"), named("rest"), lambda: self.calls.append("end"))
        write = note_batched(named("write"), parts)
        return InlineVerbs(write=write, write_flags=7, write_limit=512 << 10)


@pytest.fixture
def below() -> InlineBelow:
    below = InlineBelow()
    MemoryHandler.write(below, 0, [memoryview(CONTENT)[:SIZE]])
    return below


@pytest.fixture
def through(below: Below) -> Iterator[Checked]:
    yield from opened(on(below))


@pytest.fixture
def behind(below: Below) -> Iterator[Checked]:
    yield from opened(on(below, mode="write-back"))


def move(verb: Mover | None, offset: int, data: bytes | bytearray, *, flags: int = 0) -> int:
    """Call an inline verb with a scatter list of odd parts."""
    assert verb is not None
    view = memoryview(data)
    return verb([view[:100], view[100:1000], view[1000:]], offset, flags)


def refuses(verb: Mover | None, offset: int, length: int) -> bool:
    """Return whether a verb moves nothing."""
    try:
        move(verb, offset, bytearray(length))
    except BlockingIOError:
        return True
    return False


# Reads


@pytest.mark.parametrize("offset", [0, 4, 4092, 8000])
@pytest.mark.parametrize("length", [8, 4096, 16384, 24000])
def test_reads_of_what_is_held_across_blocks_and_lines(through: Checked, offset: int, length: int) -> None:
    read(through, 0, 32768)
    room = bytearray(length)
    assert move(through.inline.read, offset, room) == length
    assert room == CONTENT[offset : offset + length]


def test_reads_of_what_is_not_held_are_refused(through: Checked, below: Below) -> None:
    assert refuses(through.inline.read, 0, 8)
    read(through, 0, 8192)
    below.asked.clear()
    assert not refuses(through.inline.read, 8184, 8)
    for offset, length in ((8184, 9), (8192, 8), (16384, 1), (0, 20000)):
        assert refuses(through.inline.read, offset, length)
    assert below.asked == []


def test_blocks_that_are_held_are_read_beside_others_that_are_not(through: Checked) -> None:
    read(through, 4096, 4096)
    one, room = through.inline.read, bytearray(4096)
    assert one is not None
    assert one([memoryview(room)], 4096, 0) == 4096
    assert room == CONTENT[4096:8192]
    assert refuses(one, 4095, 2)


def test_a_read_counts_as_a_use(through: Checked, below: Below) -> None:
    """Of 16 blocks, which are in lines of 4."""
    for line in (0, 1, 2, 3):
        read(through, line * 16384, 16384)
    assert not refuses(through.inline.read, 0, 8)
    read(through, 4 * 16384, 4096)
    assert not refuses(through.inline.read, 0, 8)
    assert refuses(through.inline.read, 16384, 8)


def test_a_read_of_two_lines_is_a_use_of_both(through: Checked) -> None:
    for line in (0, 1, 2, 3):
        read(through, line * 16384, 16384)
    assert not refuses(through.inline.read, 16380, 8)
    for line in (4, 5):
        read(through, line * 16384, 16384)
    assert not refuses(through.inline.read, 16380, 8)
    assert refuses(through.inline.read, 2 * 16384, 8)


def test_a_use_of_a_dirty_line_counts_too(behind: Checked, below: Below) -> None:
    write(behind, 0, b"d" * 4096)
    write(behind, 16384, b"e" * 4096)
    assert not refuses(behind.inline.read, 0, 8)
    handler = behind.next
    assert list(handler._lines.dirty) == [1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", ["read", "write"])
@pytest.mark.parametrize("mode", ["write-through", "write-back"])
def test_nothing_is_moved_while_another_thread_has_the_lock(below: Below, mode: str, verb: str) -> None:
    for disk in opened(on(below, mode=mode)):
        read(disk, 0, 8192)
        lock: threading.Lock = disk.next._lock  # type: ignore[attr-defined]
        with lock:
            assert refuses(getattr(disk.inline, verb), 0, 8)
        assert not refuses(getattr(disk.inline, verb), 0, 8)


def test_a_cache_that_could_not_be_made_has_no_inline_verbs(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for mode in ("write-through", "write-back"):
        with monkeypatch.context() as patch:
            patch.setattr(TmpfsStore, "__init__", refuse)
            for disk in opened(on(below, mode=mode)):
                assert disk.inline == InlineVerbs()


# Writes back


def test_whole_blocks_are_written_into_the_cache(behind: Checked, below: Below) -> None:
    data = bytes(reversed(CONTENT[:32768]))
    assert behind.inline.write_limit == 1 << 20
    assert move(behind.inline.write, 4096, data) == len(data)
    assert below.asked == []
    assert read(behind, 4096, len(data)) == data
    assert below.asked == []
    behind.flush()
    assert content_of(below, 4096, len(data)) == data


def test_a_part_of_a_block_is_written_only_if_it_is_held(behind: Checked, below: Below) -> None:
    for offset, length in ((10, 100), (0, 100), (4000, 96), (4000, 4192), (10, 4086)):
        assert refuses(behind.inline.write, offset, length)
    read(behind, 0, 4096)
    assert not refuses(behind.inline.write, 10, 4086)
    assert move(behind.inline.write, 10, b"new" * 100) == 300
    assert read(behind, 9, 302) == CONTENT[9:10] + b"new" * 100 + bytes(1)
    behind.flush()
    assert content_of(below, 9, 302) == CONTENT[9:10] + b"new" * 100 + bytes(1)


def test_a_write_ends_before_the_first_line_that_has_to_wait(behind: Checked, below: Below) -> None:
    assert move(behind.inline.write, 8192, b"x" * 10000) == 8192
    assert read(behind, 8192, 8193) == b"x" * 8192 + CONTENT[16384:16385]
    assert move(behind.inline.write, 32768, b"y" * 65536) == 49152
    behind.flush()
    assert content_of(below, 8192, 8192) == b"x" * 8192


def test_a_write_waits_for_room_and_for_a_change_below_elsewhere(behind: Checked, below: Below) -> None:
    def unmap(offset: int, length: int) -> None:
        assert refuses(behind.inline.write, 4096, 4096)
        assert refuses(behind.inline.write, 0, 8192)
        assert not refuses(behind.inline.write, 8192, 4096)

    below.unmap = unmap  # type: ignore[method-assign]
    behind.unmap(4096, 4096)
    write(behind, 0, bytes(65536))
    assert refuses(behind.inline.write, 65536, 4096)
    assert not refuses(behind.inline.write, 0, 4096)


@pytest.mark.parametrize("mode", ["write-through", "write-back"])
def test_a_fetch_that_an_inline_write_overtakes_is_not_kept(below: Below, mode: str) -> None:
    for disk in opened(on(below, mode=mode)):

        def overtake(disk: Checked = disk) -> None:
            below.before_read = lambda: None
            assert move(disk.inline.write, 4096, b"n" * 4096, flags=7) == 4096

        below.before_read = overtake
        read(disk, 0, 12288)
        assert read(disk, 4096, 4096) == b"n" * 4096
        disk.flush()
        assert read(disk, 4096, 4096) == content_of(below, 4096, 4096) == b"n" * 4096


def test_what_is_written_inline_survives_the_process(behind: Checked, below: Below) -> None:
    assert move(behind.inline.write, 4096, b"k" * 8192) == 8192
    handler: Any = behind.next
    handler._lines.close()
    again = on(below, mode="write-back")
    again.open()
    assert content_of(below, 4096, 4096) != b"k" * 4096
    again.close()
    assert content_of(below, 4096, 8192) == b"k" * 8192
    handler._lines.close = lambda: None
    handler._lines.dirty.clear()


def test_a_disk_that_is_only_read_has_no_inline_write(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(CONTENT[:SIZE])
    disk = {"handler": "file", "path": str(tmp_path / "disk.img"), "read_only": True}
    for mode in ("write-through", "write-back"):
        with build({"handler": "cache", "size": "1MiB", "mode": mode, "next": disk}) as opened_disk:
            assert opened_disk.inline.write is None
            assert opened_disk.inline.read is not None


# Writes through


def test_a_write_through_is_below_and_in_the_blocks_that_are_held(
    through: Checked, below: InlineBelow
) -> None:
    inline = through.inline
    assert (inline.write_flags, inline.write_limit) == (0, 512 << 10)
    read(through, 0, 4096)
    below.asked.clear()
    assert move(inline.write, 4000, b"new" * 1000, flags=0) == 3000
    assert content_of(below, 4000, 3000) == b"new" * 1000
    assert read(through, 4000, 96) == (b"new" * 1000)[:96]
    assert below.asked == []
    assert read(through, 4000, 3000) == b"new" * 1000
    assert below.asked == [("read", 4096, 4096)]


def test_a_write_through_of_a_layer_that_may_block_is_not_inline() -> None:
    for disk in opened(on(Below())):
        assert disk.inline.write is None


def test_a_batch_of_writes_through_has_the_parts_of_the_layer_below(
    through: Checked, below: InlineBelow
) -> None:
    write_ = through.inline.write
    assert write_ is not None
    parts = batched(write_)
    for verb in (write_, parts.first, parts.rest):
        assert move(verb, 0, b"x" * 4096) == 4096
    parts.end()
    assert below.calls == ["write", "first", "rest", "end"]


def test_a_write_through_that_fails_or_stops_short_forgets_its_blocks(
    through: Checked, below: InlineBelow
) -> None:
    def fail() -> None:
        below.fails = True
        with pytest.raises(OSError, match="broken"):
            move(through.inline.write, 4096, b"n" * 4096)
        below.fails = False

    def stop_short() -> None:
        below.most = 1000
        assert move(through.inline.write, 4096, b"n" * 4096) == 1000

    attempts: tuple[Callable[[], None], ...] = (fail, stop_short)
    for attempt in attempts:
        read(through, 0, 12288)
        attempt()
        below.asked.clear()
        assert read(through, 0, 12288) == content_of(below, 0, 12288)
        assert below.asked == [("read", 4096, 4096)]


def test_a_write_through_waits_for_a_change_of_its_blocks_elsewhere(
    through: Checked, below: InlineBelow
) -> None:
    def unmap(offset: int, length: int) -> None:
        assert refuses(through.inline.write, 4096, 4096)
        assert not refuses(through.inline.write, 8192, 4096)

    below.unmap = unmap  # type: ignore[method-assign]
    through.unmap(4096, 4096)
    assert below.calls == ["write"]
