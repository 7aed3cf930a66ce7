"""Lines: memory, eviction, dirty blocks, and storage that fails."""

import errno
import struct
from collections.abc import Iterator

import pytest

from vscsihba.block import Views
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.cache.dirty_list import Shape, check_waiting
from vscsihba.handlers.cache.lines import Lines, clean_lines, dirty_lines, no_lines
from vscsihba.handlers.cache.masks import cut, mask, pieces, runs, touched
from vscsihba.handlers.shared import linux
from vscsihba.handlers.shared.tmpfs_store import TmpfsStore, recall

BLOCK = 4096
SHAPE = Shape(BLOCK, 4)
FAILURES = [OSError(errno.EIO, "broken"), MemoryError("broken")]


def content(*blocks: int) -> list[memoryview]:
    """Return a content in which every block has one byte."""
    return [memoryview(bytes([block]) * BLOCK) for block in blocks]


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = clean_lines("clean", SHAPE, 16)
    yield made
    check(made)
    made.close()


@pytest.fixture
def dirty() -> Iterator[Lines]:
    made = dirty_lines("one", SHAPE, 16, about=b"one")
    yield made
    check(made)
    made.drop(0, 1 << 40)  # this takes time for the lines that are held only
    made.close()
    assert recall("one.dirty") is None


def check(lines: Lines) -> None:
    """Every block of memory is counted once, and every line is where it belongs."""
    assert set(lines.by_number) == {*lines.clean, *lines.dirty}
    memory = [line.memory for line in lines.by_number.values()] + [spare for _, spare in lines._spare]
    assert lines._used == sum(map(int.bit_count, memory)) <= max(16, lines._used)
    extents = [line.extent for line in lines.by_number.values()] + [extent for extent, _ in lines._spare]
    assert sorted(extents) == list(range(lines._extents))
    for number, line in lines.by_number.items():
        assert (line.number, line.at) == (number, line.extent * SHAPE.line_size)
        assert line.held
        assert not line.held & ~line.memory
        assert not line.dirty & ~line.held
        assert (number in lines.dirty) == bool(line.dirty)


def held(lines: Lines, number: int) -> dict[int, int]:
    """Return the first byte of each block of a line that is held."""
    line, found = lines.by_number.get(number), {}
    for first, last in runs(line.held if line is not None else 0):
        for block in range(first, last):
            room = bytearray(BLOCK)
            assert line is not None
            lines.read(line, block * BLOCK, [memoryview(room)])
            assert room == room[:1] * BLOCK
            found[block] = room[0]
    return found


# Arithmetic


def test_masks() -> None:
    assert list(runs(0b1011101)) == [(0, 1), (2, 5), (6, 7)]
    assert list(runs(0xFFFF)) == [(0, 16)]
    assert mask(1, 3) == 0b110
    assert touched(100, 4000, BLOCK) == 0b11
    assert touched(4096, 4096, BLOCK) == 0b10
    assert cut(4096, 8192, BLOCK) == 0
    assert cut(100, 8092, BLOCK) == 0b1
    assert cut(0, 4100, BLOCK) == 0b10
    assert cut(100, 100, BLOCK) == 0b1
    assert list(pieces(10, 30, 20)) == [(0, 10, 0, 10), (1, 0, 10, 20)]


@pytest.mark.parametrize(
    ("block_size", "count", "blocks"),
    [
        (4096, 1, 1),
        (4096, 7, 1),
        (4096, 8, 2),
        (4096, 63, 8),
        (4096, 64, 16),
        (4096, 1 << 20, 16),
        (65536, 1000, 1),
        (32768, 1000, 2),
        (262144, 1000, 1),
    ],
)
def test_a_line_has_64_kib_and_a_quarter_of_the_cache_at_most(
    block_size: int, count: int, blocks: int
) -> None:
    assert Shape.of(block_size, count) == Shape(block_size, blocks)


# Memory and eviction


def test_blocks_of_a_line_are_held_each(lines: Lines) -> None:
    assert lines.hold(5, mask(1, 2), content(7))
    assert held(lines, 5) == {1: 7}
    assert lines.hold(5, mask(0, 4), content(1, 2, 3, 4))
    assert held(lines, 5) == {0: 1, 1: 7, 2: 3, 3: 4}
    assert held(lines, 4) == {}
    for block in (0, 2):
        assert lines.hold(6, mask(block, block + 1), content(7))
    assert lines.hold(6, mask(0, 4), content(1, 2, 3, 4))
    assert held(lines, 6) == {0: 7, 1: 2, 2: 7, 3: 4}


def test_the_last_block_of_a_disk_may_be_short(lines: Lines) -> None:
    assert lines.hold(0, mask(2, 4), [memoryview(b"x" * 5000)])
    line = lines.by_number[0]
    room = bytearray(904)
    lines.read(line, 3 * BLOCK, [memoryview(room)])
    assert room == b"x" * 904
    assert lines.hold(1, mask(2, 3), content(1))
    assert lines.hold(1, mask(2, 4), [memoryview(b"x" * 5000)])
    lines.read(lines.by_number[1], 3 * BLOCK, [memoryview(room)])
    assert room == b"x" * 904


def test_no_more_memory_is_used_than_there_is_room_for(lines: Lines) -> None:
    for number in range(40):
        assert lines.hold(number, mask(number % 4, number % 4 + 1), content(number))
        check(lines)
    assert list(lines.by_number) == list(range(24, 40))
    assert lines._extents <= 17
    for number in range(100, 140):
        assert lines.hold(number, mask(0, number % 4 + 1), content(*range(number % 4 + 1)))
        check(lines)
    assert lines._used > 10


def test_memory_of_an_evicted_line_is_used_again_without_a_call(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        assert lines.hold(number, 0b1111, content(1, 2, 3, 4))
    monkeypatch.setattr(linux, "punch_hole", None)
    assert lines.hold(9, 0b1111, content(5, 6, 7, 8))
    assert held(lines, 9) == {0: 5, 1: 6, 2: 7, 3: 8}
    assert list(lines.by_number) == [1, 2, 3, 9]


def test_a_line_is_not_evicted_for_itself(lines: Lines) -> None:
    assert lines.hold(0, 0b0001, content(1))
    for number in (1, 2, 3):
        assert lines.hold(number, 0b1111, content(1, 2, 3, 4))
    assert lines.hold(0, 0b1110, content(2, 3, 4))
    assert held(lines, 0) == {0: 1, 1: 2, 2: 3, 3: 4}
    assert list(lines.by_number) == [0, 1, 2, 3]
    lines.touch(lines.by_number[0])
    lines.touch(lines.by_number[2])
    assert lines.hold(4, 0b1111, content(1, 2, 3, 4))
    assert sorted(lines.by_number) == [0, 2, 3, 4]


def test_memory_that_cannot_be_freed_stays_counted(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")

    with monkeypatch.context() as patch:
        patch.setattr(linux, "punch_hole", refuse)
        for number in range(40):
            lines.hold(number, mask(number % 4, number % 4 + 1), content(number))
            check(lines)
    for number in range(50, 54):
        assert lines.hold(number, 0b1111, content(1, 2, 3, 4))
        check(lines)
    assert list(lines.by_number) == [50, 51, 52, 53]


def test_nothing_is_held_without_a_file() -> None:
    lines = no_lines(BLOCK)
    assert not lines.hold(0, 1, content(1))
    assert not lines.write(0, 1, 0, content(1))
    assert not lines.needs_room(0, 1)
    lines.refresh(0, content(1))
    lines.close()


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_blocks_that_could_not_be_filled_are_tried_again_and_told_once(
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
) -> None:
    def full(*_: object) -> None:
        raise failure

    assert lines.hold(1, 0b1, content(1))
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_views", full)
        for _ in range(2):
            assert not lines.hold(7, 0b11, content(1, 2))
            check(lines)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "broken" in caplog.text
    assert held(lines, 7) == held(lines, 1) == {}  # its memory was tried
    assert lines.hold(7, 0b11, content(1, 2))


def test_as_many_lines_are_evicted_as_memory_is_missing(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        assert lines.hold(number, 0b11, content(1, 2))
    real, calls = TmpfsStore.put_views, iter([True])

    def once(file: TmpfsStore, at: int, views: Views) -> None:
        if next(calls, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, at, views)

    monkeypatch.setattr(TmpfsStore, "put_views", once)
    assert lines.hold(0, 0b1100, content(3, 4))
    assert held(lines, 0) == {0: 1, 1: 2, 2: 3, 3: 4}
    assert sorted(lines.by_number) == [0, 2, 3]


# What is below now


def test_blocks_that_are_held_are_refreshed(lines: Lines) -> None:
    assert lines.hold(0, 0b1111, content(1, 2, 3, 4))
    lines.drop_clean(2, 3)
    assert lines.hold(1, 0b1111, content(5, 6, 7, 8))
    lines.refresh(BLOCK, content(22, 23, 24, 25, 26))
    assert set(held(lines, 0)) == {0, 1, 3}
    assert (held(lines, 0)[1], held(lines, 0)[3]) == (22, 24)
    assert held(lines, 1) == {0: 25, 1: 26, 2: 7, 3: 8}
    lines.refresh(100 * BLOCK, content(1))
    assert held(lines, 25) == {}


def test_parts_of_blocks_are_refreshed(lines: Lines) -> None:
    assert lines.hold(0, 0b0111, [memoryview(b"a" * 3 * BLOCK)])
    lines.drop_clean(1, 2)
    lines.refresh(BLOCK - 2, [memoryview(b"xy" + b"z" * BLOCK + b"uv")])
    room = bytearray(4)
    lines.read(lines.by_number[0], BLOCK - 4, [memoryview(room)])
    assert room == b"aaxy"
    lines.read(lines.by_number[0], 2 * BLOCK, [memoryview(room)])
    assert room == b"uvaa"


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_blocks_that_cannot_be_refreshed_are_forgotten(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(*_: object) -> None:
        raise failure

    assert lines.hold(0, 0b1111, content(1, 2, 3, 4))
    assert lines.hold(1, 0b1, content(5))
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_views", broken)
        lines.refresh(BLOCK, content(8, 9))
        lines.refresh(4 * BLOCK, content(8))
    assert held(lines, 0) == {0: 1, 3: 4}
    assert 1 not in lines.by_number


# Dirty blocks


def test_dirty_blocks_are_kept_until_they_are_clean(dirty: Lines) -> None:
    assert dirty.write(0, 0b1111, 0, content(1, 2, 3, 4))
    assert dirty.write(1, 0b0011, 0, content(5, 6))
    assert dirty.hold(1, 0b1100, content(7, 8))
    for number in range(2, 20):
        assert dirty.hold(number, 0b1, content(number))
    check(dirty)
    assert list(dirty.dirty) == [0, 1]
    assert held(dirty, 1) == {0: 5, 1: 6, 2: 7, 3: 8}
    assert dirty.is_dirty(0, 1)
    assert dirty.is_dirty(5, 6)
    assert not dirty.is_dirty(6, 400)
    assert not dirty.needs_room(30, 0b1111)
    for number in (30, 31):
        assert dirty.write(number, 0b1111, 0, content(1, 2, 3, 4))
    assert not dirty.clean
    assert dirty.needs_room(32, 0b1)
    assert not dirty.write(32, 0b1, 0, content(1))
    assert not dirty.hold(32, 0b1, content(1))
    assert not dirty.needs_room(31, 0b1111)


def test_a_clean_line_that_needs_more_memory_gets_that_of_others_only(dirty: Lines) -> None:
    for number in (0, 1, 2):
        assert dirty.write(number, 0b1111, 0, content(1, 2, 3, 4))
    assert dirty.hold(3, 0b0011, content(1, 2))
    assert dirty.hold(4, 0b0011, content(1, 2))
    assert not dirty.needs_room(3, 0b1111)
    assert dirty.hold(3, 0b1100, content(3, 4))
    assert held(dirty, 3) == {0: 1, 1: 2, 2: 3, 3: 4}
    assert list(dirty.clean) == [3]


def test_changes_after_a_block_was_read_keep_it_dirty(dirty: Lines) -> None:
    assert dirty.write(0, 0b0111, 0, content(1, 2, 3))
    line = dirty.by_number[0]
    line.written_back = 0b0011
    assert dirty.write(0, 0b0010, BLOCK + 5, [memoryview(b"new")])
    assert dirty.mark_clean(line, 0b0111)
    assert line.dirty == 0b0110
    assert dirty.mark_clean(line, 0b0110)
    assert line.dirty == 0b0110
    line.written_back = 0b0110
    assert dirty.mark_clean(line, 0b0110)
    assert list(dirty.clean) == [0]


def test_a_list_says_which_blocks_a_killed_process_has_left() -> None:
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert lines.hold(8, 0b1111, content(1, 2, 3, 4))
    assert lines.write(7, 0b0110, BLOCK, content(5, 6))
    assert lines.write(9, 0b0001, 0, content(7))
    assert lines.write(9, 0b1000, 3 * BLOCK, content(8))
    assert lines.write(8, 0b0100, 2 * BLOCK + 4, [memoryview(b"new")])
    line = lines.by_number[9]
    line.written_back = 0b0001
    assert lines.mark_clean(line, 0b0001)
    lines.close()
    # With another size of the cache lines keep the shape that they have.
    lines = dirty_lines("one", Shape(BLOCK, 16), 4, about=b"one")
    assert lines.shape == SHAPE
    assert {number: line.dirty for number, line in lines.dirty.items()} == {7: 0b0110, 8: 0b0100, 9: 0b1000}
    assert held(lines, 7) == {1: 5, 2: 6}
    room = bytearray(8)
    lines.read(lines.by_number[8], 2 * BLOCK, [memoryview(room)])
    assert room == b"\3\3\3\3new\3"
    assert lines.data is not None
    assert lines.data.path.stat().st_blocks * 512 == (4 + 1) * BLOCK  # and the head
    check(lines)
    assert not lines.hold(1, 0b1, content(1))
    lines.drop(0, 1 << 40)
    check(lines)
    assert lines.hold(1, 0b1, content(1))
    lines.close()
    assert recall("one.dirty") is None


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("failing", [".data", ".dirty"])
def test_blocks_that_cannot_be_changed_are_forgotten_alone(
    dirty: Lines, failing: str, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    assert dirty.hold(0, 0b0111, content(1, 2, 3))
    assert dirty.hold(1, 0b0001, content(4))
    assert dirty.write(0, 0b0100, 2 * BLOCK, content(5))

    def broken(file: TmpfsStore, *rest: object) -> None:
        if file.path.suffix == failing:
            raise failure

    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put_views" if failing == ".data" else "put", broken)
        for number, blocks, within in ((0, 0b0110, BLOCK), (1, 0b0001, 0)):
            with pytest.raises(type(failure), match="broken"):
                dirty.write(number, blocks, within, content(*range(blocks.bit_count())))
    assert set(held(dirty, 0)) == {0, 2}
    assert dirty.by_number[0].dirty == 0b0100
    assert 1 not in dirty.by_number


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_list_that_cannot_be_changed_keeps_blocks_dirty(
    dirty: Lines, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(*_: object) -> None:
        raise failure

    assert dirty.write(0, 0b0011, 0, content(1, 2))
    line = dirty.by_number[0]
    line.written_back = 0b0011
    with monkeypatch.context() as patch:
        patch.setattr(TmpfsStore, "put", broken)
        assert not dirty.mark_clean(line, 0b0011)
        with pytest.raises(type(failure), match="broken"):
            dirty.drop(1, 2)
    assert line.dirty == line.held == 0b0011
    dirty.drop(1, 2)
    assert line.dirty == line.held == 0b0001


# Other media and releases


def test_dirty_blocks_are_for_their_medium_and_block_size() -> None:
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert lines.write(7, 0b1, 0, content(1))
    lines.close()
    with pytest.raises(HostError, match="for another medium"):
        dirty_lines("one", SHAPE, 16, about=b"other")
    with pytest.raises(UsageError, match="writes are waiting"):
        dirty_lines("one", Shape(8192, 4), 16, about=b"one")
    with pytest.raises(UsageError, match='"block_size": 4096'):
        check_waiting("one", about=b"one", block_size=None)
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert list(lines.dirty) == [7]
    lines.drop(28, 29)
    lines.close()


def test_the_format_of_the_list() -> None:
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert lines.write(7, 0b0110, BLOCK, content(1, 2))
    assert lines.write(0, 0b0001, 0, content(3))
    notes = recall("one.dirty")
    assert notes is not None
    assert notes.content == struct.pack("<IHHQQ", 4096, 4, 1, 8 << 4 | 0b0110, 1 << 4 | 0b0001)
    lines.drop(0, 100)
    notes = recall("one.dirty")
    assert notes is not None
    assert notes.content == struct.pack("<IHHQQ", 4096, 4, 1, 0, 0)
    for file in (lines.data, lines._dirty_list):
        assert file is not None
        file.close(forget=False)
    # With nothing in it, a list gets the shape of the cache that opens it.
    lines = dirty_lines("one", Shape(BLOCK, 2), 16, about=b"one")
    assert lines.shape == Shape(BLOCK, 2)
    notes = recall("one.dirty")
    assert notes is not None
    assert notes.content[:8] == struct.pack("<IHH", 4096, 2, 1)
    lines.close()


def test_a_list_may_end_within_an_entry_or_its_head() -> None:
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert lines.write(7, 0b1, 0, content(1))
    lines.close()
    notes = recall("one.dirty")
    assert notes is not None
    notes.path.write_bytes(notes.path.read_bytes() + b"\1\2\3")
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert list(lines.dirty) == [7]
    lines.drop(28, 29)
    lines.close()
    for size in (4096, 4099):
        notes.path.write_bytes(notes.path.read_bytes()[:size] if notes.path.exists() else b"")
        assert not check_waiting("one", about=b"one", block_size=4096)


def test_writes_of_an_earlier_release_are_refused_and_a_list_without_any_is_used() -> None:
    """It had 8 bytes for the block size, then 8 for each block: its number plus one, or 0."""
    store = TmpfsStore("one.dirty", about=b"one")
    store.put(0, (4096).to_bytes(8, "little") + bytes(8) + (8).to_bytes(8, "little"))
    store.close(forget=False)
    with pytest.raises(HostError, match="of another release are waiting"):
        check_waiting("one", about=b"one", block_size=4096)
    notes = recall("one.dirty")
    assert notes is not None
    whole = notes.path.read_bytes()
    notes.path.write_bytes(notes.content)  # the first ones did not name their medium
    with pytest.raises(HostError, match="of another release are waiting"):
        check_waiting("one", about=b"one", block_size=4096)
    notes.path.write_bytes(whole)
    store = TmpfsStore("one.dirty", about=b"one")
    store.put(16, bytes(8))
    store.close(forget=False)
    assert not check_waiting("one", about=b"one", block_size=4096)
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert lines.write(7, 0b1, 0, content(1))
    lines.close()
    lines = dirty_lines("one", SHAPE, 16, about=b"one")
    assert list(lines.dirty) == [7]
    lines.drop(28, 29)
    lines.close()
